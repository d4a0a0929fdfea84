"""An update as one CUDA graph: recorded once, then replayed, so that the device never waits for launches.

A graph keeps the addresses of its tensors and the values of its numbers from the capture. So everything that changes
from step to step is kept in static tensors: the batch, the numbers of the step (`step_numbers.Slots`), the learning
rates (`rates.Rates`), and state that outlives a step, which is updated in place. The sequence:

    steps 0, 1      eager: optimizers create their states, cuDNN chooses its kernels
    step 2          with a batch that hides its step and seeds: a method that reads them cannot be captured
    steps 3, 4      recorded operation by operation: both must be the same program, and wait for nothing
    step 4          run again, to see how far two runs of a step differ; then captured and replayed from these weights
    steps 4, 5      the replay must be as close to the eager step as two eager runs are to each other
    from step 6 on  replayed

If any of this fails, or batches change their shapes, steps stay eager and the run says why.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from segadapt.batch import Batch, Images
from segadapt.engine.program import Program, difference
from segadapt.engine.runtime import Runtime
from segadapt.engine.step_numbers import NotCapturable, Slots
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.methods.method import Method, Values

PLAIN, NOTED, CHECKED = 2, 2, 2
"""Numbers of steps: before a capture is prepared; whose programs are compared; whose replay is compared."""
MARGIN, LEAST = 10.0, 1e-3
"""How far a replay may be from its step: this many times the distance of two runs of it, or this share of the step's
own length, whichever is more. Rounding is not reproducible on a GPU."""


class Graph(Protocol):
    """What a step is recorded into."""

    def capture(self, step: Callable[[], Values]) -> None:
        """Record it; nothing is computed yet."""

    def replay(self) -> Values:
        """Compute it from the current content of its tensors; the values are in the same tensors each time."""


class CudaGraph:
    """PyTorch's."""

    def __init__(self, optimizers: dict[str, Optimizer]) -> None:
        self.optimizers = optimizers
        self._graph = torch.cuda.CUDAGraph()
        self._values: Values = {}

    def capture(self, step: Callable[[], Values]) -> None:
        """See `Graph`. Other threads may keep working meanwhile: the loader's pins memory."""
        with _capturable(self.optimizers), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._values = step()

    def replay(self) -> Values:
        """See `Graph`."""
        self._graph.replay()
        return self._values


@contextmanager
def _capturable(optimizers: dict[str, Optimizer]) -> Iterator[None]:
    """Adam must be told when it is captured; at other times the flag would make it warn."""
    groups = [group for one in optimizers.values() for group in one.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


class Hidden:
    """Stands in for a number that a captured step must not read, since each replay has a different one."""

    def __init__(self, what: str, length: int = 0) -> None:
        self.what, self.length = what, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: Any) -> "Hidden":
        if isinstance(place, slice):
            return Hidden(self.what, len(range(self.length)[place]))
        return self._read()

    def _read(self, *others: object) -> NoReturn:
        raise NotCapturable(f"its step reads {self.what} on the host")

    __int__ = __index__ = __float__ = __bool__ = __iter__ = __neg__ = __abs__ = _read
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _read
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __xor__ = __rxor__ = _read
    __and__ = __rand__ = __or__ = __ror__ = __lshift__ = __rshift__ = __divmod__ = __round__ = _read
    __lt__ = __le__ = __gt__ = __ge__ = _read
    __eq__ = __ne__ = __hash__ = _read


@dataclass(frozen=True)
class Inputs:
    """A batch with static tensors that hides its step."""

    batch: Batch

    @classmethod
    def like(cls, batch: Batch) -> "Inputs":
        """For batches of this kind."""

        def kept(images: Images | None) -> Images | None:
            if images is None:
                return None
            labels, valid = (None if one is None else one.clone() for one in (images.labels, images.valid))
            return Images(images.images.clone(), labels, (), valid)

        assert batch.words is not None
        hidden: dict[str, Any] = {
            "step": Hidden("the step's number"),
            "seeds": Hidden("the samples' seeds", len(batch.seeds)),
            "step_seed": Hidden("the step's seed"),
        }
        source, target = kept(batch.source), kept(batch.target)
        return cls(replace(batch, source=source, target=target, words=batch.words.clone(), **hidden))

    def fit(self, batch: Batch) -> bool:
        """Whether it is a batch of this kind."""
        mine, its = ([(tensor.shape, tensor.dtype) for tensor in one.tensors()] for one in (self.batch, batch))
        return mine == its

    def fill(self, batch: Batch) -> None:
        """Copy the batch of a step into it."""
        for mine, its in zip(self.batch.tensors(), batch.tensors(), strict=True):
            mine.copy_(its, non_blocking=True)


def lasting(method: Method, updater: Updater) -> list[Tensor]:
    """All tensors that outlive a step."""
    found = updater.lasting()
    for module in method.modules.values():
        found += [*module.parameters(), *module.buffers()]
    for optimizer in method.optimizers.values():
        found += [x for of_one in optimizer.state.values() for x in of_one.values() if isinstance(x, Tensor)]
    return found


class Uncaptured(NotCapturable):
    """A step that cannot be captured but has been done, with these values."""

    def __init__(self, what: str, values: Values) -> None:
        super().__init__(what)
        self.values = values


class State:
    """All tensors that outlive a step, as they are now."""

    def __init__(self, method: Method, updater: Updater) -> None:
        self.places = lasting(method, updater)
        self.kept = [place.detach().clone() for place in self.places]

    def need_same_places(self, now: list[Tensor], values: Values) -> None:
        """Raise Uncaptured for a step with these values when it has replaced one of these tensors."""
        if len(self.places) != len(now):
            raise Uncaptured("not all of its optimizers have taken a step", values)
        if not all(map(operator.is_, self.places, now)):
            raise Uncaptured("its step replaces a tensor that outlives it, instead of changing it in place", values)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore everything."""
        for place, kept in zip(self.places, self.kept, strict=True):
            place.copy_(kept)

    def distance(self, other: "State") -> float:
        """Euclidean distance over all numbers. The host waits for it."""
        squares = [(a.double() - b.double()).square().sum() for a, b in zip(self.kept, other.kept, strict=True)]
        return float(torch.stack([square.cpu() for square in squares]).sum().sqrt())


class Graphed:
    """Runs the updates of one training: see the top of this file."""

    def __init__(
        self,
        method: Method,
        updater: Updater,
        make: Callable[[], Graph],
        say: Callable[[str], None],
        required: bool = False,
    ) -> None:
        """`required`: a step that cannot be captured is an error."""
        self.method, self.updater, self.runtime = method, updater, updater.runtime
        self.make, self.say, self.required = make, say, required
        self.refused: str | None = None  # why no step is captured
        self._begin()

    def _begin(self) -> None:
        self._done = 0  # steps since the shapes, or the host's choices, changed
        self._inputs: Inputs | None = None
        self._slots = Slots(0, self.runtime.device)
        self._programs: list[Program] = []
        self._graph: Graph | None = None
        self._unlike = 0.0  # the distance of two runs of one step
        self._written: list[Tensor] = []  # what a replay may change: everything that outlives a step

    @property
    def replays(self) -> bool:
        """Whether steps are being replayed."""
        return self._graph is not None and self._done >= PLAIN + NOTED + CHECKED

    def run(self, method: Method, batch: Batch) -> Values:
        """As `Updater.run`."""
        batch = batch if batch.words is not None else batch.ahead_on(self.runtime.device)
        if self.refused is None and self._inputs is not None:
            if not self._inputs.fit(batch):
                self._refuse("the shapes of its batches change")
            elif not self._slots.same_choices(batch.step):
                self._begin()
        if self.refused is not None or self._done < PLAIN:
            self._done += 1
            return self.updater.run(method, batch)
        self.updater.recent.append((batch.step, batch.names))
        if self._inputs is None:
            self._inputs, self._slots = Inputs.like(batch), Slots(batch.step, self.runtime.device)
        self._inputs.fill(batch)
        values = self._replayed(batch) if self.replays else self._tried(batch)
        self._done += 1
        return values

    def _tried(self, batch: Batch) -> Values:
        """A step that prepares the capture; if that fails, the step is done eagerly."""
        before = State(self.method, self.updater)
        values, why = Values(), None
        try:
            if self._done == PLAIN:
                values = self._asked(batch)
            elif self._done == PLAIN + 1:
                values = self._noted(batch)
            elif self._done == PLAIN + NOTED:
                values = self._captured(batch, before)
            else:
                truth = self._computed(batch)
                values = self._compared(batch, before, truth, State(self.method, self.updater))
            before.need_same_places(lasting(self.method, self.updater), values)
        except Uncaptured as error:
            self._refuse(str(error))
            return error.values
        except NotCapturable as error:
            why = str(error)
        except (RuntimeError, TypeError) as error:  # PyTorch's, about what a graph cannot hold, or about memory
            why = (str(error) or type(error).__name__).splitlines()[0]
        if self.runtime.any(why is not None):
            self.updater.abandon()
            before.restore()
            self._refuse(why or "on another rank it cannot be captured")
            torch.manual_seed(batch.seeds[0])
            return self.updater.run(self.method, batch)
        return values

    def _asked(self, batch: Batch) -> Values:
        """A step that determines which numbers it needs."""
        assert self._inputs is not None
        for optimizer in self.method.optimizers.values():
            if not optimizer.defaults.get("fused"):
                raise NotCapturable("its optimizers are not fused (optimizer_path)")
        torch.manual_seed(batch.seeds[0])
        return self.updater.compute(self.method, self._inputs.batch, _Filled(self._slots))

    def _computed(self, batch: Batch, looking_on: AbstractContextManager[object] | None = None) -> Values:
        """An eager step from the same tensors as a captured one.

        `looking_on` sees what a capture would record, without the numbers that are copied to the device before it.
        """
        assert self._inputs is not None
        asked, slots = self._slots.asked, self._slots
        slots.fill(batch.step)
        slots.begin()
        torch.manual_seed(batch.seeds[0])
        with looking_on or nullcontext():
            values = self.updater.compute(self.method, self._inputs.batch, slots)
        if slots.asked != asked:
            raise NotCapturable("its step does not ask for the same numbers each time")
        return values

    def _noted(self, batch: Batch) -> Values:
        """A step whose program is recorded and must equal the previous one's."""
        if self.runtime.compile:  # a dispatch mode would replace the compiled code
            return self._computed(batch)
        program = Program(self.runtime.device)
        values = self._computed(batch, program)
        self._programs.append(program)
        if self.runtime.device.type != "cpu" and program.waits:
            raise NotCapturable(f"its step makes the host wait for the device ({program.waits[0]})")
        if self.runtime.device.type != "cpu" and len(self._programs) > 1:
            changed = difference(program, self._programs[-2])
            if changed is not None:
                raise NotCapturable(f"its step is not the same program each time: {changed}")
        return values

    def _captured(self, batch: Batch, before: State) -> Values:
        """Capture the step, and run it by replay."""
        truth = self._noted(batch)
        before.need_same_places(lasting(self.method, self.updater), truth)
        after = State(self.method, self.updater)
        before.restore()
        self._computed(batch)
        self._unlike = after.distance(State(self.method, self.updater))
        before.restore()
        self._programs.clear()
        self._written = after.places
        inputs, slots = self._inputs, self._slots
        assert inputs is not None

        def step() -> Values:
            slots.begin()
            return self.updater.compute(self.method, inputs.batch, slots)

        graph = self.make()
        graph.capture(step)
        self._graph = graph
        return self._compared(batch, before, truth, after)

    def _compared(self, batch: Batch, before: State, truth: Values, after: State) -> Values:
        """The step by replay from the state `before` it; the result must be close to the state `after` it."""
        moved = after.distance(before)
        before.restore()
        values = self._replayed(batch)
        found = after.distance(State(self.method, self.updater))
        if not found <= MARGIN * self._unlike + LEAST * moved:
            raise NotCapturable(
                f"the replayed step differs from the eager one (by {found:.3g}, of a step of {moved:.3g})"
            )
        if truth.keys() != values.keys():
            raise NotCapturable("the replayed step has different losses")
        if self._done == PLAIN + NOTED + CHECKED - 1:
            self.say("each step is one CUDA graph from here on")
        return values

    def _replayed(self, batch: Batch) -> Values:
        assert self._graph is not None
        self._slots.fill(batch.step)
        torch.manual_seed(batch.seeds[0])  # for what a network draws through functions
        values = self._graph.replay()
        # PyTorch does not see what a replay writes; `BatchNorm2d` goes by these versions.
        torch.autograd.graph.increment_version(self._written)
        # The next replay writes into the same tensors.
        return dict(zip(values, torch.stack(list(values.values())).unbind(), strict=True))

    def _refuse(self, why: str) -> None:
        """Steps are eager from now on."""
        self.refused = why
        self._inputs, self._graph, self._programs = None, None, []
        if self.required:
            raise UsageError(
                f"this training cannot be one CUDA graph: {why}",
                where="runtime.cuda_graphs",
                remedy="Use auto or off.",
            )
        self.say(f"no CUDA graph, steps stay eager: {why}")


class _Filled:
    """Slots that are filled while a step asks for them."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def number(self, of_step: Callable[[int], float]) -> float | Tensor:
        """See `StepNumbers`."""
        place = self.slots.number(of_step)
        assert isinstance(place, Tensor)
        return place.fill_(of_step(self.slots.step))

    def choice(self, of_step: Callable[[int], Any]) -> Any:
        """See `StepNumbers`."""
        return self.slots.choice(of_step)


def graphed(method: Method, updater: Updater, runtime: Runtime, say: Callable[[str], None]) -> Graphed | None:
    """Runs the updates of a training as one graph; None if that is switched off, or there is no GPU.

    With `auto`, on a single rank only: several sum their gradients inside the graph, which has not been measured.
    """
    wanted = runtime.cuda_graphs
    if runtime.device.type != "cuda" or wanted == "off" or (wanted == "auto" and runtime.ranks > 1):
        return None
    return Graphed(method, updater, lambda: CudaGraph(method.optimizers), say, required=wanted == "on")

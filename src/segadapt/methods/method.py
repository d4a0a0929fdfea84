"""The contract between a method (one paper) and whatever runs it.

A method is one file: its settings, and one update as the paper's algorithm box has it. It owns its modules and
optimizers, and never logs, plots, saves or moves to a device. A step reads from top to bottom:

    def step(self, batch, update):
        update.count(seg=labelled_pixels(batch.source.labels))
        for part in update.micro_batches(batch):
            logits = self.network(part.source.images).logits
            update.backward(seg=cross_entropy(self.network.upsample(logits, …), part.source.labels))
        update.step("network")

To add one: subclass `Method`, name its `settings`, implement `step` and `result`, and register it with
`segadapt.register_method`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer

DomainName = Literal["source", "target"]
Choice = TypeVar("Choice")
Values = dict[str, Tensor]
"""Named scalars on the device: `total` (weighted) and one unweighted mean per loss term."""


class Update(Protocol):
    """What a step may do: backward passes, optimizer steps, and nothing that needs to know the machine.

    Ranks, micro-batches, precision, clipping and updates that must be skipped are its business. A loss counts by
    weight · sum / count, with sum and count over all ranks and micro-batches.
    """

    def count(self, **counts: Tensor) -> None:
        """Say the counts of terms, over this rank's whole batch, before the first pass.

        Needed for terms whose count depends on the data (`Loss.count` is a tensor) when there are several
        micro-batches, since each is backpropagated before the next is seen; otherwise it saves the ranks a message.
        """

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """The batch in as many equal parts as `accumulate` says. What networks draw themselves follows its seeds."""

    def backward(self, **terms: Loss) -> None:
        """Backpropagate these terms together: their gradients are added to what is there, and activations are freed.

        A term with the name of an optimizer is its own objective and has no part in `total`.
        """

    def step(self, *optimizers: str) -> None:
        """One step of the named optimizers on the gradients so far, or of none of them if anything is not finite."""

    def follow(
        self, teacher: nn.Module, student: nn.Module, decay: float | Callable[[int], float], buffers: bool = True
    ) -> None:
        """The teacher's moving average, unless the last update was skipped; without `buffers` of parameters alone.

        A `decay` that changes from step to step is a function of the step.
        """

    def number(self, of_step: Callable[[int], float]) -> float | Tensor:
        """What a function of the step (0, 1, …) gives: a plain number, or a scalar on the device.

        Any number that changes from step to step must come from here, so that a GPU can be given the whole step at
        once and be told its numbers later. A step that reads `batch.step` or `batch.seeds` is told launch by launch.
        """

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """What a function of the step gives, for the host to decide by; it should change seldom."""

    def over_ranks(self, values: Tensor) -> Tensor:
        """`values`, summed over the ranks."""


class Networks(Protocol):
    """What a method is built from: networks with their initial weights, wherever these come from."""

    length: int
    """Of the schedule, in steps."""
    things: tuple[int, ...]
    """Train ids of the countable classes, as the label space has them."""

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """A segmenter as `settings` has it: `network`, `start` and all that goes with them."""

    def saved_segmenter(self, reference: str) -> Segmenter:
        """The segmenter of `@stage`, a model or a published checkpoint, with its weights."""

    def fill(self, module: StyleTransfer | Discriminator, name: str, file: str | Path | None) -> None:
        """Put the weights of a file into a module that is no segmenter; None: it stays fresh. `name` is for people."""


class Method(ABC):
    """Base of all methods that train."""

    settings_type: ClassVar[type[TrainingSettings]]  # its settings; their `method` is its name in recipes
    domains: ClassVar[tuple[DomainName, ...]]  # whose images a batch must hold
    labelled: ClassVar[DomainName] = "source"  # whose labels it learns from, and whose images an epoch counts
    uses_target_labels: ClassVar[bool] = False  # whether these are true labels of the target
    scheduled: ClassVar[bool] = False  # whether its step depends on the schedule's length, beside the learning rate
    attention: ClassVar[bool] = False  # whether its network must have attention
    tells_things: ClassVar[bool] = False  # whether it depends on which classes are things
    code_version: ClassVar[int] = 1  # raised when a stage would come out otherwise for the same settings
    modules: dict[str, nn.Module]  # all that a checkpoint must hold
    helpers: dict[str, nn.Module] = {}  # noqa: RUF012 - frozen networks that it looks through; replaced, never changed
    optimizers: dict[str, Optimizer]

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        """The method over its networks; one that needs more than a segmenter has a `build` of its own."""
        return cls(networks.segmenter(settings, cls.attention), settings)  # type: ignore[call-arg]

    @abstractmethod
    def step(self, batch: Batch, update: Update) -> None:
        """One update, as the paper's algorithm box has it."""

    @property
    @abstractmethod
    def result(self) -> Segmenter | StyleTransfer:
        """The network that the training is for (the teacher, where there is one)."""


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """What is computed in here sends gradients through `modules`, but none to their parameters."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

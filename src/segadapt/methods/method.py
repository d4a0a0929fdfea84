"""The contract between a method (one paper) and whatever runs it.

A method is one file: its settings, and one update that follows the paper's algorithm box. It owns its modules and
optimizers, and never logs, plots, saves or moves data to a device. A step reads from top to bottom:

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
    """What a step may do: backward passes and optimizer steps, but nothing that depends on the machine.

    It takes care of ranks, micro-batches, precision, clipping and skipped updates. A loss contributes
    weight · sum / count, with sum and count over all ranks and micro-batches.
    """

    def count(self, **counts: Tensor) -> None:
        """Announce the counts of terms, over this rank's whole batch, before the first pass.

        Required for terms whose count depends on the data (`Loss.count` is a tensor) if there are several
        micro-batches, since each is backpropagated before the next is seen; otherwise it saves communication.
        """

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """Split the batch into `accumulate` equal micro-batches. Random draws inside networks follow their seeds."""

    def backward(self, **terms: Loss) -> None:
        """Backpropagate these terms together: gradients are accumulated, and activations are freed.

        A term named after an optimizer is that optimizer's own objective and not part of `total`.
        """

    def step(self, *optimizers: str) -> None:
        """Step the named optimizers on the accumulated gradients, or none of them if anything is not finite."""

    def follow(
        self, teacher: nn.Module, student: nn.Module, decay: float | Callable[[int], float], buffers: bool = True
    ) -> None:
        """Update the teacher's moving average unless the last update was skipped; `buffers=False`: parameters only.

        A `decay` that changes from step to step is passed as a function of the step.
        """

    def number(self, of_step: Callable[[int], float]) -> float | Tensor:
        """The value of a function of the step (0, 1, …): a plain number, or a scalar on the device.

        Any number that changes from step to step must come from here, so that a GPU can be given the whole step at
        once and its numbers later. A step that reads `batch.step` or `batch.seeds` is launched operation by operation.
        """

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """The value of a function of the step, for a decision on the host; it should change seldom."""

    def over_ranks(self, values: Tensor) -> Tensor:
        """`values`, summed over all ranks."""


class Networks(Protocol):
    """What a method is built from: networks with their initial weights, wherever these come from."""

    length: int
    """Length of the schedule in steps."""
    things: tuple[int, ...]
    """Train ids of the countable classes, as the label space has them."""

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """A segmenter as described by `settings`: `network`, `start` and related keys."""

    def saved_segmenter(self, reference: str) -> Segmenter:
        """The segmenter of `@stage`, a model or a published checkpoint, with its weights."""

    def fill(self, module: StyleTransfer | Discriminator, name: str, file: str | Path | None) -> None:
        """Load a file's weights into a module that is not a segmenter; None: it stays fresh. `name` is for messages."""


class Method(ABC):
    """Base of all methods that train."""

    settings_type: ClassVar[type[TrainingSettings]]  # its settings; their `method` is its name in recipes
    domains: ClassVar[tuple[DomainName, ...]]  # whose images a batch must hold
    labelled: ClassVar[DomainName] = "source"  # whose labels it learns from, and whose images an epoch counts
    uses_target_labels: ClassVar[bool] = False  # whether these are true labels of the target
    scheduled: ClassVar[bool] = False  # whether more than the learning rate depends on the schedule's length
    attention: ClassVar[bool] = False  # whether its network must have attention
    tells_things: ClassVar[bool] = False  # whether it depends on which classes are things
    code_version: ClassVar[int] = 1  # increased when the same settings would give a different result
    modules: dict[str, nn.Module]  # everything that a checkpoint must hold
    helpers: dict[str, nn.Module] = {}  # noqa: RUF012 - frozen networks that it uses; replaced, never modified
    optimizers: dict[str, Optimizer]

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        """Build the method with its networks; a method that needs more than a segmenter overrides this."""
        return cls(networks.segmenter(settings, cls.attention), settings)  # type: ignore[call-arg]

    @abstractmethod
    def step(self, batch: Batch, update: Update) -> None:
        """One update, following the paper's algorithm box."""

    @property
    @abstractmethod
    def result(self) -> Segmenter | StyleTransfer:
        """The network that the training produces (the teacher, if there is one)."""


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through `modules` but not to their parameters."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

"""The contract between a method (one paper) and whatever runs it.

A method owns its modules and optimizers, and says in `step` what one update is. It returns named values, unweighted
means on the device, and never logs, plots, saves or moves to a device. It reaches the optimizers only through the
`Updater`, which knows about ranks, accumulation, clipping, precision and updates that must be skipped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer

DomainName = Literal["source", "target"]
Terms = Iterator[dict[str, Loss]]
"""The named terms of a loss, in parts that share no activations with gradients.

Each part is backpropagated before the next one is computed, so that one pass of a network at a time has its activations
in memory.
"""
Values = dict[str, Tensor]
"""Named scalars on the device: `total` (weighted) and one unweighted mean per loss term."""


class Updater(Protocol):
    """What a step may do to the weights."""

    def minimize(self, players: Sequence[str], losses: Callable[[Batch], Terms], batch: Batch) -> Values:
        """One step of the named optimizers on Σ weight · sum / count, over all ranks and accumulation steps.

        `losses` is called once per accumulation step with a micro-batch. `total` is the first player's: the
        terms of the others do not count in it. Gradients are clipped player by player.
        """

    def follow(self, teacher: nn.Module, student: nn.Module, decay: float) -> None:
        """The teacher's moving average, unless the student's update was skipped."""

    def over_ranks(self, values: Tensor) -> Tensor:
        """`values`, summed over the ranks."""


class Method(ABC):
    """Base of all methods that train."""

    domains: ClassVar[tuple[DomainName, ...]]  # whose images a batch must hold
    labelled: ClassVar[DomainName] = "source"  # whose labels it learns from, and whose images an epoch counts
    scheduled: ClassVar[bool] = False  # whether its step depends on the schedule's length, beside the learning rate
    attention: ClassVar[bool] = False  # whether its network must have attention
    modules: dict[str, nn.Module]  # all that a checkpoint must hold
    helpers: dict[str, nn.Module] = {}  # noqa: RUF012 - frozen networks that it looks through; replaced, never changed
    optimizers: dict[str, Optimizer]

    @abstractmethod
    def step(self, batch: Batch, update: Updater) -> Values:
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

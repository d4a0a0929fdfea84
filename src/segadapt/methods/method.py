"""The contract between a method (one paper) and whatever runs it.

A method owns its modules and optimizers, and says in `step` what one update is. It returns named values, unweighted
means on the device, and never logs, plots, saves or moves to a device. It reaches the optimizers only through the
`Updater`, which knows about ranks, accumulation, clipping, precision and updates that must be skipped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss
from segadapt.models.segmenter import Segmenter

DomainName = Literal["source", "target"]
Values = dict[str, Tensor]
"""Named scalars on the device: `total` (weighted) and one unweighted mean per loss term."""


class Updater(Protocol):
    """What a step may do to the weights."""

    def minimize(self, players: Sequence[str], losses: Callable[[Batch], dict[str, Loss]], batch: Batch) -> Values:
        """One step of the named optimizers on Σ weight · sum / count, over all ranks and accumulation steps.

        `losses` is called once per accumulation step with a piece of the batch.
        """

    def follow(self, teacher: nn.Module, student: nn.Module, decay: float) -> None:
        """The teacher's moving average, unless the student's update was skipped."""


class Method(ABC):
    """Base of all methods that train."""

    domains: ClassVar[tuple[DomainName, ...]]  # whose images a batch must hold
    attention: ClassVar[bool] = False  # whether its network must have attention
    modules: dict[str, nn.Module]  # all that a checkpoint must hold
    optimizers: dict[str, Optimizer]

    @abstractmethod
    def step(self, batch: Batch, update: Updater) -> Values:
        """One update, as the paper's algorithm box has it."""

    @property
    @abstractmethod
    def result(self) -> Segmenter:
        """The network that the training is for (the teacher, where there is one)."""

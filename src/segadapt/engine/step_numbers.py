"""Numbers that change from step to step, for whoever computes the step: the host, a device, or a captured graph.

A method names what they are of (`Update.number`, `Update.choice`: functions of the step), and never reads the step
itself. So a captured step can be given them anew at each replay.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Choice = TypeVar("Choice")
OfStep = Callable[[int], float]
MOST = 256
"""Numbers that one captured step may have."""


class NotCapturable(Exception):
    """A step that cannot be captured; its text says why."""


class StepNumbers(Protocol):
    """Where the numbers of the step at work come from."""

    def number(self, of_step: OfStep) -> float | Tensor:
        """What this function of the step gives: a number, or a scalar on the device."""

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """The same for what the host decides by."""


class OnHost:
    """Plain numbers, for a device that computes what it is told at once."""

    def __init__(self, step: int) -> None:
        self.step = step

    def number(self, of_step: OfStep) -> float | Tensor:
        """See `StepNumbers`."""
        return of_step(self.step)

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """See `StepNumbers`."""
        return of_step(self.step)


class OnDevice(OnHost):
    """Scalars on a device that the host runs ahead of, filled there."""

    def __init__(self, step: int, device: torch.device) -> None:
        super().__init__(step)
        self.device = device

    def number(self, of_step: OfStep) -> float | Tensor:
        """See `StepNumbers`."""
        return torch.full((), of_step(self.step), dtype=torch.get_default_dtype(), device=self.device)


class Slots:
    """Scalars in one tensor that stays where it is: a captured step reads them, and each replay is given new ones."""

    def __init__(self, step: int, device: torch.device) -> None:
        self.step, self.asked = step, 0
        self.values = torch.zeros(MOST, dtype=torch.get_default_dtype(), device=device)
        self.functions: list[OfStep] = []
        self.choices: list[tuple[Callable[[int], Any], Any]] = []

    def begin(self) -> None:
        """A step is about to ask, from the first number on."""
        self.asked, self.choices = 0, []

    def number(self, of_step: OfStep) -> Tensor:
        """See `StepNumbers`; the next slot, in the order in which a step asks."""
        place = self.asked
        if place == MOST:
            raise NotCapturable(f"its step asks for more than {MOST} numbers")
        self.functions[place : place + 1] = [of_step]
        self.asked += 1
        return self.values[place]

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """See `StepNumbers`: as the host decides at the step that is captured."""
        chosen = of_step(self.step)
        self.choices.append((of_step, chosen))
        return chosen

    def same_choices(self, step: int) -> bool:
        """Whether the host would decide as it has when the step was captured."""
        return all(of_step(step) == chosen for of_step, chosen in self.choices)

    def fill(self, step: int) -> None:
        """The numbers of this step, on their way to the device before anything that comes after."""
        found = [of_step(step) for of_step in self.functions]
        if not found:
            return
        # Page-locked and new each time: the host may be steps ahead of the copy that reads it.
        pinned = self.values.device.type == "cuda"
        fresh = torch.tensor(found, dtype=self.values.dtype, pin_memory=pinned)
        self.values[: len(found)].copy_(fresh, non_blocking=True)

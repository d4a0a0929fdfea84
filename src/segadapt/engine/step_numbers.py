"""Numbers that change from step to step, for the host, a device, or a captured graph that computes the step.

A method gives them as functions of the step (`Update.number`, `Update.choice`), and never reads the step itself. So a
captured step can be given new ones at each replay.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Choice = TypeVar("Choice")
OfStep = Callable[[int], float]
MOST = 256
"""The maximum of numbers in a captured step."""


class NotCapturable(Exception):
    """A step that cannot be captured; its text says why."""


class StepNumbers(Protocol):
    """Source of the numbers of the current step."""

    def number(self, of_step: OfStep) -> float | Tensor:
        """The value of this function of the step: a number, or a scalar on the device."""

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """The same for what the host branches on."""


class OnHost:
    """Plain numbers, for a device that computes synchronously."""

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
    """Scalars in one static tensor: a captured step reads them, and each replay is given new ones."""

    def __init__(self, step: int, device: torch.device) -> None:
        self.step, self.asked = step, 0
        self.values = torch.zeros(MOST, dtype=torch.get_default_dtype(), device=device)
        self.functions: list[OfStep] = []
        self.choices: list[tuple[Callable[[int], Any], Any]] = []

    def begin(self) -> None:
        """Start a step, which asks from the first number on."""
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
        """See `StepNumbers`: as the host chooses at the captured step."""
        chosen = of_step(self.step)
        self.choices.append((of_step, chosen))
        return chosen

    def same_choices(self, step: int) -> bool:
        """Whether the host would choose as it did when the step was captured."""
        return all(of_step(step) == chosen for of_step, chosen in self.choices)

    def fill(self, step: int) -> None:
        """Queue the copy of this step's numbers to the device, before anything that follows."""
        found = [of_step(step) for of_step in self.functions]
        if not found:
            return
        # Page-locked and new each time: the host may be steps ahead of the copy that reads it.
        pinned = self.values.device.type == "cuda"
        fresh = torch.tensor(found, dtype=self.values.dtype, pin_memory=pinned)
        self.values[: len(found)].copy_(fresh, non_blocking=True)

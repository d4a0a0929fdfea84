"""How a learning rate or a weight changes over the steps. Pure functions of the step."""

import math
from typing import Literal, Protocol

ScheduleName = Literal["constant", "polynomial", "cosine"]
POWER = 0.9
"""Of DeepLab's "poly" policy."""
WARMUP_RATIO = 1e-6
"""Share of its rate that the first step of a warm-up has, in DAFormer and its successors."""


class Schedule(Protocol):
    """The settings that a learning rate's course follows from."""

    @property
    def schedule(self) -> ScheduleName: ...
    @property
    def power(self) -> float | None: ...
    @property
    def warmup_steps(self) -> int | None: ...
    @property
    def warmup_ratio(self) -> float | None: ...


def factor(settings: Schedule, step: int, length: int) -> float:
    """What all learning rates are multiplied by at `step` = 0, 1, …, of a schedule that is `length` steps long.

    The warm-up multiplies the decaying rate, as in mmcv: with it, step 0 has `warmup_ratio` of its rate.
    """
    decayed = 1.0
    if settings.schedule == "polynomial":
        decayed = polynomial(step, length, POWER if settings.power is None else settings.power)
    elif settings.schedule == "cosine":
        decayed = cosine(step, length)
    if settings.warmup_steps is None:
        return decayed
    ratio = WARMUP_RATIO if settings.warmup_ratio is None else settings.warmup_ratio
    return decayed * linear_warmup(step, settings.warmup_steps, ratio)


def polynomial(step: int, total: int, power: float = POWER) -> float:
    """(1 - step/total)^power for step = 0 … total-1, and 0 from `total` on (DeepLab's "poly" policy)."""
    return float(max(0.0, 1.0 - step / total) ** power)


def cosine(step: int, total: int) -> float:
    """(1 + cos(π · step/total)) / 2 for step = 0 … total-1, and 0 from `total` on (SGDR, ICLR 2017)."""
    return (1.0 + math.cos(math.pi * step / total)) / 2 if step < total else 0.0


def linear_warmup(step: int, steps: int, ratio: float) -> float:
    """1 - (1 - step/steps)(1 - ratio) for step = 0 … steps-1, and 1 from `steps` on."""
    return 1.0 - (1.0 - step / steps) * (1.0 - ratio) if step < steps else 1.0

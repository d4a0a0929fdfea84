"""The learning rates of a step: those of the optimizers' groups, times the schedule's factor."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from segadapt.engine.runtime import Runtime


class Rates:
    """Sets them: as plain numbers, or as device scalars where the host runs ahead of the device.

    Fused optimizers read these scalars on the device, so that a captured step uses the rate of each replay.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer], runtime: Runtime) -> None:
        self.optimizers = optimizers
        self.base = {
            name: [float(group["lr"]) for group in optimizer.param_groups] for name, optimizer in optimizers.items()
        }
        count = sum(map(len, self.base.values()))
        self._scalars = torch.zeros(count, dtype=torch.float32, device=runtime.device) if runtime.ahead else None

    def set(self, factor: float) -> dict[str, float]:
        """Set all rates times `factor`; returns each optimizer's base rate, for display."""
        rates = [rate * factor for of_one in self.base.values() for rate in of_one]
        scalars: list[Any] = list(rates)
        if self._scalars is not None:
            # Page-locked and new each time: the host may be steps ahead of the copy that reads it.
            fresh = torch.tensor(rates, dtype=torch.float32, pin_memory=self._scalars.device.type == "cuda")
            self._scalars.copy_(fresh, non_blocking=True)
            scalars = list(self._scalars.unbind())
        groups = [(optimizer, group) for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        for (optimizer, group), rate, scalar in zip(groups, rates, scalars, strict=True):
            group["lr"] = scalar if optimizer.defaults.get("fused") else rate
        return {name: optimizer.defaults["lr"] * factor for name, optimizer in self.optimizers.items()}

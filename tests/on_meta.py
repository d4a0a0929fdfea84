"""A method on a device that is not there: it computes shapes alone, and whoever reads a number of it is told off.

So one sees on any machine what a step would make the host wait for, and what it tells the device.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim import adam, sgd
from torch.utils._python_dispatch import TorchDispatchMode

import matrix
from by_hand import CPU
from segadapt.batch import Batch
from segadapt.engine.runtime import Runtime
from segadapt.methods.method import Method

META = torch.device("meta")
RUNTIME = Runtime(META, "fp32", 0, 1, 1, 0)


def made(name: str, accumulate: int = 1) -> Method:
    """As `matrix.made`, with all its networks there."""
    method = matrix.made(name, replace(CPU, ahead_on_cpu=True), accumulate)
    moved: dict[int, nn.Parameter] = {}
    for module in dict.fromkeys((*method.modules.values(), *method.helpers.values())):
        for own in module.modules():
            for key, parameter in own.named_parameters(recurse=False):
                there = nn.Parameter(parameter.to(META), requires_grad=parameter.requires_grad)
                own._parameters[key] = moved.setdefault(id(parameter), there)
            for key, buffer in own.named_buffers(recurse=False):
                own._buffers[key] = buffer.to(META)
    for optimizer in method.optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [moved[id(parameter)] for parameter in group["params"]]
    return method


def given(name: str, step: int) -> Batch:
    """As `matrix.given`, there."""
    return matrix.given(name, step).ahead_on(META)


class _Unshaped(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """For what PyTorch has no shapes of: fused optimizers, which change their arguments in place."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if str(function).startswith("aten._fused_"):
            return None
        return function(*args, **(kwargs or {}))


@contextmanager
def fused() -> Iterator[None]:
    """Context in which fused optimizers take this device for a GPU."""
    check = "_device_dtype_check_for_fused"
    with patch.object(adam, check), patch.object(sgd, check), _Unshaped():  # type: ignore[no-untyped-call]
        yield

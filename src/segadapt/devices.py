"""The device and the precision that a name stands for on this machine."""

import importlib
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from segadapt.errors import UsageError

Precision = Literal["fp32", "bf16"]


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:N` -> device. Raises UsageError for a device that does not exist."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(
            f"'{wanted}' is not a device", where="device", remedy="Use auto, cpu, cuda or cuda:N."
        ) from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("no CUDA device was found", where=f"device {wanted}", remedy="Use device cpu.")
        if device.index is None:
            device = torch.device("cuda", local_rank)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UsageError(
                f"there are only {torch.cuda.device_count()} CUDA devices",
                where=f"device {device}",
                remedy="Name one of them.",
            )
    elif device.type != "cpu" or device.index is not None:
        raise UsageError(f"device '{wanted}' is not supported", where="device", remedy="Use auto, cpu, cuda or cuda:N.")
    return device


def choose_precision(wanted: Precision | Literal["auto"], device: torch.device) -> Precision:
    """`auto` is bf16 on GPUs that compute in it and on CPUs with matrix units for it (AMX), else fp32.

    Raises UsageError for another word than `fp32`, `bf16` and `auto`.
    """
    if wanted not in ("fp32", "bf16", "auto"):
        raise UsageError(f"'{wanted}' is not a precision", where="precision", remedy="Use fp32, bf16 or auto.")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if has_amx() else "fp32"


def gpu_kernels(like: Tensor) -> ModuleType | None:
    """`segadapt.gpu_kernels` for tensors on a GPU; None elsewhere, without Triton, and inside `torch.compile`."""
    return _kernels() if like.is_cuda and not torch.compiler.is_compiling() else None


@cache
def _kernels() -> ModuleType | None:
    try:
        return importlib.import_module("segadapt.gpu_kernels")
    except ImportError:  # Triton comes with PyTorch for GPUs, but not on every system
        return None

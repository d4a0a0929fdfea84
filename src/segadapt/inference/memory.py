"""An estimate of the memory that a network's pass needs, before it runs, and how much is free.

An input that is too large is a one-line error instead of a process killed without a message. The estimate runs the
pass on the meta device: shapes without values, a few milliseconds whatever the size.
"""

import copy
import os
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segadapt.errors import UsageError

WORTH_COUNTING = 2**23
"""Passes with fewer pixels are not estimated: four images of 2048×1024, some gigabytes."""


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors created within it, and their maximum at one time (`peak`)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def pass_bytes(network: nn.Module, shape: tuple[int, int, int, int], dtype: torch.dtype) -> int:
    """Peak bytes of activations in a pass over inputs of `shape` (B, 3, H, W), without gradients.

    Workspace of kernels is not counted.
    """
    ghost = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), PeakMemory() as counted:
        ghost(torch.empty(shape, dtype=dtype, device="meta"))
    return int(counted.peak)


def free_bytes(device: torch.device) -> int | None:
    """Free bytes on a device; None where unknown."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    limits = [free for free in (_system_free(), _group_free()) if free is not None]
    return min(limits, default=None)


def need_memory(
    network: nn.Module,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    beside: int,
    remedy: str,
) -> None:
    """Raise UsageError when a pass of `shape` (B, 3, H, W) plus `beside` bytes exceeds the free memory."""
    if shape[0] * shape[2] * shape[3] < WORTH_COUNTING:
        return
    free = free_bytes(device)
    try:
        wanted = pass_bytes(network, shape, dtype) + beside
    except (NotImplementedError, RuntimeError):  # a custom network that reads values: cannot be estimated
        return
    if free is not None and wanted > free:
        raise UsageError(
            f"an input of {shape[3]}×{shape[2]} needs about {wanted / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            f"are free ({device})",
            where="size",
            remedy=remedy,
        )


def _system_free() -> int | None:
    """What Linux reports as available, swap included."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        known = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}
        return known["MemAvailable"] + known.get("SwapFree", 0)
    except (OSError, ValueError, KeyError, IndexError):
        return _system_memory()


def _system_memory() -> int | None:
    """The machine's total memory, where the system does not report what is free."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _group_free() -> int | None:
    """What a container's limit leaves (cgroup v2); None without one."""
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return None if most == "max" else max(0, int(most) - int(used))
    except (OSError, ValueError):
        return None

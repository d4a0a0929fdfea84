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
BUDGET, MOST = 2**31, 4
"""Bytes that a pass of several images may take, and the most images: beyond them a GPU is busy with few as well."""


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
    tensors = [*network.parameters(), *network.buffers()]
    ghosts: dict[int, Any] = {id(tensor): _ghost(tensor) for tensor in tensors}  # else weights were copied on their way
    ghost = copy.deepcopy(network, ghosts).to("meta").eval()
    with torch.no_grad(), PeakMemory() as counted:
        ghost(torch.empty(shape, dtype=dtype, device="meta"))
    return int(counted.peak)


def _ghost(tensor: Tensor) -> Tensor:
    """The same without values."""
    there = tensor.detach().to("meta")
    return nn.Parameter(there, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def images_within(network: nn.Module, shape: tuple[int, int, int, int], dtype: torch.dtype, beside: int) -> int:
    """How many images go through a network at once, 1 … MOST, if `shape` is the largest pass of one: within BUDGET.

    `beside` it so many bytes are needed for each. It follows from the two alone, not from what is free: so that
    a run which is resumed, or one on several GPUs, has the same batches.
    """
    try:
        each = pass_bytes(network, shape, dtype) + beside
    except (NotImplementedError, RuntimeError):  # a custom network that reads values: cannot be estimated
        return 1
    return min(MOST, max(1, BUDGET // max(1, each)))


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
    beside: int,
    device: torch.device,
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
        size = f"{shape[3]}×{shape[2]}"
        needs = f"an input of {size} needs" if shape[0] == 1 else f"{shape[0]} inputs of {size} in one pass need"
        raise UsageError(
            f"{needs} about {wanted / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free ({device})",
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

"""How times and memory are taken: in turns, with warm-up, as medians with their 10-90 % range."""

import ctypes
import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Input = TypeVar("Input")
Times = NDArray[np.float64]
MEGA = 1e6
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spread:
    """A median with its 10-90 % range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Times) -> "Spread":
        """Of some values."""
        low, middle, high = np.percentile(values, [10, 50, 90])
        return cls(float(middle), float(low), float(high))


def seconds(work: Callable[[], object], device: torch.device, cpu_time: bool = False) -> float:
    """Wall time of `work`, the device's queue empty before and after; with `cpu_time` that of the process instead."""
    clock = time.process_time if cpu_time else time.perf_counter
    _wait(device)
    begun = clock()
    work()
    _wait(device)
    return clock() - begun


def in_turns(
    works: dict[str, Callable[[Input], object]],
    inputs: Callable[[int], Input],
    rounds: int,
    device: torch.device,
    *,
    repeat: int = 1,
    cpu_time: bool = False,
) -> dict[str, Times]:
    """Seconds per call, one value a round, of works that take turns, after one call of each for warming up.

    `inputs`: number of the round (0 is the warm-up) -> what all works get in it, made before the clock runs.

    A machine whose speed drifts slows all of them alike, so that the ratios of a round hold. Who is first changes from
    round to round. `repeat`: calls in one measurement, for a GPU that is fed ahead.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds + 1):
        given = inputs(number)
        for name in names[number % len(names) :] + names[: number % len(names)]:

            def several(work: Callable[[Input], object] = works[name], given: Input = given) -> None:
                for _ in range(repeat):
                    work(given)

            taken = seconds(several, device, cpu_time) / repeat
            if number > 0:
                found[name].append(taken)
    return {name: np.array(values) for name, values in found.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- memory ---


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes: of the device's tensors on a GPU, of the process on a CPU."""

    before: int
    peak: int

    @property
    def added_mb(self) -> float:
        """Megabytes that came on top of what was there before."""
        return max(0, self.peak - self.before) / MEGA


def peak_memory(work: Callable[[], object], device: torch.device) -> Memory | None:
    """Memory before `work` and its peak; None where the system does not say (no Linux, no GPU)."""
    gc.collect()
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        _wait(device)
        return Memory(before, torch.cuda.max_memory_allocated(device))
    if not reset_peak():
        work()
        return None
    before = resident("VmRSS")
    work()
    return Memory(before, resident("VmHWM"))


def reset_peak() -> bool:
    """Let the process's peak memory begin anew; False where that is not possible."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        RESET.write_text("5")
    except OSError:
        return False
    return True


def resident(line: str) -> int:
    """A line of the process's status in bytes: `VmRSS` (now) or `VmHWM` (peak)."""
    found = next(text for text in STATUS.read_text().splitlines() if text.startswith(f"{line}:"))
    return 1024 * int(found.split()[1])


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, both picklable, in a new process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

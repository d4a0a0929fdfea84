"""What a stage has taken: the seconds of all commands that worked on it, and the most memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segadapt.errors import Stopped, UsageError
from segadapt.files import write_json
from segadapt.plain_data import Json, read_json

COST = "cost.json"
PROCESS = Path("/proc/self")


@contextmanager
def recorded(folder: Path, device: torch.device, writes: bool) -> Iterator[None]:
    """Time the work on a stage, and add it to the `cost.json` of its folder when it has ended, or was stopped.

    `seconds` of all commands together; `memory`, the most that this process had in use at once, and `device_memory`,
    the most that its tensors took on a GPU: bytes, null where that cannot be known. Loader processes do not count.
    """
    begun = time.perf_counter()
    resettable = _reset_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def write() -> None:
        before = _before(folder)
        now = {
            "memory": _peak() if resettable else None,
            "device_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        }
        most = {
            key: max((size for size in (before.get(key), value) if size), default=None) for key, value in now.items()
        }
        write_json(folder / COST, {"seconds": before.get("seconds", 0.0) + time.perf_counter() - begun, **most})

    try:
        yield
    except Stopped:
        if writes:
            write()
        raise
    if writes:
        write()


def _before(folder: Path) -> Json:
    """What commands before this one have recorded; nothing where it cannot be read."""
    try:
        found = read_json(folder / COST, "what the stage has taken")
        return {key: value for key, value in found.items() if isinstance(value, (int, float))}
    except (UsageError, AttributeError):
        return {}


def _reset_peak() -> bool:
    """Let the kernel forget the process's peak so far; False where it cannot: the peak would be another stage's."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int | None:
    """The most memory that the process had in use since, in bytes."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None

"""Processes beside this one: how many cores there are for them, and that nobody but this one ends them.

A batch system (`timeout`, Slurm, systemd) sends SIGTERM to a whole group of processes, a terminal SIGINT. Loader
processes that died of it would take the training with them before it can save. So children leave both to their parent;
and when the parent dies, however that happens, they follow within a second.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

FOR_PARENTS = (signal.SIGINT, signal.SIGTERM)
"""Signals that children leave to their parent."""
LOOK = 0.5
"""Seconds between two looks whether the parent is still there."""


def usable_cores() -> int:
    """The number of CPU cores that this process may use: by its affinity, and by the quota of its control groups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Cores that the control groups of this process and those above them allow; infinite where they set no limit."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return math.inf
    found = math.inf
    for line in lines:
        _, controllers, inside = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        place = root / inside.lstrip("/")
        # In a container the path is that of the host, and its own group is mounted as the root.
        for folder in (place, *place.parents):
            if folder != root and root not in folder.parents:
                break
            found = min(found, _limit(folder))
    return found


def _limit(folder: Path) -> float:
    """The limit of one control group: version 2 has `cpu.max`, version 1 two files."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # not there, or `max`
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


@contextmanager
def signals_held() -> Iterator[None]:
    """Context in which processes are started: SIGINT and SIGTERM wait till its end, and children never see them.

    A child inherits what its parent's thread holds back, so that there is no moment at which the signal finds it
    unprepared. Needs `leave_signals_to_parent` in the child, without which it could not be ended any more.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_PARENTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """In a child of this program: only its parent's SIGTERM ends it, and so does the parent's death.

    SIGINT, and SIGTERM from anybody else, are ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, FOR_PARENTS)  # for threads, too, that are started from here on
    else:  # macOS cannot tell who sends it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(above: int) -> None:
    """End the process when the parent says so, or has died. In a thread of its own: reading an image may take long."""
    parent = multiprocessing.parent_process()  # not `above` where a fork server starts the processes
    assert parent is not None
    nobody = threading.Event()
    while os.getppid() == above and parent.is_alive():
        if not hasattr(signal, "sigtimedwait"):
            nobody.wait(LOOK)
            continue
        told = signal.sigtimedwait({signal.SIGTERM}, LOOK)
        if told is not None and told.si_pid in (above, parent.pid):
            break
    os._exit(0)

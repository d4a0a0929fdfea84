"""What tests have a command do that runs in a process of its own (see `forking`), before it begins."""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

OPERATIONS = ("replace", "rename", "unlink", "fsync", "mkdir", "rmdir")
"""Of `os`; opening a file to write counts, too."""


def in_float64(_: str) -> None:
    """Networks, losses and pixels are float64, and no report is written."""
    import torch

    from segadapt.pipeline import run_page

    torch.set_default_dtype(torch.float64)
    run_page.write_report = lambda run, *_, **__: run  # type: ignore[attr-defined]


def in_a_second(_: str) -> None:
    """A network file system that is never late."""
    from segadapt.stages import image_files

    image_files.SECONDS_LATE = 1


def killed_at_an_evaluation(_: str) -> None:
    """Rank 1 is killed (-9) as soon as it has something to evaluate."""
    from segadapt.stages import training

    def killed(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if os.environ.get("RANK") == "1":
        training.quick_sums = killed  # type: ignore[assignment, attr-defined]


def methods_on_a_rank(_: str) -> None:
    """No command, but `matrix.on_a_rank` with its arguments: a file and names of methods."""
    import matrix

    matrix.on_a_rank(sys.argv[2:], Path(sys.argv[1]))
    sys.exit()


def of_version(version: str) -> None:
    """Rank 1 says that it is of another version."""
    from segadapt.pipeline import run

    if os.environ.get("RANK") == "1":
        run.__version__ = version  # type: ignore[attr-defined]


def counting(file: str) -> None:
    """Note in a file how many operations on files the command does up to the end of its report."""
    from segadapt.pipeline import run_page

    done, write_report = [0], run_page.write_report  # type: ignore[attr-defined]

    def note() -> None:
        done[0] += 1

    def noting(*arguments: Any, **options: Any) -> Any:
        result, counted = write_report(*arguments, **options), done[0]
        Path(file).write_text(str(counted))
        return result

    run_page.write_report = noting  # type: ignore[attr-defined]
    _at_operations(before=note, after=lambda: None)


def at_operation(which: str) -> None:
    """`N:SIGNAL:WHEN`: a signal, to the whole group unless it is 9, before or after the N-th operation on a file."""
    number, sent, when = which.split(":")
    left = [int(number)]

    def before() -> None:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            _send(int(sent))

    def after() -> None:
        if left[0] == 0 and when == "after":
            left[0] = -1
            _send(int(sent))

    _at_operations(before, after)


def _at_operations(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have these called before and after each operation on a file of this process, not of its loader processes."""
    pid = os.getpid()

    def told(work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def operation(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != pid:
                return work(*arguments, **options)
            before()
            result = work(*arguments, **options)
            after()
            return result

        return operation

    opens = told(open)

    def opening(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return (opens if set(mode) & set("wax+") else plain)(file, mode, *arguments, **options)

    plain = open
    builtins.open = io.open = opening
    for name in OPERATIONS:
        setattr(os, name, told(getattr(os, name)))


def _send(number: int) -> None:
    if number == signal.SIGKILL:
        os.kill(os.getpid(), number)
        return
    # From a process of its own, as a batch system's: loader processes obey a signal that is their parent's.
    sender = os.fork()
    if sender == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        os.killpg(0, number)
        os._exit(0)
    os.waitpid(sender, 0)

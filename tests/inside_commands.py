"""What tests have a command do that runs in a process of its own (see `forking`), before it begins."""

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

OPERATIONS = ("replace", "rename", "unlink", "fsync", "mkdir", "rmdir")


def in_float64(_: str) -> None:
    """Networks, losses and pixels are float64, and no report is written."""
    import torch

    from segadapt.pipeline import run

    torch.set_default_dtype(torch.float64)
    run.write_report = lambda run, *_, **__: run  # type: ignore[attr-defined]


def of_version(version: str) -> None:
    """Rank 1 says that it is of another version."""
    from segadapt.pipeline import run

    if os.environ.get("RANK") == "1":
        run.__version__ = version  # type: ignore[attr-defined]


def at_operation(which: str) -> None:
    """`N:SIGNAL:WHEN`: a signal, to the whole group unless it is 9, before or after the N-th operation on a file."""
    number, sent, when = which.split(":")
    left, pid = [int(number)], os.getpid()

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def operation(*arguments: Any, **options: Any) -> Any:
            if os.getpid() != pid:  # a loader process
                return work(*arguments, **options)
            left[0] -= 1
            if left[0] == 0 and when == "before":
                _send(int(sent))
            result = work(*arguments, **options)
            if left[0] == 0 and when == "after":
                _send(int(sent))
            return result

        return operation

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def _send(number: int) -> None:
    if number == signal.SIGKILL:
        os.kill(os.getpid(), number)
    else:
        os.killpg(0, number)

"""Real processes that begin at once: forked from a server that has imported torch and segadapt already.

For tests that kill a command or run several ranks: a new Python would import for seconds first.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from segadapt.cli.main import main

PRELOADED = ["torch._dynamo", "segadapt.pipeline.run", "segadapt.cli.main"]
"""Optimizers import the first at their first step."""


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _command(arguments: list[str], environment: Mapping[str, str], folder: str, said: str | None) -> None:
    """What the process does: the command line, with stderr in a file."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(said or os.devnull, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["segadapt", *arguments]
    main()


def start(*arguments: object, said: Path | None = None, **environment: object) -> ForkServerProcess:
    """`segadapt ARGUMENTS` in a process of its own, with more `environment`; what it says goes to the file `said`."""
    given = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    process = _context().Process(
        target=_command, args=([*map(str, arguments)], given, str(Path.cwd()), None if said is None else str(said))
    )
    process.start()
    return process


def kill_when(so_far: Callable[[], object], *arguments: object, patience: float = 120) -> None:
    """Start the command and kill it (-9) as soon as `so_far()` is true; it must not end before.

    Raises AssertionError when it ends by itself, or takes longer than `patience` (seconds).
    """
    process, deadline = start(*arguments), time.monotonic() + patience
    while not so_far():
        assert process.exitcode is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _together(number: int) -> dict[str, object]:
    """What torchrun tells all ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _work(work: Callable[..., None], arguments: tuple[object, ...], environment: Mapping[str, object]) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    work(*arguments)


def call_on_ranks(number: int, work: Callable[..., None], *arguments: object) -> None:
    """`work(*arguments)`, a function of a module, on several ranks. Raises AssertionError when one fails."""
    together = _together(number)
    started = [
        _context().Process(target=_work, args=(work, arguments, {**together, "RANK": rank, "LOCAL_RANK": rank}))
        for rank in range(number)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * number


def ranks(number: int, *arguments: object, folder: Path) -> None:
    """The command on several ranks, as torchrun starts them; raises AssertionError with what a failed rank has said."""
    together = _together(number)
    files = [folder / f"rank{rank}.txt" for rank in range(number)]
    started = [start(*arguments, said=file, RANK=rank, LOCAL_RANK=rank, **together) for rank, file in enumerate(files)]
    for process in started:
        process.join()
    told = {file.name: file.read_text() for file, process in zip(files, started, strict=True) if process.exitcode != 0}
    assert not told, told

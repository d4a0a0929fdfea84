"""Command lines in processes of their own, without the seconds of an import: a server imports once, and forks.

    with Forks() as forks:
        process = forks.start(["run", "recipe.yaml"], said=file, env={"RANK": "1"}, inside="at_operation:3")
        assert process.wait() == 0

Each process leads a group of its own, which is how a batch system sends it signals. It is forked from a process that
has computed nothing, so that neither threads nor an autograd engine stand in the way.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

NOTHING: dict[str, str] = {}


class Forks:
    """The server, as its user sees it."""

    def __enter__(self) -> "Forks":
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.close()  # which ends it, and what it has started
        self.server.wait()
        self.server.stdout.close()

    def start(
        self,
        arguments: list[str],
        said: Path,
        env: Mapping[str, str] = NOTHING,
        inside: str = "",
    ) -> "Process":
        """`segadapt ARGUMENTS` with stdout and stderr in `said`, this process's environment and `env` over it.

        `inside` names what is called there first.
        """
        asked = {"arguments": arguments, "said": str(said), "env": {**os.environ, **env}, "inside": inside}
        return Process(self, int(self.ask(start=asked)), said)

    def ranks(self, number: int, arguments: list[str], folder: Path, inside: str = "") -> "list[Process]":
        """The command on several ranks, as torchrun starts them; what each says is in `folder`."""
        together = joined(number)
        return [
            self.start(
                arguments, folder / f"said{rank}", {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)}, inside
            )
            for rank in range(number)
        ]

    def kill_when(self, so_far: Callable[[], object], arguments: list[str], said: Path, patience: float = 120) -> None:
        """Start the command and kill it (-9) as soon as `so_far()` is true; it must not end before.

        Raises AssertionError when it ends by itself, or takes longer than `patience` (seconds).
        """
        process, deadline = self.start(arguments, said), time.monotonic() + patience
        while not so_far():
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.005)
        process.signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def ask(self, **request: object) -> Any:
        """One question and its answer."""
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


def joined(number: int) -> dict[str, str]:
    """What torchrun tells all ranks on one machine, so that they find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = str(number)
    return {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


class Process:
    """A process that the server has started."""

    def __init__(self, forks: Forks, pid: int, said: Path) -> None:
        self.forks, self.pid, self.said = forks, pid, said
        self.code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.code is None:
            self.code = self.forks.ask(poll=self.pid)
        return self.code

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code. Raises AssertionError, and kills it, when it takes longer."""
        deadline, pause = time.monotonic() + seconds, 0.002
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"still at work after {seconds} s: {self.said.read_text()[-2000:]}")
            time.sleep(pause)
            pause = min(0.02, 1.5 * pause)
        return code

    def signal(self, number: signal.Signals, group: bool = False) -> None:
        """Send a signal to the process, or to all of its group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def group(self) -> list[int]:
        """The processes of its group that are still there."""
        return members(self.pid)


def members(group: int) -> list[int]:
    """The live processes of a group."""
    return [pid for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")) if _group(pid) == group]


def _group(pid: int) -> int:
    """The group of a live process; 0 for one that has ended."""
    try:
        state, _, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return 0
    return 0 if state == "Z" else int(group)


def _run(arguments: list[str], said: str, env: dict[str, str], inside: str) -> None:
    """What a forked process does; never returns."""
    os.setpgid(0, 0)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["segadapt", *arguments]
    code = 70
    try:
        import inside_commands
        from segadapt.cli import main

        if inside:
            name, _, argument = inside.partition(":")
            work: Callable[[str], None] = getattr(inside_commands, name)
            work(argument)
        main.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    """Import all that a run needs, then fork on request."""
    import matplotlib.backends.backend_svg  # noqa: F401
    import torch
    import torch._dynamo  # optimizers import it
    from PIL import Image

    import segadapt.cli.main
    import segadapt.pipeline.run
    import segadapt.pipeline.show
    import segadapt.report.stages
    from charts import plotted

    Image.init()
    segadapt.report.stages.as_svg = plotted  # type: ignore[attr-defined]
    segadapt.cli.main.PATIENCE = 0.1  # no torchrun ends a rank because another one has ended

    torch.set_num_threads(1)
    started: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if (asked := request.get("start")) is not None:
            pid = os.fork()
            if pid == 0:
                _run(**asked)
            _lead(pid)
            started[pid] = None
            answer: int | None = pid
        else:
            answer = _poll(started, request["poll"])
        print(json.dumps(answer), flush=True)
    for pid, code in started.items():
        if code is None:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _lead(pid: int) -> None:
    """Make the process lead a group, whoever of the two comes first."""
    try:
        os.setpgid(pid, pid)
    except (PermissionError, ProcessLookupError):
        return


def _poll(started: dict[int, int | None], pid: int) -> int | None:
    if started[pid] is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            started[pid] = os.waitstatus_to_exitcode(status)
    return started[pid]


if __name__ == "__main__":
    _serve()

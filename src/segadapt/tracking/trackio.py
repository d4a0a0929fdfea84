"""trackio: a run of the project `segadapt` in trackio's own store (TRACKIO_DIR; a Space or server where its variables
name one). `trackio show` shows it."""

import io
import secrets
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from segadapt.tracking.tracker import KINDS, Identity, Kind, Line, Pictures, Subject, kind_of, numbers, step_of

PROJECT = "segadapt"


class Trackio:
    """A thread of trackio writes the lines; those that a kill lost are sent again on resuming."""

    def __init__(self, subject: Subject, known: Identity | None, from_step: int) -> None:
        # Runs are found again by name, so each training's is unique.
        name = known["run"] if known else f"{subject.name.replace('/', '-')}-{secrets.token_hex(2)}"
        config = {**subject.parameters, "recipe": subject.recipe}
        self._package: Any = trackio  # partly untyped
        with redirect_stdout(io.StringIO()):  # it prints how to start a dashboard, but stdout is for a verb's output
            self._run: Any = trackio.init(
                PROJECT, name, config=config, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )
        self.identity: Identity = {"project": PROJECT, "run": name}
        self.reached = self._found(name) if known else {}

    def _found(self, name: str) -> dict[Kind, int]:
        """The last step of each kind; for a run that is not on this machine only the overall last is known."""
        if not self._run._is_local:
            return dict.fromkeys(KINDS, max(0, self._run._next_step - 1))
        found: dict[Kind, int] = {}
        for entry in SQLiteStorage.get_logs(PROJECT, name):
            found[kind_of(entry)] = max(found.get(kind_of(entry), 0), int(entry["step"]))
        return found

    def lines(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log(numbers(line), step=step_of(line))

    def pictures(self, step: int, pictures: Pictures) -> None:
        self._run.log({name: trackio.Image(picture, caption=name) for name, picture in pictures.items()}, step=step)

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        self._run.log(dict(scores), step=step)

    def close(self, finished: bool) -> None:
        with redirect_stdout(io.StringIO()):
            self._package.finish()  # of the run that `init` started, so that it is not finished again at exit

"""report.html while a run is at work: there as soon as there is something to see, and written anew as stages end."""

import time
from contextlib import suppress
from pathlib import Path

from segadapt.errors import SegadaptError
from segadapt.evaluation.report import Underway, is_current, is_underway, settle, write_report
from segadapt.pipeline.context import Run
from segadapt.pipeline.show import Display

EVERY = 20.0
"""Seconds of work between two pages, at least: short stages share one."""


class RunPage:
    """The page of a run; rank 0 writes it."""

    def __init__(self, run: Run, stages: list[str], display: Display) -> None:
        """`stages`: all of the run, in order."""
        self.run, self.stages, self.display = run, stages, display
        self.path: Path = run.folder / "report.html"
        self._written, self._there = time.monotonic(), False

    def before(self, stage: str) -> None:
        """A stage is about to begin: show what there is so far. A page that cannot be written does not stop the run."""
        if not self.run.runtime.is_main or time.monotonic() - self._written < EVERY:
            return
        number = self.stages.index(stage) + 1
        try:
            self._write(Underway(stage, number, len(self.stages), self.display.left()))
        except SegadaptError as error:
            self.display.say(f"warning: the report of what there is so far could not be written: {error}")
        else:
            if not self._there:
                self.display.say(f"report of what there is so far: {self.path}")
            self._there = True
        self._written = time.monotonic()

    def end(self) -> None:
        """The run is at its end: the page about all of it, unless the one that is there is."""
        if not self.run.runtime.is_main:
            return
        if is_underway(self.path) or not is_current(self.path, self.run.folder):
            self.display.say("writing the report")
            self._write(None)
        self.display.say(f"report: {self.path}")

    def stop(self) -> None:
        """The run has stopped before its end: the page no longer says that it is at work."""
        if self.run.runtime.is_main:
            with suppress(SegadaptError):
                settle(self.path)

    def _write(self, underway: Underway | None) -> None:
        write_report(self.run.folder, self.path, device=str(self.run.runtime.device), underway=underway)

"""report.html of a run in progress: there as soon as there is something to see, rewritten as stages finish."""

import time
from contextlib import suppress
from pathlib import Path

from segadapt.errors import SegadaptError
from segadapt.pipeline.show import Display
from segadapt.report.page import SAMPLE, Underway, is_current, is_underway, settle, write_report
from segadapt.stages.context import Run

EVERY = 20.0
"""Seconds of work between two pages, at least: short stages share one, unless a longer one follows."""


class RunPage:
    """The page of a run; rank 0 writes it."""

    def __init__(self, run: Run, stages: list[str], display: Display, ended: bool = False) -> None:
        """`stages`: all of the run, in order; `ended`: some have ended in a command before this one."""
        self.run, self.stages, self.display = run, stages, display
        self.path: Path = run.folder / "report.html"
        self._written: float | None = None  # when, on the clock of `time.monotonic`
        # Whether a stage has ended that the page does not show.
        self._due = ended and run.runtime.is_main and not is_current(self.path, run.folder)

    def before(self, stage: str) -> None:
        """A stage is about to begin: show the results so far. A page that cannot be written does not stop the run."""
        if not self.run.runtime.is_main or not self._due or self._can_wait(stage):
            return
        number = self.stages.index(stage) + 1
        try:
            self._write(Underway(stage, number, len(self.stages), self.display.left()))
        except SegadaptError as error:
            self.display.say(f"warning: the report of the results so far could not be written: {error}")
        else:
            if self._written is None:
                self.display.say(f"report of the results so far: {self.path}")
        self._written = time.monotonic()

    def after(self) -> None:
        """A stage has ended."""
        self._due = True

    def end(self) -> None:
        """The run is at its end: the page about all of it, unless the one that is there is."""
        if not self.run.runtime.is_main:
            return
        if is_underway(self.path) or not is_current(self.path, self.run.folder):
            self.display.say("writing the report")
            self._write(None)
        self.display.say(f"report: {self.path}")

    def stop(self) -> None:
        """The run has stopped before its end: the page shows all stages that have ended, and none in progress.

        What is wrong with the page is not told: the reason of the stop is.
        """
        if not self.run.runtime.is_main:
            return
        with suppress(SegadaptError):
            settle(self.path)  # first, since there may be no time for more
        if self._due:
            with suppress(Exception):  # such as no memory beside a training's
                self._write(None, sample=0)
                self.display.say(f"report of the results so far: {self.path}")

    def _can_wait(self, stage: str) -> bool:
        """Whether there will be another page soon, after `stage`."""
        if self._written is None or time.monotonic() - self._written >= EVERY:
            return False
        seconds = None if self.display.whole is None else self.display.whole.of(stage)
        return seconds is not None and seconds < EVERY

    def _write(self, underway: Underway | None, sample: int = SAMPLE) -> None:
        """`sample`: target images without labels that the models see; none while there is more to do."""
        self._due = False
        device, sample = str(self.run.runtime.device), 0 if underway else sample
        write_report(self.run.folder, self.path, device=device, underway=underway, sample=sample)

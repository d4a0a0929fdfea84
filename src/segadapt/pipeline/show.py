"""How a run looks in a terminal: progress with rate, losses and time left; plain lines where there is no terminal.

The time left is the present stage's and, where a `TimeLeft` is followed, that of the whole run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from segadapt.pipeline.time_left import TimeLeft, duration
from segadapt.verbosity import quiet, told, verbose

EVERY = 30.0
"""Seconds between lines when the output is a file."""
EVERY_VERBOSE = 1.0
"""The same with --verbose, where they are written on a terminal too."""


class Display:
    """The `Watcher` of the trainer, on stderr; ranks other than 0 are silent."""

    def __init__(self, main: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not main, highlight=False)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.stage = ""
        self.whole: TimeLeft | None = None
        self._begun: tuple[int, float] | None = None
        self._spoken = 0.0

    def follow(self, whole: TimeLeft) -> None:
        """From now on show the time that all stages together still take, too."""
        self.whole = whole

    def left(self) -> str:
        """That time in words; empty where it is not known."""
        seconds = None if self.whole is None else self.whole.left()
        return "" if seconds is None else f"all stages: about {duration(seconds)} left"

    @contextmanager
    def showing(self, stage: str) -> Iterator[None]:
        """Show the progress of one stage while it runs."""
        self.stage, self._begun, self._spoken = stage, None, time.monotonic()
        if self.whole is not None:
            self.whole.begin(stage)
        if self.console.is_terminal:
            self.left()  # estimates now, not in the middle of a training
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[whole]}"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        shown = self.console.is_terminal and not quiet()
        with Progress(*columns, console=self.console, transient=True, disable=not shown) as progress:
            self.progress, self.task = progress, progress.add_task(stage, total=None, rate="", note="", whole="")
            try:
                yield
            finally:
                self.progress = self.task = None

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """After each step."""
        now = time.monotonic()
        if self.whole is not None:
            self.whole.update(step, steps)
        if self._begun is None:
            self._begun = (step, now)
        done, seconds = step - self._begun[0], now - self._begun[1]
        rate = f"{done / seconds:.2f} steps/s" if done and seconds > 0 else ""
        note = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in losses.items() if k.startswith("loss/"))
        self._advance(step, steps, rate, note)

    def images(self, done: int, count: int, note: str = "") -> None:
        """After each image of an evaluation."""
        if self.whole is not None:
            self.whole.image(done)
        self._advance(done, count, "", note)

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """After each evaluation."""
        text = "  ".join(f"{name.replace('_', ' ')} {score:.2f}" for name, score in scores.items())
        self.say(f"{self.stage}  step {step}: {text}")

    def say(self, text: str) -> None:
        """A line worth reading."""
        if told(text):
            self.console.print(text, soft_wrap=True, markup=False)

    def table(self, table: Table) -> None:
        """Numbers worth reading."""
        if not quiet():
            self.console.print(table)

    def _advance(self, done: int, count: int, rate: str, note: str) -> None:
        terminal = self.console.is_terminal
        if terminal and self.progress is not None and self.task is not None:
            left = self.left()
            self.progress.update(self.task, completed=done, total=count, rate=rate, whole=left, note=note)
        every = EVERY_VERBOSE if verbose() else EVERY
        if (verbose() or not terminal) and time.monotonic() - self._spoken > every:
            self._spoken = time.monotonic()
            parts = [part for part in (self.stage, f"{done}/{count}", rate, self.left(), note) if part]
            self.say("  ".join(parts))

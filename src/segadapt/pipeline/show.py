"""How a run looks in a terminal: progress with rate, losses and time left; plain lines where there is no terminal."""

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

EVERY = 30.0
"""Seconds between lines when the output is a file."""


class Display:
    """The `Watcher` of the trainer, on stderr; ranks other than 0 are silent."""

    def __init__(self, main: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not main, highlight=False)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.stage = ""
        self._begun: tuple[int, float] | None = None
        self._spoken = 0.0

    @contextmanager
    def showing(self, stage: str) -> Iterator[None]:
        """Show the progress of one stage while it runs."""
        self.stage, self._begun, self._spoken = stage, None, time.monotonic()
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            self.progress, self.task = progress, progress.add_task(stage, total=None, rate="", note="")
            try:
                yield
            finally:
                self.progress = self.task = None

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """After each step."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = (step, now)
        done, seconds = step - self._begun[0], now - self._begun[1]
        rate = f"{done / seconds:.2f} steps/s" if done and seconds > 0 else ""
        note = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in losses.items() if k.startswith("loss/"))
        self._advance(step, steps, rate, note)

    def images(self, done: int, count: int, note: str = "") -> None:
        """After each image of an evaluation."""
        self._advance(done, count, "", note)

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """After each evaluation."""
        text = "  ".join(f"{name.replace('_', ' ')} {score:.2f}" for name, score in scores.items())
        self.console.print(f"{self.stage}  step {step}: {text}")

    def say(self, text: str) -> None:
        """A line worth reading."""
        self.console.print(text, soft_wrap=True, markup=False)

    def _advance(self, done: int, count: int, rate: str, note: str) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, total=count, rate=rate, note=note)
        if not self.console.is_terminal and time.monotonic() - self._spoken > EVERY:
            self._spoken = time.monotonic()
            self.console.print(f"{self.stage}  {done}/{count}  {rate}  {note}", soft_wrap=True)

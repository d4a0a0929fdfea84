"""The loop: batches in, steps, losses to a file, evaluations, checkpoints; stops well, and goes on exactly.

All that is random is a function of (seed, step, sample), so a checkpoint needs no generator states, and n steps at once
equal k steps, a kill and n - k steps, bit for bit on the same machine with the same threads.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from segadapt import schedules
from segadapt.batch import Batch
from segadapt.engine import checkpoints
from segadapt.engine.recorder import Recorder
from segadapt.engine.runtime import Runtime
from segadapt.engine.selection import Selector
from segadapt.engine.updater import GradientUpdater
from segadapt.errors import SegadaptError, Stopped
from segadapt.methods.method import Method
from segadapt.methods.settings import TrainingSettings

STOPPING = b"stopping: the step is ended and saved first; once more stops at once\n"


class Watcher(Protocol):
    """Who shows a training to a person."""

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """After each step; `losses` is the newest fetched line."""

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """After each evaluation."""

    def say(self, text: str) -> None:
        """A line worth reading."""


@dataclass(frozen=True)
class Training:
    """All that one training needs."""

    method: Method
    settings: TrainingSettings
    steps: int
    folder: Path
    batches: Callable[[int], Iterator[Batch]]  # from this step on
    evaluate: Callable[[], dict[str, float]] | None  # scores of the method's result as it is now
    evaluate_every: int  # steps; 0: never
    selector: Selector
    watcher: Watcher


class Trainer:
    """Runs one training to its end, from wherever its folder stands."""

    def __init__(self, training: Training, runtime: Runtime) -> None:
        self.training, self.runtime = training, runtime
        self.settings = training.settings
        self.updater = GradientUpdater(
            training.method.optimizers, runtime, self.settings.accumulate, self.settings.clip_norm
        )
        self.checkpoints = checkpoints.Checkpoints(training.folder / "checkpoints", self.settings.keep)
        self.base_rates = {
            name: [float(group["lr"]) for group in optimizer.param_groups]
            for name, optimizer in training.method.optimizers.items()
        }
        self._saved_at = -1
        self._scores_due = False  # the checkpoint gone on from was written instead of an evaluation that failed

    def run(self) -> None:
        """Train up to `steps`. Raises Stopped after a signal, SegadaptError when the loss is not finite."""
        training = self.training
        first = self._resume()
        recorder = Recorder(
            training.folder / "metrics.jsonl",
            writes=self.runtime.is_main,
            from_step=first,
            tensorboard=self.settings.tensorboard,
        )
        try:
            with stop_signals(tell=self.runtime.is_main) as stopped, self.runtime.kernels_by_trial():
                if self._scores_due:
                    self._evaluate(first, recorder)
                    self._saved_at = -1
                    self._save(first)
                batches = training.batches(first)
                for step in range(first, training.steps):
                    rates = self._set_rates(step)
                    batch = next(batches).to(self.runtime.device)
                    losses = training.method.step(batch, self.updater)
                    recorder.add(step + 1, losses, rates)
                    self._after(step + 1, recorder, stopped)
            recorder.flush()
            self._need_finite()
            self._save(training.steps)
        finally:
            recorder.close()

    def _after(self, done: int, recorder: Recorder, stopped: list[int]) -> None:
        """What may be due after `done` updates: a fetch, an evaluation, a checkpoint, the end."""
        every = self.settings
        fetch = done % every.log_every == 0
        # Ranks must stop at the same step, and asking makes them wait for each other: not at every step.
        signalled = self.runtime.any(bool(stopped)) if fetch or self.runtime.ranks == 1 else False
        if fetch or signalled:
            recorder.flush()
            self._need_finite()
        self.training.watcher.training(done, self.training.steps, recorder.last)
        if self.training.evaluate_every and done % self.training.evaluate_every == 0:
            self._evaluate(done, recorder)
        if done % every.checkpoint_every == 0:
            self._save(done)
        if signalled:
            self._save(done)
            raise Stopped(
                f"stopped after step {done} of {self.training.steps}; the checkpoint is written",
                signal_number=stopped[0] if stopped else signal.SIGTERM,
                where=self.training.folder,
                remedy="The same command goes on from here.",
            )

    def _set_rates(self, step: int) -> dict[str, float]:
        factor = 1.0
        if self.settings.schedule == "polynomial":
            factor = schedules.polynomial(step, self.settings.schedule_steps or self.training.steps)
        for name, optimizer in self.training.method.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.base_rates[name], strict=True):
                group["lr"] = rate * factor
        return {name: rates[0] * factor for name, rates in self.base_rates.items()}

    def _evaluate(self, done: int, recorder: Recorder) -> None:
        if self.training.evaluate is not None and self.runtime.is_main:
            self._need_finite()
            try:
                scores = self.training.evaluate()
            except Exception:
                # A broken validation image must not cost the steps since the last checkpoint.
                if self._saved_at != done:
                    self.checkpoints.save(done, self.training.method, {**self._about(), "scores_due": True})
                raise
            recorder.scores(done, scores)
            self.training.selector.consider(done, scores)
            self.training.watcher.scored(done, scores)
        self.runtime.barrier()

    def _about(self) -> dict[str, Any]:
        """What must be the same for a bit-exact continuation, and what the selection knows."""
        return {
            "exactness": {
                "threads": self.runtime.threads,
                "optimizer path": self.settings.optimizer_path,
                "device": self.runtime.device.type,
                "ranks": self.runtime.ranks,
                "compiling": self.runtime.compile,
                "torch": str(torch.__version__),  # a plain str: the restricted unpickler refuses its class
            },
            "selection": self.training.selector.state(),
            "pixels": self.training.method.result.pixels.name,
            "stride_in_3x3": getattr(self.training.method.result, "stride_in_3x3", False),  # of DeepLab ResNet-101
        }

    def _save(self, done: int) -> None:
        if self.runtime.is_main and self._saved_at != done:
            self.checkpoints.save(done, self.training.method, self._about())
        self._saved_at = done
        self.runtime.barrier()

    def _resume(self) -> int:
        latest = self.runtime.from_main(self.checkpoints.latest)
        if latest is None:
            return 0
        content = self.runtime.from_main(lambda: checkpoints.read(latest))
        step, about = checkpoints.restore(content, self.training.method, latest)
        if self.runtime.is_main:
            self.checkpoints.prune()
        self.training.selector.load_state(about["selection"])
        self._saved_at, self._scores_due = step, about.get("scores_due", False)
        self.training.watcher.say(f"goes on from step {step} ({latest.name})")
        for name, now in self._about()["exactness"].items():
            before = about["exactness"].get(name, now)  # older checkpoints say less
            if before != now:
                warnings.warn(
                    f"{latest}: was written with {name} {before}, this run has {now}: the results are equally good, "
                    "but not bit for bit those of an uninterrupted run",
                    stacklevel=2,
                )
        return step

    def _need_finite(self) -> None:
        """Raise when an update had to be skipped since a loss or a gradient was not finite."""
        skipped = int(self.updater.skipped)
        if not skipped:
            return
        first = int(self.updater.first_skipped)
        names = next((names for step, names in self.updater.recent if step == first), ())
        last_good = self.checkpoints.latest()
        raise SegadaptError(
            f"the loss or its gradient was not finite at step {first + 1} ({', '.join(names)}); "
            f"the update was skipped; last good checkpoint: {last_good.name if last_good else 'none yet'}",
            where=self.training.folder,
            remedy="Lower `lr`, set `clip_norm` or use precision fp32, then run again with --yes.",
        )


@contextmanager
def stop_signals(tell: bool) -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the yielded list instead of ending the process; a second one ends it.

    With `tell`, a line on stderr says so: a step, or an evaluation, may take its time.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if tell:  # without buffers, which a signal handler may not enter twice
            os.write(2, STOPPING)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

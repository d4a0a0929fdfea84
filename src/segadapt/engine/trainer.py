"""The loop: batches, steps, losses to a file, evaluations, checkpoints; it stops cleanly and resumes exactly.

All randomness is a function of (seed, step, sample), so a checkpoint needs no generator states, and n steps at once
equal k steps, a kill and n - k steps: bit for bit on a CPU with the same threads and instruction set; on a GPU, where
no two runs agree to the last bit, up to the rounding of its kernels.
"""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from segadapt import schedules
from segadapt.batch import Batch
from segadapt.engine import checkpoints
from segadapt.engine.checkpoints import not_finite
from segadapt.engine.graphs import graphed
from segadapt.engine.rates import Rates
from segadapt.engine.recorder import Recorder
from segadapt.engine.runtime import Runtime
from segadapt.engine.selection import Selector
from segadapt.engine.updater import Updater
from segadapt.errors import RankLost, SegadaptError, Stopped
from segadapt.methods.method import Method
from segadapt.methods.settings import TrainingSettings
from segadapt.tracking.tracker import Pictures
from segadapt.tracking.trackers import Tracking

STOPPING = b"finishing this step and saving; press Ctrl-C again to quit now\n"
TWICE = 0.5
"""Seconds within which two signals count as one: torchrun forwards what the terminal has already sent to all."""


LARGEST_RATE = 1.0
"""A learning rate above this is taken for a slip."""


class Watcher(Protocol):
    """Displays a training to the user."""

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """After each step; `losses` is the newest fetched line."""

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """After each evaluation."""

    def say(self, text: str) -> None:
        """A line worth reading."""


@dataclass(frozen=True)
class Training:
    """Everything that one training needs."""

    method: Method
    settings: TrainingSettings
    steps: int
    folder: Path
    batches: Callable[[int], Iterator[Batch]]  # from this step on
    evaluate: Callable[[], dict[str, float]] | None  # scores of the method's result as it is now; all ranks call it
    evaluate_every: int  # steps; 0: never
    selector: Selector
    watcher: Watcher
    facts: dict[str, Any] = field(default_factory=dict)  # plain data about the training, for its checkpoints
    tracking: Tracking | None = None  # the trackers that mirror it
    pictures: Callable[[], Pictures] | None = None  # predictions of the method's current result, for them
    pictures_every: int = 0  # steps; 0: never


class Trainer:
    """Runs one training to its end, from the current state of its folder."""

    def __init__(self, training: Training, runtime: Runtime) -> None:
        self.training, self.runtime = training, runtime
        self.settings = training.settings
        self.updater = Updater(training.method.optimizers, runtime, self.settings.accumulate, self.settings.clip_norm)
        self.checkpoints = checkpoints.Checkpoints(training.folder / "checkpoints", self.settings.keep)
        self.rates = Rates(training.method.optimizers, runtime)
        self.graphed = graphed(training.method, self.updater, runtime, training.watcher.say)
        self._saved_at = -1
        self._scores_due = False  # the checkpoint resumed from was written instead of an evaluation that failed

    def run(self) -> None:
        """Train up to `steps`. Raises Stopped after a signal, SegadaptError when the loss is not finite."""
        training = self.training
        first = self._resume()
        recorder = Recorder(
            training.folder / "metrics.jsonl",
            writes=self.runtime.is_main,
            from_step=first,
            tracking=training.tracking,
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
                    torch.manual_seed(batch.seeds[0])  # of what a network draws by functions
                    losses = (self.graphed or self.updater).run(training.method, batch)
                    recorder.add(step + 1, losses, rates)
                    self._after(step + 1, recorder, stopped)
            recorder.flush()
            self._save(training.steps)
        finally:
            recorder.close()

    def _after(self, done: int, recorder: Recorder, stopped: list[int]) -> None:
        """Do what is due after `done` updates: a fetch, an evaluation, a checkpoint, the end."""
        every = self.settings
        fetch = done % every.log_every == 0
        # Ranks must stop at the same step, but agreeing makes them wait for each other: so not at every step.
        signalled = self.runtime.any(bool(stopped)) if fetch or self.runtime.ranks == 1 else False
        if fetch or signalled:
            recorder.flush()
            self._need_finite()
        self.training.watcher.training(done, self.training.steps, recorder.last)
        if self.training.evaluate_every and done % self.training.evaluate_every == 0:
            self._evaluate(done, recorder)
        if self.training.pictures_every and done % self.training.pictures_every == 0:
            self._show(done, recorder)
        if done % every.checkpoint_every == 0:
            self._save(done)
        if signalled:
            self._save(done)
            raise Stopped(
                f"stopped after step {done} of {self.training.steps}; a checkpoint was saved",
                signal_number=stopped[0] if stopped else signal.SIGTERM,
                where=self.training.folder,
                remedy="Run the same command to resume.",
            )

    def _set_rates(self, step: int) -> dict[str, float]:
        factor = schedules.factor(self.settings, step, self.settings.schedule_steps or self.training.steps)
        return self.rates.set(factor)

    def _evaluate(self, done: int, recorder: Recorder) -> None:
        self._need_finite(weights=True)
        if self.training.evaluate is None:
            return
        try:
            scores = self.training.evaluate()
        except Exception:
            # A broken validation image must not cost the steps since the last checkpoint. The rank that found it waits:
            # torchrun ends all when one has ended.
            with suppress(RankLost):  # it knows better why
                self.runtime.from_main(lambda: self._save_unscored(done))
            raise
        self.runtime.from_main(lambda: self._take(done, scores, recorder))

    def _save_unscored(self, done: int) -> None:
        if self._saved_at != done:
            self.checkpoints.save(done, self.training.method, {**self._about(), "scores_due": True})

    def _take(self, done: int, scores: dict[str, float], recorder: Recorder) -> None:
        """Record the scores after `done` updates, select by them, and show them."""
        recorder.scores(done, scores)
        self.training.selector.consider(done, scores)
        self.training.watcher.scored(done, scores)

    def _show(self, done: int, recorder: Recorder) -> None:
        """Pictures for the trackers; rank 0 makes them, the others wait."""
        tracking, make = self.training.tracking, self.training.pictures
        if tracking is not None and make is not None and self.runtime.is_main:
            recorder.flush()
            tracking.pictures(done, make)
        self.runtime.barrier()

    def _about(self) -> dict[str, Any]:
        """What must be the same for the same rounding, the state of the selection, and facts about the training."""
        return {
            "exactness": {
                "threads": self.runtime.threads,
                "optimizer path": self.settings.optimizer_path,
                "device": self.runtime.device.type,
                "processor": self.runtime.processor,
                "ranks": self.runtime.ranks,
                "compiling": self.runtime.compile,
                "torch": str(torch.__version__),  # a plain str: the restricted unpickler refuses its class
            },
            "skipped": int(self.updater.skipped),
            "first_skipped": int(self.updater.first_skipped),
            "selection": self.training.selector.state(),
            **checkpoints.pixel_facts(self.training.method),
            **self.training.facts,
        }

    def _save(self, done: int) -> None:
        if self._saved_at != done:
            self._need_finite(weights=True)
            if self.runtime.is_main:
                self.checkpoints.save(done, self.training.method, self._about())
        self._saved_at = done
        self.runtime.barrier()

    def _resume(self) -> int:
        latest = self.runtime.from_main(self.checkpoints.latest)
        if latest is None:
            return 0
        content = self.runtime.from_main(lambda: checkpoints.read(latest))
        step, about = checkpoints.restore(content, self.training.method, latest, self.training.facts)
        if about.get("skipped") or not_finite(self.training.method):
            raise SegadaptError(
                "the checkpoint is from a training that had diverged",
                where=latest,
                remedy="Delete it; the same command then resumes from the previous one.",
            )
        if self.runtime.is_main:
            self.checkpoints.prune()
        self.training.selector.load_state(about["selection"])
        self._saved_at, self._scores_due = step, about.get("scores_due", False)
        self.training.watcher.say(f"resumed from step {step} ({latest.name})")
        for name, now in self._about()["exactness"].items():
            before = about["exactness"].get(name, now)  # older checkpoints say less
            if before != now:
                warnings.warn(
                    f"{latest}: was written with {name} {before}, but this run has {now}: the results are equally "
                    "valid, but differ in rounding from those of an uninterrupted run",
                    stacklevel=2,
                )
        return step

    def _need_finite(self, weights: bool = False) -> None:
        """Raise when an update was skipped since a loss or a gradient was not finite, or when `weights` are not.

        Asking for the weights takes a pass over all of them, and makes the host wait for the device.
        """
        broken = not_finite(self.training.method) if weights else None
        if not int(self.updater.skipped):
            if broken is not None:
                raise self._diverged(f"the weights are no longer finite ({broken})")
            return
        first = int(self.updater.first_skipped)
        names = next((names for step, names in self.updater.recent if step == first), ())
        raise self._diverged(
            f"the loss or its gradient was not finite at step {first + 1} ({', '.join(names)}); the update was skipped"
        )

    def _diverged(self, what: str) -> SegadaptError:
        """The error about a training that cannot continue, with the command that can."""
        stage, latest, rate = self.training.folder.name, self.checkpoints.latest(), self.settings.lr
        # A tenth of an absurd rate is still absurd.
        lower = f"{rate / 10:g}" if rate <= LARGEST_RATE else "RATE"
        if latest is None:
            again = "--yes to restart the stage"  # an evaluation may have kept a model
        else:
            again = f"--continue {stage} to continue from that checkpoint (or --yes to start over)"
        others = ["set `clip_norm`"] * (self.settings.clip_norm is None)
        others += ["use precision fp32"] * (self.runtime.precision != "fp32")
        remedy = f"Lower `lr` (it is {rate:g}): run the command again with stages.{stage}.lr={lower} {again}."
        if others:
            remedy += f" Instead of lowering `lr`, you can {' or '.join(others)}."
        return SegadaptError(
            f"{what}; last good checkpoint: {latest.name if latest else 'none yet'}",
            where=self.training.folder,
            remedy=remedy,
        )


@contextmanager
def stop_signals(tell: bool) -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the yielded list instead of ending the process; a second Ctrl-C ends it.

    A second SIGTERM does not: `timeout` and batch systems send it to a process and to its group, and follow up with
    SIGKILL. With `tell`, a line on stderr says so, since a step or an evaluation may take a while.
    """
    received: list[int] = []
    first = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not received:
            first = time.monotonic()
            received.append(number)
            if tell:  # unbuffered: buffers are not safe to re-enter in a signal handler
                os.write(2, STOPPING)
        elif number == signal.SIGINT and time.monotonic() - first > TWICE:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

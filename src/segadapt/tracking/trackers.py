"""The trackers by name, and all those of one training together.

    tracking = Tracking(("mlflow",), subject, say)
    tracking.begin(from_step, lines)      # of metrics.jsonl, up to the step resumed from
    tracking.lines(lines)                 # new ones
    tracking.pictures(500, make)          # calls `make` only if needed
    tracking.final(5000, scores)
    tracking.close(finished=True)

A tracker that fails (an unreachable server, a full disk) is dropped, with one warning line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Literal, get_args

from segadapt.errors import UsageError
from segadapt.extras import need_package
from segadapt.files import write_json
from segadapt.plain_data import read_json
from segadapt.tracking.tracker import Identity, Line, Open, Pictures, Subject, Tracker, kind_of, step_of

TrackerName = Literal["tensorboard", "mlflow", "trackio", "wandb"]
NAMES: tuple[TrackerName, ...] = get_args(TrackerName)
CLASSES = {"tensorboard": "TensorBoard", "mlflow": "Mlflow", "trackio": "Trackio", "wandb": "Wandb"}
FILE = "trackers.json"
"""File in the stage's folder: how each tracker finds its run again."""


def need_installed(names: Iterable[str], where: str) -> None:
    """Raise UsageError for a tracker whose package is not installed; nothing is imported."""
    for name in names:
        need_package(name, name, where, otherwise=", or leave it out")


def opened(name: str) -> Open:
    """The class of a tracker, by its name; imports its package."""
    found: Open = getattr(import_module(f"segadapt.tracking.{name}"), CLASSES[name])
    return found


class Tracking:
    """The trackers of one training; without names it does nothing."""

    def __init__(self, names: Sequence[str], subject: Subject, say: Callable[[str], None]) -> None:
        self.names, self.subject, self.say = tuple(dict.fromkeys(names)), subject, say
        self.trackers: dict[str, Tracker] = {}

    def begin(self, from_step: int, lines: Sequence[Line]) -> None:
        """Find or start the run in each tracker, and send what it lacks of `lines`."""
        known = self._known()
        for name in self.names:
            with self._guarded(name):
                self.trackers[name] = opened(name)(self.subject, known.get(name), from_step)
        if self.trackers:
            write_json(self.subject.folder / FILE, {**known, **{n: t.identity for n, t in self.trackers.items()}})
        self.lines(lines)

    def lines(self, lines: Sequence[Line]) -> None:
        """Send new lines of metrics.jsonl, without those that a tracker has already."""
        for name, tracker in self._all():
            with self._guarded(name):
                new = [line for line in lines if step_of(line) > tracker.reached.get(kind_of(line), 0)]
                if new:
                    tracker.lines(new)

    def pictures(self, step: int, make: Callable[[], Pictures]) -> None:
        """Show the network's output after `step` updates, where it was not shown yet; `make` is called if needed."""
        wanting = [(name, tracker) for name, tracker in self._all() if tracker.reached.get("pictures", 0) < step]
        made: Pictures = {}
        if wanting:
            with self._guarded("pictures"):
                made = make()
        for name, tracker in wanting if made else ():
            with self._guarded(name):
                tracker.pictures(step, made)

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        """The scores of the result, by name."""
        for name, tracker in self._all():
            if tracker.reached.get("final", 0) < step:
                with self._guarded(name):
                    tracker.final(step, {f"final/{score}": value for score, value in scores.items()})

    def close(self, finished: bool) -> None:
        """The training has ended, or (not `finished`) was stopped."""
        for name, tracker in self._all():
            with self._guarded(name):
                tracker.close(finished)
        self.trackers.clear()

    def _all(self) -> list[tuple[str, Tracker]]:
        return list(self.trackers.items())

    def _known(self) -> dict[str, Identity]:
        """The saved identities; none if the file is not ours."""
        if not (self.subject.folder / FILE).is_file():
            return {}
        try:
            found = read_json(self.subject.folder / FILE, "the record of trackers")
            return {name: {str(k): str(v) for k, v in dict(found[name]).items()} for name in NAMES if name in found}
        except (UsageError, ValueError, TypeError):
            self.say(f"warning: {FILE} cannot be read: trackers start a new run")
            return {}

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Anything a tracker raises becomes a warning, and the tracker is dropped."""
        try:
            yield
        except Exception as error:
            why = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
            self.say(f"warning: {what}: {why}. The training continues without it")
            self.trackers.pop(what, None)

"""How long a run still takes: what was estimated for its stages, corrected by how long things have really taken."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from segadapt.errors import SegadaptError
from segadapt.stages.stage import Cost

TRUST = 0.02
"""What an estimate counts beside measurements: as if this share of the work had been seen to take as long."""
UPDATES, IMAGES = "updates", "images"
"""The two kinds of work: their estimates are wrong by different factors."""


@dataclass
class _Part:
    """A stage's updates, or its images: what was seen of them in this command."""

    done: int = 0
    left: int | None = None  # None: as many as were estimated
    seconds: float = 0.0  # for all that are done but the first one, before which things are loaded


class TimeLeft:
    """Seconds that all stages of a run still take together; told of every update and every image.

    `estimate` gives the stages' costs and is asked once, when the time is first wanted: it takes about a second. What
    happens before a stage's first update and first image (loading, starting processes) is measured, too, and expected
    again of each stage to come.
    """

    def __init__(
        self,
        stages: Sequence[str],
        estimate: Callable[[], Mapping[str, Cost]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stages`: those that this command has to work on, in order."""
        self.stages, self._estimate, self._clock = tuple(stages), estimate, clock
        self._costs: Mapping[str, Cost] | None = None
        self._parts: dict[str, dict[str, _Part]] = {}  # of the stages that have begun
        self._since, self._between = clock(), 0.0
        self._last_image = 0

    def begin(self, stage: str) -> None:
        """A stage begins, and the one before it has ended."""
        self._parts[stage] = {UPDATES: _Part(), IMAGES: _Part()}
        self._last_image = 0

    def update(self, step: int, steps: int) -> None:
        """After each update: `step` of `steps`."""
        self._note(UPDATES, 1, steps - step)

    def image(self, number: int) -> None:
        """After image `number` of a pass, or after several; a stage may make several passes."""
        since = number - self._last_image
        self._note(IMAGES, since if self._last_image and since > 0 else 1)
        self._last_image = number

    def left(self) -> float | None:
        """Seconds from now to the end of the last stage; None where that cannot be estimated."""
        if not self._known():
            return None
        now, begun = next(reversed(self._parts), None), len(self._parts)
        coming = [name for name in self.stages if name not in self._parts]
        seconds = self._between / begun * len(coming) if begun else 0.0
        for name in coming if now is None else [now, *coming]:
            seconds += self._of(name)
        return seconds

    def of(self, stage: str) -> float | None:
        """Seconds that one of the stages still takes, without what comes before its first update or image."""
        return self._of(stage) if self._known() else None

    def _of(self, name: str) -> float:
        parts = (
            (1 - self._share(name, kind)) * self._expected(name, kind) * self._factor(name, kind)
            for kind in (UPDATES, IMAGES)
        )
        return sum(parts)

    def _known(self) -> bool:
        """Whether there are estimates."""
        if self._costs is None:
            try:
                self._costs = self._estimate()
            except SegadaptError:  # such as a model that cannot be read: its stage says so when it is its turn
                self._costs = {}
        return bool(self._costs)

    def _note(self, kind: str, more: int, left: int | None = None) -> None:
        now, part = self._clock(), next(reversed(self._parts.values()))[kind]
        if part.done:
            part.seconds += now - self._since
        else:
            self._between += now - self._since
        part.done, part.left, self._since = part.done + more, left, now

    def _expected(self, name: str, kind: str) -> float:
        """Seconds that were estimated for all of a stage's work of a kind."""
        assert self._costs is not None
        return self._costs[name].updating if kind == UPDATES else self._costs[name].seeing

    def _share(self, name: str, kind: str, without: int = 0) -> float:
        """How much of a stage's work of a kind is done, 0 … 1; `without` so many updates or images."""
        assert self._costs is not None
        part = self._parts.get(name, {}).get(kind, _Part())
        whole = self._costs[name].images if part.left is None else part.done + part.left
        return min(1.0, max(0, part.done - without) / max(1, whole))

    def _factor(self, name: str, kind: str) -> float:
        """How many times the estimated time a stage's work of a kind takes, by what was seen of it and of others."""
        measured = {one: (self._seen(one, kind), parts[kind].seconds) for one, parts in self._parts.items()}
        trust = TRUST * sum(self._expected(one, kind) for one in self.stages)
        seen, took = (sum(column) for column in zip(*measured.values(), strict=True)) if measured else (0.0, 0.0)
        usual = (took + trust) / (seen + trust) if trust else 1.0
        own, took = measured.get(name, (0.0, 0.0))
        trust = TRUST * self._expected(name, kind)
        return (took + trust * usual) / (own + trust) if trust else usual

    def _seen(self, name: str, kind: str) -> float:
        """Estimated seconds of the work that was timed."""
        return self._share(name, kind, without=1) * self._expected(name, kind)


def duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"

"""What a training was made with, part by part: a stage that was continued with different settings says so for good."""

from dataclasses import dataclass, replace
from typing import Any

from segadapt.files import digest
from segadapt.stages.stage import Content

LENGTH = {"settings.steps", "settings.epochs"}


@dataclass(frozen=True)
class Part:
    """Updates that were made with different settings than the stage's, before it was continued with those."""

    until: int  # updates done at its end
    content: Content  # what they were made with; empty: not known
    checkpoint: str | None = None  # SHA-256 of the checkpoint where it is from elsewhere

    def plain(self) -> dict[str, Any]:
        """Plain data for stage.json; the inverse of `read`."""
        return {"until": self.until, "content": self.content, "checkpoint": self.checkpoint}

    @property
    def digest(self) -> str:
        """Of all of it."""
        return digest(self.plain())


Parts = tuple[Part, ...]


def read(plain: list[dict[str, Any]]) -> Parts:
    """The parts in a stage.json. Raises KeyError, TypeError or ValueError for anything else."""
    return tuple(Part(int(one["until"]), dict(one["content"]), one["checkpoint"]) for one in plain)


def switched_on(content: Content) -> Content:
    """Without what is off. An option that is off counts as one that is not there: new options redo no old stages."""
    return {key: value for key, value in content.items() if not (value is None or value is False or value in ([], {}))}


def until(parts: Parts, content: Content, step: int) -> Parts:
    """The first `step` updates of a stage that has these parts, and `content` since."""
    found: list[Part] = []
    for part in (*parts, Part(step, switched_on(content))):
        found.append(replace(part, until=min(part.until, step)))
        if part.until >= step:
            break
    return tuple(found)


def continued(parts: Parts, content: Content, by_length: bool) -> Parts:
    """The same parts before updates with `content`: the last ones that differ in nothing which counts are no parts.

    `by_length`: updates depend on how many there will be.
    """
    while parts and parts[-1].checkpoint is None and same_course(parts[-1].content, content, by_length):
        parts = parts[:-1]
    return parts


def same_course(before: Content, now: Content, by_length: bool) -> bool:
    """Whether the updates of the one are those of the other, as far as both go: only their number may differ.

    With a schedule that ends with the training (`by_length`), its number of updates changes every one of them.
    """
    different = _different(before, now)
    return not different or (different <= LENGTH and not by_length)


def length_differs(before: Content, now: Content) -> bool:
    """Whether the one is made for another number of updates than the other."""
    return bool(_different(before, now) & LENGTH)


def _different(before: Content, now: Content) -> set[str]:
    before, now = switched_on(before), switched_on(now)
    return {key for key in {**before, **now} if before.get(key) != now.get(key)}

"""What a tracker receives from a training: its parameters, its numbers step by step, pictures, and its final scores.

A tracker mirrors `metrics.jsonl`. When a training starts or resumes, the tracker receives what it lacks of that file,
so a kill, an unreachable server, or a tracker that was added late leaves neither gaps nor repeated steps.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from PIL import Image

Line = Mapping[str, float | None]
"""A line of metrics.jsonl: `step`, and numbers by name (`loss/…`, `lr/…`, `time/step`, or `val/…` of an evaluation);
None for what is not finite."""
Kind = Literal["step", "evaluation", "final", "pictures"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PREFIXES: Mapping[Kind, str] = {"step": "time/", "evaluation": "val/", "final": "final/"}
"""Prefixes of names that occur in every entry of a kind; pictures have their own names."""
Identity = dict[str, str]
"""How a tracker finds the run that it started."""
Pictures = Mapping[str, Image.Image]
"""Pictures by name, which has letters, digits, `_`, `-`, `.`, spaces and `/` only (`plain_name`)."""


@dataclass(frozen=True)
class Subject:
    """The training that is tracked."""

    name: str  # RUN/STAGE
    folder: Path  # of the stage
    parameters: Mapping[str, Any] = field(default_factory=dict)  # settings by dotted key, plain values
    recipe: str = ""  # the whole recipe, as YAML


class Tracker(Protocol):
    """One run in one tracker. Whatever a method raises ends the tracking, never the training."""

    identity: Identity
    reached: Mapping[Kind, int]  # the last step of each kind that it had when it was opened

    def lines(self, lines: Sequence[Line]) -> None:
        """Lines of metrics.jsonl, in its order."""

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Pictures of the network's output after `step` updates."""

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        """The scores of the result, by names that begin with `final/`."""

    def close(self, finished: bool) -> None:
        """The training has ended, or (not `finished`) was stopped and may be resumed."""


Open = Callable[[Subject, Identity | None, int], Tracker]
"""Starts a run for a subject, or finds the one with an identity; the number is the step resumed from."""


def kind_of(entry: Mapping[str, Any]) -> Kind:
    """The kind of an entry, by the names in it."""
    kinds = (kind for kind, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in entry))
    return next(kinds, "pictures")


def numbers(line: Line) -> dict[str, float]:
    """The numbers of a line except its step; anything that is not a finite number is left out."""
    return {name: float(value) for name, value in line.items() if name != "step" and isinstance(value, (int, float))}


def step_of(line: Line) -> int:
    """The step of a line."""
    return int(line["step"] or 0)


def plain_name(name: str) -> str:
    """`name` with `_` for every character that some tracker would refuse."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)

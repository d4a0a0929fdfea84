"""What gives frames: the contract of a source, and what is taken of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segadapt.errors import SegadaptError

Picture = NDArray[np.uint8]
"""uint8 RGB (H, W, 3)."""


@dataclass(frozen=True)
class Frame:
    """One frame that is to be predicted."""

    image: Picture
    time: Fraction  # seconds since the beginning
    place: Path  # of its pictures below an output folder, without suffix
    inputs: dict[tuple[int, int], Picture] = field(default_factory=dict)  # the image at the networks' input sizes


@dataclass(frozen=True)
class Sound:
    """A packet of the sound track as it is stored, its time counted from the beginning of what is read."""

    packet: Any  # av.Packet


@dataclass(frozen=True)
class Selection:
    """What is taken of a source: every `every`-th frame, of the first `seconds` (None: to the end)."""

    every: int = 1
    seconds: float | None = None

    def ends_before(self, time: Fraction) -> bool:
        """Whether what is at `time` is not wanted any more."""
        return self.seconds is not None and time >= self.seconds

    def count(self, frames: int | None, rate: Fraction) -> int | None:
        """How many of so many frames are taken; None where nobody knows."""
        if self.seconds is not None:
            most = -(-int(self.seconds * 1000) * rate // 1000)  # rounded up
            frames = int(most) if frames is None else min(frames, int(most))
        return None if frames is None else -(-frames // self.every)


class Source(ABC):
    """Frames in their order, with what a written video needs to know of them; read once, then closed."""

    name: str  # for people
    selection: Selection
    rate: Fraction  # frames per second, before the selection
    time_base: Fraction  # seconds; all times are multiples of it
    frames: int | None = None  # about how many come; None for what has no end, or does not say
    live: bool = False  # a camera or a stream without an end, which does not wait
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel by its height
    sound: Any = None  # av.AudioStream whose packets come between the frames
    broken: list[SegadaptError]  # what could not be read and is left out

    @abstractmethod
    def items(self) -> Iterator[Frame | Sound]:
        """Every selected frame, and the sound between them. Raises SegadaptError for what ends the reading."""

    def close(self) -> None:  # noqa: B027 - images have nothing to close
        """Let go of what is open; nothing may be reading any more."""

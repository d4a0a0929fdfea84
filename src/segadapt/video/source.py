"""The contract of a source of frames, and the selection from it."""

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
    """One frame to be predicted."""

    image: Picture
    time: Fraction  # seconds since the beginning
    place: Path  # of its outputs below an output folder, without suffix
    inputs: dict[tuple[int, int], Picture] = field(default_factory=dict)  # the image at the networks' input sizes


@dataclass(frozen=True)
class Sound:
    """A packet of the sound track as stored, with its time counted from the start of reading."""

    packet: Any  # av.Packet


@dataclass(frozen=True)
class Selection:
    """The selection from a source: every `every`-th frame, of the first `seconds` (None: to the end)."""

    every: int = 1
    seconds: float | None = None

    def ends_before(self, time: Fraction) -> bool:
        """Whether `time` is past the end of the selection."""
        return self.seconds is not None and time >= self.seconds

    def count(self, frames: int | None, rate: Fraction) -> int | None:
        """How many of so many frames are selected; None if unknown."""
        if self.seconds is not None:
            most = -(-int(self.seconds * 1000) * rate // 1000)  # rounded up
            frames = int(most) if frames is None else min(frames, int(most))
        return None if frames is None else -(-frames // self.every)


class Source(ABC):
    """Frames in order, with what an output video needs to know about them; read once, then closed."""

    name: str  # for display
    selection: Selection
    rate: Fraction  # frames per second, before the selection
    time_base: Fraction  # seconds; all times are multiples of it
    frames: int | None = None  # their approximate number; None if endless or unspecified
    live: bool = False  # a camera or an endless stream, which does not wait
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel by its height
    sound: Any = None  # av.AudioStream whose packets come between frames
    broken: list[SegadaptError]  # what could not be read and was skipped

    @abstractmethod
    def items(self) -> Iterator[Frame | Sound]:
        """Every selected frame, and the sound between them. Raises SegadaptError for a failure that ends reading."""

    def close(self) -> None:  # noqa: B027 - images have nothing to close
        """Close what is open; nothing may be reading any more."""

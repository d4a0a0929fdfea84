"""A sequence of images as a source: a folder, a list, or a pattern such as `frames/%06d.png`."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from segadapt.data.catalog import IMAGE_SUFFIXES
from segadapt.data.orientation import Exif
from segadapt.data.reading import read_rgb
from segadapt.data.walking import natural
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import exists
from segadapt.inference.streams import READERS, ahead
from segadapt.video.source import Frame, Picture, Selection, Source

NUMBER = re.compile(r"%0?(\d*)d")
"""A number in a name, as printf and FFmpeg write it."""
RATE = Fraction(25)
"""Default frames per second of images."""
Place = tuple[Path, Path]
"""An image, and the path of its outputs below an output folder, without suffix."""


class ImageSource(Source):
    """Images one after another, at `rate` frames per second. Unreadable ones are skipped and reported."""

    def __init__(
        self,
        images: Sequence[Place],
        selection: Selection = Selection(),
        rate: Fraction = RATE,
        exif: Exif = "turn",
        threads: int = READERS,
    ) -> None:
        self.name = str(images[0][0].parent)
        self.selection, self.rate, self.time_base = selection, rate, Fraction(1, rate.numerator)
        timed = ((image, place, number / rate) for number, (image, place) in enumerate(images))
        self.images = [image for image in timed if not selection.ends_before(image[2])][:: selection.every]
        self.frames, self.broken = len(self.images), []
        self._exif, self._threads = exif, threads

    def items(self) -> Iterator[Frame]:
        """Decoded by threads, in order."""
        for found, (_, place, time) in zip(
            ahead(self._read, self.images, self._threads, self._threads), self.images, strict=True
        ):
            if isinstance(found, SegadaptError):
                self.broken.append(found)
            else:
                yield Frame(found, time, place)

    def _read(self, image: tuple[Path, Path, Fraction]) -> Picture | SegadaptError:
        try:
            return np.asarray(read_rgb(image[0], exif=self._exif))
        except SegadaptError as error:
            return error


def is_pattern(text: str) -> bool:
    """Whether this is a pattern for several files: `frames/%06d.png`, `'frames/*.png'`."""
    return bool(NUMBER.search(text) or re.search(r"[*?\[]", text)) and not exists(Path(text))


def pattern_images(text: str) -> list[Place]:
    """The images of a pattern in natural order. Raises UsageError when there are none."""
    path = Path(text)
    if NUMBER.search(str(path.parent)) or re.search(r"[*?\[]", str(path.parent)):
        raise UsageError("has a pattern in its folder", where=text, remedy="Use one in the name of the file only.")
    numbered = NUMBER.search(path.name) is not None
    glob = NUMBER.sub("*", re.sub(r"([\[\]*?])", r"[\1]", path.name)) if numbered else path.name
    exact = re.compile(_expression(path.name)) if numbered else None
    found = [
        file
        for file in path.parent.glob(glob)
        if file.suffix.lower() in IMAGE_SUFFIXES and (exact is None or exact.fullmatch(file.name)) and file.is_file()
    ]
    if not found:
        raise UsageError(
            "matches no image", where=text, remedy="Give a pattern such as 'frames/*.png' or frames/%06d.png."
        )
    return [(file, Path(file.stem)) for file in sorted(found, key=lambda file: natural(file.name))]


def _expression(name: str) -> str:
    """A name with `%06d` in it as a regular expression: numbers of at least so many digits."""
    parts, last = [], 0
    for number in NUMBER.finditer(name):
        parts += [re.escape(name[last : number.start()]), rf"\d{{{int(number[1] or 1)},}}"]
        last = number.end()
    return "".join([*parts, re.escape(name[last:])])

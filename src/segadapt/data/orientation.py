"""Which way up a picture is: cameras store pixels as the sensor has them, and say in EXIF how to turn them.

    picture = read_rgb(path, exif="turn")     # as every viewer shows it; "raw": as the pixels are stored

Nothing else in the package looks at EXIF; pictures that were read carry no tag any more, so no output does.
"""

from typing import Literal, NamedTuple

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

Exif = Literal["turn", "raw"]
Turn = Image.Transpose

_TURNS = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
"""Orientation -> what brings the stored pixels upright (EXIF 2.32, tag 0x0112; 1 is upright)."""
_BACK = {Turn.ROTATE_270: Turn.ROTATE_90, Turn.ROTATE_90: Turn.ROTATE_270}
"""What undoes a turn; all others undo themselves."""


class Sizes(NamedTuple):
    """(width, height) of a picture's pixels as they are stored, and after the turn that EXIF asks for."""

    raw: tuple[int, int]
    turn: tuple[int, int]
    tagged: bool  # whether EXIF asks for a turn, of which the sizes may tell nothing

    def of(self, exif: Exif) -> tuple[int, int]:
        """The size that reading with `exif` gives."""
        return self.turn if exif == "turn" else self.raw


def turn_of(image: Image.Image) -> Turn | None:
    """The turn that an opened file's EXIF (or XMP) asks for, None for an upright one. Decodes no pixel.

    What follows the pixels in a PNG is not looked at. A damaged block counts as none: the pixels are still good.
    """
    try:
        # Not the PNG class's own method, which decodes the whole picture to look behind it.
        return _TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def turn_to_apply(image: Image.Image, exif: Exif) -> Turn | None:
    """What is still to be done to the decoded pixels; to be asked before they are decoded."""
    turn = turn_of(image)
    if isinstance(image, TiffImageFile):  # Pillow turns these by itself
        # It maps uncompressed ones into memory with the sides swapped (13.0), which it does by name only.
        image.filename = ""
        return None if turn is None or exif == "turn" else _BACK.get(turn, turn)
    return turn if exif == "turn" else None


def sizes_of(image: Image.Image) -> Sizes:
    """The sizes of an opened file, from its header."""
    raw = image.size
    if isinstance(image, TiffImageFile):  # its `size` is turned already, but not in all versions of Pillow
        raw = (image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength])
    turn = turn_of(image)
    lying = turn in (Turn.TRANSPOSE, Turn.ROTATE_270, Turn.TRANSVERSE, Turn.ROTATE_90)
    return Sizes(raw, (raw[1], raw[0]) if lying else raw, turn is not None)

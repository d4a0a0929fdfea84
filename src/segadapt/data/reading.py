"""Images and label maps as files: read with Pillow, turned by EXIF, resized as the published programs do.

Images are resized bicubic, raw labels nearest; a table then turns raw labels into train ids, which gives what looking
up first and resizing then would give, for less.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from segadapt.data import archive
from segadapt.data.catalog import LabelForm
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace
from segadapt.data.orientation import Exif, Sizes, sizes_of, turn_to_apply
from segadapt.data.packed import is_video_file
from segadapt.errors import SegadaptError, UsageError

UnknownIds = Literal["error", "ignore"]

# `opened` has a limit of its own, in words.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises about a file into one SegadaptError that names it."""
    try:
        yield
    except SegadaptError:
        raise
    except FileNotFoundError as failure:
        raise SegadaptError("does not exist", where=path, remedy="Restore the file, or correct its path.") from failure
    # Pillow raises OSError, SyntaxError, ValueError, zlib.error, struct.error and more for broken files.
    except Exception as failure:
        if is_video_file(path):
            raise SegadaptError(
                "is a video, and no image",
                where=path,
                remedy="`segadapt predict` takes videos; in Python predict_video and predict_frames do.",
            ) from failure
        raise SegadaptError(
            f"cannot be read as an image ({failure or type(failure).__name__})".replace(f" {str(path)!r}", ""),
            where=path,
            remedy="Replace the file or leave it out with an image list; `segadapt data check` finds all such files.",
        ) from failure


FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""What Pillow may take a file for, whatever its name: else it would start Ghostscript for one of PostScript."""
MOST_BYTES = 8
"""Of a pixel: four channels of 16 bits, not compressed."""
MAX_PIXELS = 178_956_970
"""Where Pillow, too, takes a picture for a file made to fill the memory; `$SEGADAPT_MAX_PIXELS` is another number."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture of one of `FORMATS`, in a zip file too, of which only the header has been read.

    Raises SegadaptError that names a file which cannot be read, now or while it is decoded, or has too many pixels.
    """
    most = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and most > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # somebody has asked for it
    with decoding(path), archive.readable(path, MOST_BYTES * most + 2**26) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as failure:
            raise too_large(path, f"more than {most:,} pixels") from failure
        with image:
            if image.width * image.height > most:
                raise too_large(path, f"{image.width}×{image.height} pixels, more than {most:,}")
            yield image


def max_pixels() -> int:
    """The most pixels that a picture may have. Raises UsageError for a `$SEGADAPT_MAX_PIXELS` that is no number."""
    text = os.environ.get("SEGADAPT_MAX_PIXELS") or str(MAX_PIXELS)
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(f"is '{text:.40}'", where="$SEGADAPT_MAX_PIXELS", remedy="Give a number of pixels.")
    return int(text)


def too_large(path: Path | str, size: str) -> SegadaptError:
    """The error for a picture, or a video, of so many pixels."""
    remedy = "Make it smaller, or set SEGADAPT_MAX_PIXELS to a larger number (each pixel takes 3 bytes of memory)."
    return SegadaptError(f"has {size}", where=path, remedy=remedy)


def read_rgb(path: Path, size: tuple[int, int] | None = None, exif: Exif = "turn") -> Image.Image:
    """The image as 8-bit RGB, turned as its EXIF says (or `raw`), resized to `size` (width, height) if given, bicubic.

    Grey, palette and CMYK pictures are converted, alpha is dropped, 16-bit values keep their upper 8 bits; a file of
    several pictures gives its first. The result carries no EXIF. Raises SegadaptError that names a file which cannot
    be read, or has 32-bit or floating-point values.
    """
    with opened(path) as image:
        turn = turn_to_apply(image, exif)
        picture = as_rgb(image, path)
    if turn is not None:
        picture = picture.transpose(turn)
    picture.info.clear()  # some formats would save what is in there, the orientation too
    return picture if size is None or picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


def as_rgb(image: Image.Image, where: Path | str) -> Image.Image:
    """A picture's pixels as RGB, as `read_rgb` has them; transparency, where there is any, does not count.

    Raises SegadaptError that names `where` for 32-bit and floating-point values.
    """
    if image.mode == "RGB":
        image.load()  # `convert` would copy
        return image
    # Pillow has 16-bit grey as I;16, or as I where the format knows no 32 bits; of 16-bit colours it keeps 8 by itself.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode[0] in "IF":
        raise SegadaptError(
            "holds 32-bit or floating-point values, whose range is unknown",
            where=where,
            remedy="Convert it to 8 or 16 bits.",
        )
    image.load()
    image.info.pop("transparency", None)  # Pillow would warn that palettes with it had better become RGBA
    return image.convert("RGB")


def picture_sizes(path: Path) -> Sizes:
    """The sizes of a picture file, stored and turned, from its header. Raises SegadaptError that names the file."""
    with opened(path) as image:
        return sizes_of(image)


def need_equal_sizes(image: Path, label: Path, exif: Exif) -> None:
    """Raise SegadaptError when an image and its label differ in size, with what EXIF has to do with it."""
    of_image, of_label = picture_sizes(image), picture_sizes(label)
    read, wanted = of_image.of(exif), of_label.of(exif)
    if read == wanted:
        return
    explained, remedy = "", "Correct one of them, leave the pair out with an image list, or set size_mismatch: stretch."
    if fits_other_way(of_image, of_label, exif):
        done, other = ("after", "raw") if exif == "turn" else ("before", "turn")
        explained = f" {done} turning it as its EXIF says; with exif: {other} they fit"
        remedy = f"Set exif: {other} (--exif {other}) for this data, or turn its labels."
    raise SegadaptError(
        f"is {wanted[0]}×{wanted[1]}, but its image {image} is {read[0]}×{read[1]}{explained}",
        where=label,
        remedy=remedy,
    )


def fits_other_way(image: Sizes, label: Sizes, exif: Exif) -> bool:
    """Whether an image and its label differ in size with this `exif`, and would not with the other one."""
    other: Exif = "raw" if exif == "turn" else "turn"
    return image.of(exif) != label.of(exif) and image.of(other) == label.of(other)


@dataclass(frozen=True)
class LabelReader:
    """Label files of one encoding -> train ids of a label space."""

    space: LabelSpace
    encoding: str
    form: LabelForm = "ids"
    unknown_ids: UnknownIds = "error"  # what to do with raw ids that the encoding does not know
    exif: Exif = "turn"  # label files with an orientation are treated as images are
    _table: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = np.zeros(256, np.uint8) if self.space.is_rgb(self.encoding) else self.space.table(self.encoding)
        object.__setattr__(self, "_table", table.tobytes())

    def read(self, path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Train ids (H, W) of a label file, resized to `size` (width, height) if given, nearest; 255 ignored.

        Raises SegadaptError for a file that cannot be read, that holds something else than this encoding, or with raw
        ids that the encoding does not know (unless those are ignored).
        """
        return self.known(self.read_raw(path, size), path)

    def known(self, raw: NDArray[np.uint8], where: Path | str) -> NDArray[np.uint8]:
        """Train ids (H, W), 255 ignored, of raw labels as `read_raw` gives them. Raises as `read`, naming `where`."""
        labels = self.look_up(raw)
        if (labels == UNKNOWN).any():
            if self.unknown_ids == "error":
                raise self._unknown(raw, labels, where)
            labels = np.where(labels == UNKNOWN, np.uint8(IGNORE), labels)
        return labels

    def read_raw(self, path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Raw ids (H, W), or colours (H, W, 3) for an encoding of colours."""
        with opened(path) as image:
            turn = turn_to_apply(image, self.exif)
            picture = self.channel(image, path)
            if turn is not None:
                picture = picture.transpose(turn)
            if size is not None and picture.size != size:
                picture = picture.resize(size, Image.Resampling.NEAREST)
            return np.asarray(picture)

    def look_up(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raw labels -> train ids (H, W), 255 for ignored ones and 254 for those that the encoding does not know."""
        if raw.ndim == 3:
            return self.space.decode(raw, self.encoding)
        # bytes.translate is several times faster than indexing a table with an array
        return np.frombuffer(bytearray(raw.tobytes().translate(self._table)), np.uint8).reshape(raw.shape)

    def channel(self, image: Image.Image, path: Path | str) -> Image.Image:
        """The picture that holds the raw labels: mode L or P, or RGB for an encoding of colours. Raises as `read`."""
        if self.space.is_rgb(self.encoding):
            return image.convert("RGB")
        if self.form == "first_of_16_bit":
            return _first_of_16_bit(image, path)
        if image.mode in ("L", "P"):
            image.load()
            return image
        if image.mode == "1":
            return image.convert("L").point(lambda value: value // 255)
        if image.mode in ("I;16", "I;16B", "I"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 255:
                raise SegadaptError(
                    f"holds ids up to {values.max()}, more than 8 bits",
                    where=path,
                    remedy="Give class ids (not instance ids).",
                )
            return Image.fromarray(values.astype(np.uint8))
        if self.form == "first_channel":
            return image.getchannel(0)
        raise SegadaptError(
            f"is a colour image ({image.mode}), but the encoding '{self.encoding}' holds ids",
            where=path,
            remedy="Give label ids, or set `encoding` to one of RGB colours in your label space.",
        )

    def _unknown(self, raw: NDArray[np.uint8], labels: NDArray[np.uint8], path: Path | str) -> SegadaptError:
        found = np.unique(raw[labels == UNKNOWN], axis=0)
        kind = "colours" if raw.ndim == 3 else "ids"
        shown = ", ".join(str(value) for value in found[:5].tolist()) + (", …" if len(found) > 5 else "")
        return SegadaptError(
            f"holds {kind} that encoding '{self.encoding}' of label space '{self.space.name}' does not know: {shown}",
            where=path,
            remedy="Set the right `encoding`, add them to the label space, or set unknown_ids: ignore.",
        )


def _first_of_16_bit(image: Image.Image, path: Path | str) -> Image.Image:
    """First channel of a 16-bit RGB PNG whose values fit in 8 bits (SYNTHIA's GT/LABELS: class, instance, 0).

    Pillow has no 16-bit RGB and keeps the high byte of each big-endian value, which is 0 for class ids. Asking its
    unpacker for little-endian values makes it keep the other one.
    """
    assert isinstance(image, ImageFile)  # what `Image.open` gives; it says where in the file which pixels are
    tiles = image.tile
    if image.format != "PNG" or len(tiles) != 1 or tiles[0][3] not in ("RGB;16B", ("RGB;16B",)):
        raise SegadaptError(
            f"is not a 16-bit RGB PNG ({image.format}, {image.mode})",
            where=path,
            remedy="Use layout synthia for labels with 8-bit class ids.",
        )
    image.tile = [(*tiles[0][:3], "RGB;16L")]  # type: ignore[list-item]  # a plain tuple before Pillow 11
    return image.getchannel(0)

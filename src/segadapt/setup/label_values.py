"""The content of label files before its meaning is known: ids or colours, and the share of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.catalog import LABEL_SUFFIXES, LabelForm, Pair
from segadapt.data.class_colors import Color
from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import load_label_space
from segadapt.data.orientation import Exif
from segadapt.data.reading import LabelReader, opened, picture_sizes
from segadapt.errors import SegadaptError, UsageError
from segadapt.processes import usable_cores

Value = int | Color
"""A raw id, or a colour."""
MOST = 254
"""Number of values that a label space can distinguish: files with more are not labels."""
FLAT = 0.7
"""Minimum share of equal neighbours within a row of a label map; in photographs it is about a tenth."""
NOISE_FROM, NOISE_SHARE = 32, 0.005
"""More values than this, most with a smaller share than that, indicate labels damaged by resizing or JPEG."""
_ROWS = 4  # every fourth row is checked to decide whether it is a label map
_BITS_8 = 256
_PHOTOGRAPH = 100_000
"""More colours than any label map has, even with softened borders."""


@dataclass(frozen=True)
class Seen:
    """A value, and how often it occurs."""

    share: float  # of all pixels
    images: int  # label files that have it
    palette: Color | None = None  # its colour in the files, where they hold ids with a palette


@dataclass(frozen=True)
class LabelValues:
    """The values of some label files."""

    kind: Literal["ids", "colours"]
    values: dict[Value, Seen]  # in order
    looked_at: int
    of: int
    noise: int = 0  # further values with hardly any pixels, which are not classes
    exif: Exif = "turn"  # how images must be read to have the sizes of their labels
    other_size: int = 0  # label files that match their images neither way

    @property
    def all_files(self) -> bool:
        """Whether all label files were read."""
        return self.looked_at == self.of


def looks_like_labels(path: Path) -> bool:
    """Whether a file is a label map: lossless, with few values in flat areas. False for an unreadable file."""
    if path.suffix.lower() not in LABEL_SUFFIXES:
        return False
    try:
        with opened(path) as image:
            raw = _raw(image)[::_ROWS]
    except SegadaptError:
        return False
    if raw.size == 0:
        return False
    flat = float((raw[:, 1:] == raw[:, :-1]).mean()) if raw.shape[1] > 1 else 1.0
    return flat >= FLAT and len(np.unique(raw)) <= _BITS_8


@dataclass(frozen=True)
class _Counted:
    """The values of one label file."""

    path: Path
    kind: str  # "ids" or "colours"
    values: list[int]
    pixels: list[int]
    palette: list[int] | None
    fit: str  # see `_fit`


def read_values(
    pairs: Sequence[Pair],
    most: int,
    form: LabelForm = "ids",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelValues:
    """The values in the label files of some pairs: of all, or of `most`, evenly spread; `form` is their layout's.

    Raises SegadaptError for a file that cannot be read, UsageError for files that do not hold classes.
    """
    labelled = [pair for pair in pairs if pair.label is not None]
    chosen = labelled if len(labelled) <= most else [labelled[k * len(labelled) // most] for k in range(most)]
    pixels, images, palette = Counter[int](), Counter[int](), dict[int, Color]()
    kinds, fits = Counter[str](), Counter[str]()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, found in enumerate(pool.map(partial(_count, form), chosen), start=1):
            for value, count in zip(found.values, found.pixels, strict=True):
                pixels[value] += count
                images[value] += 1
                if found.palette is not None and 3 * value + 3 <= len(found.palette):
                    red, green, blue = found.palette[3 * value : 3 * value + 3]
                    palette.setdefault(value, (red, green, blue))
            kinds[found.kind] += 1
            fits[found.fit] += 1
            if len(pixels) > _PHOTOGRAPH:
                raise UsageError(
                    f"{done} files hold more than {_PHOTOGRAPH:,} colours",
                    where=found.path,
                    remedy="They are no labels.",
                )
            progress(done, len(chosen))
    if len(kinds) > 1:
        raise UsageError(
            f"{kinds['ids']} label files hold ids, {kinds['colours']} hold colours",
            where=chosen[0].label,
            remedy="Write all labels in one way.",
        )
    return _values(kinds, pixels, images, palette, fits, (len(chosen), len(labelled)))


def _count(form: LabelForm, pair: Pair) -> _Counted:
    """The values of a pair's label file, counted."""
    assert pair.label is not None
    kind, raw, colors = _read(pair.label, form)
    if kind == "ids" and raw.size and int(raw.max()) >= _BITS_8:
        raise UsageError(
            f"holds ids up to {int(raw.max())}, more than 8 bits",
            where=pair.label,
            remedy="They are instance ids, or of more classes than 254: write class ids from 0 to 255.",
        )
    if kind == "ids":
        counts = np.bincount(raw.ravel(), minlength=_BITS_8)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(raw, return_counts=True)
    return _Counted(pair.label, kind, values.tolist(), counts.tolist(), colors, _fit(pair))


def _read(path: Path, form: LabelForm) -> tuple[str, NDArray[np.uint32], list[int] | None]:
    """What a label file holds (ids or colours), its values as `_raw` gives them, and its palette if it has one."""
    if form != "ids":  # the layout knows where they are
        return "ids", LabelReader(load_label_space("cityscapes19"), TRAIN, form).read_raw(path).astype(np.uint32), None
    with opened(path) as image:
        _need_8_bits_a_channel(image, path)
        colors = image.getpalette("RGB") if image.mode == "P" else None
        return "ids" if _holds_ids(image) else "colours", _raw(image), colors


def _values(
    kinds: Counter[str],
    pixels: Counter[int],
    images: Counter[int],
    palette: dict[int, Color],
    fits: Counter[str],
    files: tuple[int, int],
) -> LabelValues:
    total = max(1, pixels.total())
    ids = kinds["ids"] > 0
    kept = sorted(pixels)
    if len(kept) > NOISE_FROM:
        much = [value for value in kept if pixels[value] >= NOISE_SHARE * total]
        if (
            len(much) <= NOISE_FROM
            and sum(pixels[value] for value in much) >= 0.9 * total
            and len(kept) > 4 * len(much)
        ):
            kept = much
    values: dict[Value, Seen] = {
        value if ids else _color(value): Seen(pixels[value] / total, images[value], palette.get(value))
        for value in kept
    }
    exif: Exif = "raw" if fits["raw"] > fits["turn"] else "turn"
    return LabelValues(
        "ids" if ids else "colours", values, *files, noise=len(pixels) - len(kept), exif=exif, other_size=fits["none"]
    )


def _fit(pair: Pair) -> str:
    """How an image must be read to have the size of its label: "both" ways, as EXIF says ("turn"), "raw", or "none"."""
    assert pair.label is not None
    image, label = picture_sizes(pair.image), picture_sizes(pair.label)
    turned, raw = image.turn == label.turn, image.raw == label.raw
    return "both" if turned and raw else "turn" if turned else "raw" if raw else "none"


def _holds_ids(image: Image.Image) -> bool:
    return image.mode in ("L", "P", "1") or image.mode.startswith("I")


def _need_8_bits_a_channel(image: Image.Image, path: Path) -> None:
    tiles = getattr(image, "tile", ())
    if image.format == "PNG" and tiles and "RGB;16B" in str(tiles[0][3]):
        raise UsageError(
            "is a 16-bit colour PNG",
            where=path,
            remedy="Layout synthia_original reads SYNTHIA's; write others as 8-bit ids or colours.",
        )
    if image.mode == "F":
        raise UsageError("holds floating-point values", where=path, remedy="Write class ids from 0 to 255.")


def _raw(image: Image.Image) -> NDArray[np.uint32]:
    """Ids, or colours as 0xRRGGBB, (H, W)."""
    if image.mode == "1":
        image = image.convert("L").point(lambda value: value // 255)
    if _holds_ids(image):
        return np.asarray(image).astype(np.uint32)
    rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    return np.asarray(rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2], np.uint32)


def _color(packed: int) -> Color:
    return packed >> 16, packed >> 8 & 255, packed & 255

"""A label map as an image: the formats in which predictions are written.

`train_id`  8-bit grey, train ids, 255 included.
`label_id`  8-bit grey, Cityscapes label ids, as its benchmark server expects; for 19 and 16 classes.
`colour`    8-bit palette in the label space's colours; its indices are the train ids.
`overlay`   RGB: the image with the colours over it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import IGNORE, LabelSpace
from segadapt.errors import UsageError, nearest
from segadapt.files import write_with

Format = Literal["train_id", "label_id", "colour", "overlay"]
FORMATS: tuple[Format, ...] = get_args(Format)
BENCHMARK = "cityscapes"  # the encoding of `label_id`
LOSSLESS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
PICTURES = {**LOSSLESS, ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> Pillow's name of the image formats that can be written; labels only in lossless ones."""
OPACITY = 0.55  # of the colours over the image


def parse_formats(names: str, where: str = "--format") -> tuple[Format, ...]:
    """`"train_id,colour"` -> the formats, in that order. Raises UsageError for an unknown one."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in FORMATS:
            raise UsageError(f"unknown format '{name}'", where=where, remedy=nearest(name, list(FORMATS)))
    if not chosen:
        raise UsageError("names no format", where=where, remedy=f"Choose from {', '.join(FORMATS)}.")
    return tuple(cast(Format, name) for name in dict.fromkeys(chosen))


def save_picture(path: Path, picture: Image.Image, *, lossless: bool = False) -> None:
    """Write an image in the format that the suffix of `path` names, whole or not at all.

    Raises UsageError for another suffix than `PICTURES`, and with `lossless` (labels) for one that changes values.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURES:
        raise UsageError(
            f"'{suffix}' is not an image format" if suffix else "has no suffix",
            where=path,
            remedy=f"Let its name end in {', '.join(LOSSLESS if lossless else PICTURES)}.",
        )
    if lossless and suffix not in LOSSLESS:
        raise UsageError(
            f"{suffix} compression changes pixel values, which would corrupt labels",
            where=path,
            remedy='Save labels as .png; format="overlay" may be .jpg.',
        )
    options = {"compress_level": 6} if suffix == ".png" else {"quality": 95} if suffix not in LOSSLESS else {}
    write_with(path, lambda temporary: picture.save(temporary, format=PICTURES[suffix], **options))


def picture(
    labels: NDArray[np.uint8], space: LabelSpace, form: Format, image: NDArray[np.uint8] | None = None
) -> Image.Image:
    """Train ids (H, W) as an image in one of the formats; `overlay` needs the RGB image (H, W, 3).

    Raises UsageError when the label space has no Cityscapes ids for `label_id`.
    """
    match form:
        case "train_id":
            return Image.fromarray(labels)
        case "label_id":
            table = np.zeros(256, np.uint8)  # ignored pixels become 0, "unlabeled"
            table[: len(space.classes)] = space.raw_ids(BENCHMARK)
            return Image.fromarray(table[labels])
        case "colour":
            coloured = Image.fromarray(labels)
            coloured.putpalette(space.palette.tobytes())  # makes it a palette image
            return coloured
        case "overlay":
            if image is None:
                raise ValueError("an overlay needs the image")
            return overlay(image, labels, space)


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], space: LabelSpace, opacity: float = OPACITY
) -> Image.Image:
    """The image (H, W, 3) with the colours of its labels (H, W) over it; ignored pixels stay as they are."""
    weights = np.where(labels == IGNORE, 0.0, opacity).astype(np.float32)[..., None]
    blended = image * (1 - weights) + space.palette[labels] * weights
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def output_paths(folder: Path, place: Path | str, formats: Sequence[Format]) -> tuple[Path, ...]:
    """The output files of one image: `folder/place.png`, or `folder/FORMAT/place.png` for several formats."""
    if len(formats) == 1:
        return (folder / f"{place}.png",)
    return tuple(folder / form / f"{place}.png" for form in formats)

"""Photographs with an EXIF orientation, and what they show when they are upright."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layouts import picture

UPRIGHT = picture(np.random.default_rng(0), (64, 48))
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT, 2).transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}
"""Orientation -> the pixels that a camera stores for `UPRIGHT` (EXIF 2.32, table of tag 0x0112)."""


def write_photo(path: Path, pixels: np.ndarray, orientation: int | None) -> None:
    """A picture file with an orientation tag."""
    image, exif = Image.fromarray(np.ascontiguousarray(pixels)), Image.Exif()
    path.parent.mkdir(parents=True, exist_ok=True)
    if orientation is None:
        image.save(path, quality=95)
        return
    exif[0x0112] = orientation
    more: dict[str, Any] = {"tiffinfo": {0x0112: orientation}} if path.suffix == ".tif" else {"exif": exif}
    image.save(path, **({"quality": 95} | more))

"""A few samples on one page, image and labels over it, with a legend: do the labels mean what they should?"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import IGNORE
from segadapt.data.reading import read_rgb
from segadapt.data.tools import sheet
from segadapt.data.tools.check import Findings

_OPACITY = 0.55


def contact_sheet(findings: Findings, count: int) -> Image.Image:
    """`count` samples, evenly spread over the split: left the image, right its labels over it; below the class shares.

    Broken samples are left out.
    """
    pairs = [pair for pair in findings.pairs if pair.name not in findings.broken]
    wanted = np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int))
    rows = [_row(pairs[index], findings) for index in wanted.tolist()]
    return sheet.page(rows if findings.reader is None else rows + sheet.legend(_shares(findings)))


def _row(pair: Pair, findings: Findings) -> Image.Image:
    image, reader = read_rgb(pair.image, exif=findings.exif), findings.reader
    pictures = [(pair.name, image)]
    if reader is not None and pair.label is not None:
        overlay = labels_over(image, reader.read(pair.label, image.size), reader.space.palette)
        pictures.append(("", overlay))
    return sheet.row(pictures)


def labels_over(image: Image.Image, labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """The classes' colours over the image; what is ignored becomes nearly black, which no class is."""
    weight = np.where(labels == IGNORE, np.uint8(200), np.uint8(255 * _OPACITY))
    return Image.composite(Image.fromarray(palette[labels]), image, Image.fromarray(weight))


def _shares(findings: Findings) -> Iterator[tuple[list[int], str]]:
    """Colour, name and percent of the pixels of each class, of what is ignored, and of unknown ids if there are any."""
    colors = [*findings.space.colors.tolist(), [0, 0, 0], [0, 0, 0]]
    for color, (name, percent, _) in zip(colors, findings.shares(), strict=True):
        if name != "unknown" or percent:
            yield color, f"{name} {percent:.2f} %"

"""A few samples on one page, image and labels over it, with a legend: do the labels mean what they should?"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segadapt.data.catalog import Pair
from segadapt.data.check import Findings
from segadapt.data.label_spaces import IGNORE
from segadapt.data.reading import LabelReader, read_rgb

_TILE = 480  # width of a picture in pixels
_GAP = 8
_LINE = 20  # height of a line of text
_OPACITY = 0.55
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def contact_sheet(findings: Findings, count: int) -> Image.Image:
    """`count` samples, evenly spread over the split: left the image, right its labels over it; below the class shares.

    Broken samples are left out.
    """
    pairs = [pair for pair in findings.pairs if pair.name not in findings.broken]
    wanted = np.unique(np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int))
    rows = [_row(pairs[index], findings.reader) for index in wanted.tolist()]
    width = max([row.width for row in rows], default=2 * _TILE + _GAP) + 2 * _GAP
    parts = rows + ([] if findings.reader is None else _legend(findings, width - 2 * _GAP))
    sheet = Image.new("RGB", (width, _GAP + sum(part.height + _GAP for part in parts)), _PAPER)
    top = _GAP
    for part in parts:
        sheet.paste(part, (_GAP, top))
        top += part.height + _GAP
    return sheet


def _row(pair: Pair, reader: LabelReader | None) -> Image.Image:
    image = read_rgb(pair.image)
    tiles = [_tile(image)]
    if reader is not None and pair.label is not None:
        tiles.append(_tile(_overlay(image, reader.read(pair.label, image.size), reader.space.palette)))
    row = Image.new("RGB", (len(tiles) * (_TILE + _GAP) - _GAP, tiles[0].height + _LINE), _PAPER)
    ImageDraw.Draw(row).text((0, 2), pair.name, _INK, _font())
    for k, tile in enumerate(tiles):
        row.paste(tile, (k * (_TILE + _GAP), _LINE))
    return row


def _overlay(image: Image.Image, labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """The classes' colours over the image; what is ignored becomes nearly black, which no class is."""
    weight = np.where(labels == IGNORE, np.uint8(200), np.uint8(255 * _OPACITY))
    return Image.composite(Image.fromarray(palette[labels]), image, Image.fromarray(weight))


def _tile(picture: Image.Image) -> Image.Image:
    return picture.resize((_TILE, max(1, round(picture.height * _TILE / picture.width))), Image.Resampling.BOX)


def _legend(findings: Findings, width: int) -> list[Image.Image]:
    """Lines of coloured boxes with class names and their percent of the pixels."""
    column = 190
    per_line = max(1, width // column)
    colors = [*findings.space.colors.tolist(), [0, 0, 0], [0, 0, 0]]  # classes, ignored, unknown
    entries = [
        (tuple(color), f"{name} {percent:.2f} %")
        for color, (name, percent, _) in zip(colors, findings.shares(), strict=True)
        if name != "unknown" or percent
    ]
    lines = []
    for start in range(0, len(entries), per_line):
        line = Image.new("RGB", (width, _LINE), _PAPER)
        draw = ImageDraw.Draw(line)
        for k, (color, text) in enumerate(entries[start : start + per_line]):
            draw.rectangle((k * column, 2, k * column + 22, _LINE - 3), color)
            draw.text((k * column + 28, 2), text, _INK, _font())
        lines.append(line)
    return lines


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)

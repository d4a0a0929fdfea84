"""Rows of pictures with captions on one page: what contact sheets are made of."""

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

TILE = 480  # width of a picture in pixels
_GAP = 8
_LINE = 20  # height of a line of text
_COLUMN = 190  # width of an entry of a legend
_PAPER, _INK = (255, 255, 255), (30, 30, 30)

Color = Sequence[int]


def page(parts: Sequence[Image.Image]) -> Image.Image:
    """The parts (rows, lines of a legend) below each other."""
    width = max((part.width for part in parts), default=0) + 2 * _GAP
    sheet = Image.new("RGB", (width, _GAP + sum(part.height + _GAP for part in parts)), _PAPER)
    top = _GAP
    for part in parts:
        sheet.paste(part, (_GAP, top))
        top += part.height + _GAP
    return sheet


def row(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures side by side, TILE pixels wide, each with its caption above; captions that are too long are cut."""
    tiles = [(caption, _tile(picture)) for caption, picture in pictures]
    height = max(tile.height for _, tile in tiles)
    line = Image.new("RGB", (len(tiles) * (TILE + _GAP) - _GAP, height + _LINE), _PAPER)
    draw = ImageDraw.Draw(line)
    for k, (caption, tile) in enumerate(tiles):
        left = k * (TILE + _GAP)
        draw.text((left, 2), _fitting(caption), _INK, _font())
        line.paste(tile, (left, _LINE))
    return line


def legend(entries: Iterable[tuple[Color, str]], width: int = 2 * TILE + _GAP) -> list[Image.Image]:
    """Lines of coloured boxes with a text each, `width` pixels wide."""
    found = list(entries)
    per_line = max(1, width // _COLUMN)
    lines = []
    for start in range(0, len(found), per_line):
        line = Image.new("RGB", (width, _LINE), _PAPER)
        draw = ImageDraw.Draw(line)
        for k, (color, text) in enumerate(found[start : start + per_line]):
            draw.rectangle((k * _COLUMN, 2, k * _COLUMN + 22, _LINE - 3), (color[0], color[1], color[2]))
            draw.text((k * _COLUMN + 28, 2), text, _INK, _font())
        lines.append(line)
    return lines


def _tile(picture: Image.Image) -> Image.Image:
    size = (TILE, max(1, round(picture.height * TILE / picture.width)))
    return picture.convert("RGB").resize(size, Image.Resampling.BOX)


def _fitting(caption: str) -> str:
    """The caption, with dots for its start where it is wider than a picture: the end of a name tells most."""
    font, cut = _font(), caption
    while font.getlength(cut) > TILE:
        cut = f"…{cut[2:]}"
    return cut


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)

"""The content of an output frame: the frame with the classes over it or beside it, or only the classes, by model."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import UsageError, nearest
from segadapt.inference.formats import OPACITY
from segadapt.video.source import Picture

View = Literal["overlay", "side-by-side", "labels"]
VIEWS: tuple[View, ...] = get_args(View)
ROW = 3
"""Up to so many panels form one row; more form about as many rows as columns."""
SHARE = 24
"""Height of a caption's letters, as a share of the frame's height."""


def parse_view(text: str, where: str = "--view") -> View:
    """One of `VIEWS`. Raises UsageError for another word."""
    if text not in VIEWS:
        raise UsageError(f"unknown view '{text}'", where=where, remedy=nearest(text, list(VIEWS)))
    return text


class Panels:
    """Frames and models' labels -> RGB pictures of one size, set by the first frame and its panels.

    `names` are written over the models' panels if there are several. Width and height are even, which 4:2:0 video
    needs: an odd frame's last column or row is repeated. Frames of another size than the first are scaled to fit.
    `opacity` in 0 … 1 is that of the classes over the frame.
    """

    def __init__(
        self, view: View, spaces: Sequence[LabelSpace], names: Sequence[str], opacity: float = OPACITY
    ) -> None:
        self.view = view
        self.tables = [_Table(space, opacity) for space in spaces]
        self.names = list(names) if len(names) > 1 else []
        self._captions: dict[int, list[Picture]] = {}

    def compose(self, image: Picture, labels: Sequence[Picture], size: tuple[int, int]) -> Picture:
        """uint8 RGB (H, W, 3) and each model's labels (H, W) -> the picture; `size` (W, H) is that of each panel."""
        shown = [] if self.view != "side-by-side" else [image]
        for table, found in zip(self.tables, labels, strict=True):
            shown.append(table.overlay(image, found) if self.view == "overlay" else table.colours(found))
        panels = [_fitted(panel, size) for panel in shown]
        if self.names:
            for panel, caption in zip(panels[-len(self.names) :], self._written(size), strict=True):
                height, width = min(caption.shape[0], size[1]), min(caption.shape[1], size[0])
                panel[:height, :width] = caption[:height, :width]
        return _grid(panels, size)

    def _written(self, size: tuple[int, int]) -> list[Picture]:
        """The names as pictures, for panels of this size; cached."""
        height = size[1]
        if height not in self._captions:
            self._captions[height] = [_caption(name, height) for name in self.names]
        return self._captions[height]


class _Table:
    """A label space's colours, prepared for frames: integers, channel by channel, three times as fast."""

    def __init__(self, space: LabelSpace, opacity: float) -> None:
        self.palette = space.palette
        self.weight = round(opacity * 256)
        self.weighted = self.palette.astype(np.uint16) * self.weight + 128

    def colours(self, labels: Picture) -> Picture:
        """Train ids (H, W) in the classes' colours."""
        return np.stack([self.palette[:, channel][labels] for channel in range(3)], axis=-1)

    def overlay(self, image: Picture, labels: Picture) -> Picture:
        """The image with the colours over it, as `formats.overlay` up to rounding; no pixel is ignored."""
        blended = np.empty_like(image)
        for channel in range(3):
            mixed = image[..., channel] * np.uint16(256 - self.weight)
            mixed += self.weighted[:, channel][labels]
            mixed >>= 8
            blended[..., channel] = mixed
        return blended


def _fitted(panel: Picture, size: tuple[int, int]) -> Picture:
    """A panel fitted into this size (W, H), on black."""
    if (panel.shape[1], panel.shape[0]) == size:
        return panel
    return np.array(ImageOps.pad(Image.fromarray(panel), size, Image.Resampling.BILINEAR))


def _grid(panels: Sequence[Picture], size: tuple[int, int]) -> Picture:
    """Panels in rows from the left, on black, padded to an even width and height by repeating the last line."""
    columns = len(panels) if len(panels) <= ROW else math.ceil(math.sqrt(len(panels)))
    rows = -(-len(panels) // columns)
    width, height = columns * size[0], rows * size[1]
    if len(panels) == 1 and width % 2 == height % 2 == 0:
        return panels[0]
    whole = np.zeros((height + height % 2, width + width % 2, 3), np.uint8)
    for number, panel in enumerate(panels):
        top, left = number // columns * size[1], number % columns * size[0]
        whole[top : top + size[1], left : left + size[0]] = panel
    whole[height:] = whole[height - 1 : height]
    whole[:, width:] = whole[:, width - 1 : width]
    return whole


def _caption(text: str, height: int) -> Picture:
    """White letters on a dark box."""
    size = max(10, height // SHARE)
    font = ImageFont.load_default(size)
    left, _, right, bottom = font.getbbox(text)
    box = Image.new("RGB", (math.ceil(right - left) + size, math.ceil(bottom) + size // 2), (20, 20, 20))
    ImageDraw.Draw(box).text((size // 2 - left, size // 4), text, (255, 255, 255), font)
    return np.asarray(box)

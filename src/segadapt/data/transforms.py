"""Augmentation: random scale, crop, mirror and colour jitter, all off by default (the published programs have none).

Other aspect ratios: an image is stretched to the training size, whatever its own aspect, as both published programs do;
evaluation stretches the logits back to the label's own size, so that nothing is lost. With `keep_aspect` it is fitted
into the training size instead, and a crop makes the images of a batch equal. Augmentation comes after that.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import Field, model_validator

from segadapt.data.label_spaces import IGNORE
from segadapt.settings import Settings, Size

Pixels = NDArray[np.uint8]
Seed = int | tuple[int, ...]
REDRAWS = 10
"""How often a crop is drawn again that does not hold what it should; the last one is taken as it is."""

PADDING_COLOR = (124, 117, 104)
"""Around images that are smaller than the crop: ImageNet's mean RGB, which every pixel format turns into about 0."""

_Strength = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Need:
    """What a crop should hold: more than `pixels` of one class."""

    label: int  # train id
    pixels: float

    def met(self, label: Image.Image) -> bool:
        """Whether a label map holds it."""
        return label.histogram()[self.label] > self.pixels


@dataclass(frozen=True)
class _Window:
    """The visible part of a scaled picture, and its place on the canvas of the crop."""

    box: tuple[float, float, float, float]  # left, top, right, bottom in the picture as it is
    visible: tuple[int, int]  # its size after scaling
    offset: tuple[int, int]
    crop: tuple[int, int]

    def cut(
        self, picture: Image.Image, resampling: Image.Resampling, padding: int | tuple[int, int, int]
    ) -> Image.Image:
        """Scale and crop in one resampling, padded to the crop."""
        part = picture.resize(self.visible, resampling, box=self.box)
        if part.size == self.crop:
            return part
        canvas = Image.new(picture.mode, self.crop, padding)
        canvas.paste(part, self.offset)
        return canvas


class Augmentation(Settings):
    """What training does to its images at random. A label follows its image; padding is ignored (255)."""

    keep_aspect: bool = Field(
        False, description="fit the image into the training size instead of stretching it; needs a `crop`"
    )
    scale: tuple[float, float] | None = Field(
        None,
        description="zoom, drawn uniformly from [smallest, largest], 1 = training size; then cropped or padded to "
        "`crop`",
    )
    crop: Size | None = Field(None, description="[width, height] cut at a random place; default: the training size")
    crop_max_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="a crop that has only one class, or one class on at least this share of its labelled pixels, is "
        f"drawn again, at most {REDRAWS} times; null: accept any crop",
    )
    margins: tuple[_Strength, _Strength, _Strength, _Strength] | None = Field(
        None,
        description="[top, bottom, left, right]: borders, as shares of the image's sides, where labels are ignored and "
        "no pseudo-labels are used (borders left by rectification, the ego vehicle's bonnet)",
    )
    mirror: float = Field(0.0, ge=0, le=1, description="probability of mirroring left and right")
    brightness: _Strength = Field(0.0, description="b: brightness times a factor from [1 - b, 1 + b]")
    contrast: _Strength = Field(0.0, description="as brightness, for contrast")
    saturation: _Strength | tuple[float, float] = Field(
        0.0, description="as brightness, for saturation; or the [smallest, largest] factor, 1 = as it is"
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="h: hue shifted by up to ±h turns of the colour circle")
    cast: _Strength | None = Field(
        None,
        description="c: red, green and blue each times their own factor from [1 - c, 1 + c]: a light of another "
        "colour; null: none",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Augmentation":
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 10:
            raise ValueError("scale must be [smallest, largest] with 0 < smallest ≤ largest ≤ 10")
        if isinstance(self.saturation, tuple) and not 0 <= self.saturation[0] <= self.saturation[1] <= 10:
            raise ValueError("saturation must be one strength or [smallest, largest] with 0 ≤ smallest ≤ largest ≤ 10")
        if self.keep_aspect and self.crop is None:
            raise ValueError("keep_aspect leaves images of several sizes: give the `crop` that makes them equal")
        if self.margins is not None and max(self.margins[0] + self.margins[1], self.margins[2] + self.margins[3]) >= 1:
            raise ValueError("margins leave nothing of the image: opposite ones must add up to less than 1")
        if self.crop_max_share is not None and self.crop is None and self.scale is None:
            raise ValueError("crop_max_share applies to crops: give `crop` or `scale`")
        return self

    def __call__(
        self, image: Pixels, label: Pixels | None, seed: Seed, need: Need | None = None
    ) -> tuple[Pixels, Pixels | None]:
        """Image (H, W, 3) and label (H, W) -> both changed, at the size of `crop` or else their own.

        With `margins` an image without a label has one of 0, and 255 in the margins and in the padding.
        Everything is drawn from `seed`; switching one option leaves the draws of the others as they were. With a `need`
        everything is drawn again until the label holds it, at most REDRAWS times.
        """
        labelled = label is not None
        if self.margins is not None:
            label = _within(self.margins, np.zeros(image.shape[:2], np.uint8) if label is None else label)
        picture, truth = Image.fromarray(image), None if label is None else Image.fromarray(label)
        path = seed if isinstance(seed, tuple) else (seed,)
        for redraw in range(1 + REDRAWS):
            draws = np.random.default_rng((*path, redraw) if redraw else seed).random(11)
            window, placed = self._place(picture.size, truth, draws[:3], (*path, redraw), labelled)
            if not labelled or need is None or placed is None or window is None or need.met(placed):
                break
        if window is not None:
            picture = window.cut(picture, Image.Resampling.BICUBIC, PADDING_COLOR)
        if draws[3] < self.mirror:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            placed = None if placed is None else placed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = self._jitter(picture, draws[4:])
        return np.asarray(picture), None if placed is None else np.asarray(placed)

    def _place(
        self,
        size: tuple[int, int],
        truth: Image.Image | None,
        draws: NDArray[np.float64],
        path: tuple[int, ...],
        labelled: bool,
    ) -> tuple[_Window | None, Image.Image | None]:
        """Where the crop lies, and the label in it; drawn again from `path` while one class has too much of it."""
        for redraw in range(1 + REDRAWS):
            if redraw:
                draws = np.concatenate([draws[:1], np.random.default_rng((*path, redraw)).random(2)])
            window = self._window(size, draws)
            if window is None or truth is None:
                return window, truth
            placed = window.cut(truth, Image.Resampling.NEAREST, IGNORE)
            if self.crop_max_share is None or not labelled or _largest_share(placed) < self.crop_max_share:
                break
        return window, placed

    def _window(self, size: tuple[int, int], draws: NDArray[np.float64]) -> _Window | None:
        """What three draws (zoom, horizontal and vertical place) cut out of a picture of this size; None: all of it."""
        crop = self.crop or size
        smallest, largest = self.scale or (1.0, 1.0)
        zoom = smallest + (largest - smallest) * draws[0]
        box, offsets, visible = [0.0] * 4, [0, 0], [0, 0]
        for axis in (0, 1):
            scaled = max(1, round(size[axis] * zoom))
            room = crop[axis] - scaled
            start = int(draws[1 + axis] * (abs(room) + 1))  # of the crop in the picture, or of the picture in the crop
            visible[axis] = min(scaled, crop[axis])
            offsets[axis] = start if room > 0 else 0
            cut = 0 if room > 0 else start
            box[axis] = cut * size[axis] / scaled
            box[axis + 2] = min((cut + visible[axis]) * size[axis] / scaled, size[axis])
        if crop == size and zoom == 1:
            return None
        left, top, right, bottom = box
        return _Window((left, top, right, bottom), (visible[0], visible[1]), (offsets[0], offsets[1]), crop)

    def _jitter(self, picture: Image.Image, draws: NDArray[np.float64]) -> Image.Image:
        """The picture in other colours; draws (7,): brightness, contrast, saturation, hue, and three of the cast."""
        factors = 2 * draws - 1  # -1 … 1
        if self.cast:
            scales = [1 + self.cast * factor for factor in factors[4:]]
            picture = picture.point([min(255, round(level * scale)) for scale in scales for level in range(256)])
        if self.brightness:
            picture = ImageEnhance.Brightness(picture).enhance(1 + self.brightness * factors[0])
        if self.contrast:
            picture = ImageEnhance.Contrast(picture).enhance(1 + self.contrast * factors[1])
        if self.saturation:
            picture = ImageEnhance.Color(picture).enhance(self._saturation(draws[2]))
        if self.hue:
            turn = round(255 * self.hue * factors[3])
            hue, saturation, value = picture.convert("HSV").split()
            hue = hue.point([(level + turn) % 256 for level in range(256)])
            picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        return picture

    def _saturation(self, draw: float) -> float:
        """The factor for a number drawn from [0, 1)."""
        if isinstance(self.saturation, tuple):
            smallest, largest = self.saturation
            return smallest + (largest - smallest) * draw
        return 1 + self.saturation * (2 * draw - 1)


def _within(margins: tuple[float, float, float, float], label: Pixels) -> Pixels:
    """The label (H, W) with 255 in its margins."""
    height, width = label.shape
    top, bottom, left, right = (
        round(share * side) for share, side in zip(margins, (height, height, width, width), strict=True)
    )
    kept = np.full_like(label, IGNORE)
    inside = slice(top, height - bottom), slice(left, width - right)
    kept[inside] = label[inside]
    return kept


def _largest_share(label: Image.Image) -> float:
    """The most frequent class's share of the labelled pixels; 1 where fewer than two classes occur."""
    counts = label.histogram()[:IGNORE]
    return max(counts) / sum(counts) if sum(count > 0 for count in counts) > 1 else 1.0


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same aspect that fits into the box, each (width, height), rounded half up as by mmcv."""
    factor = min(box[0] / size[0], box[1] / size[1])
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

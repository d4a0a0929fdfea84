"""Augmentation: random scale, crop, mirror and colour jitter, all off by default (the published programs have none).

Other aspect ratios: an image is stretched to the training size, whatever its own aspect, as both published programs do;
evaluation stretches the logits back to the label's own size, so that nothing is lost. Augmentation comes after that.
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import Field, model_validator

from segadapt.data.label_spaces import IGNORE
from segadapt.settings import Settings, Size

Pixels = NDArray[np.uint8]
Seed = int | tuple[int, ...]

PADDING_COLOR = (124, 117, 104)
"""Around images that are smaller than the crop: ImageNet's mean RGB, which every pixel format turns into about 0."""

_Strength = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Settings):
    """What training does to its images at random. A label follows its image; padding is ignored (255)."""

    scale: tuple[float, float] | None = Field(
        None, description="zoom, drawn evenly from [smallest, largest], 1 = training size; then cut or padded to `crop`"
    )
    crop: Size | None = Field(None, description="[width, height] cut at a random place; default: the training size")
    mirror: float = Field(0.0, ge=0, le=1, description="probability of mirroring left and right")
    brightness: _Strength = Field(0.0, description="b: brightness times a factor from [1 - b, 1 + b]")
    contrast: _Strength = Field(0.0, description="as brightness, for contrast")
    saturation: _Strength = Field(0.0, description="as brightness, for saturation")
    hue: float = Field(0.0, ge=0, le=0.5, description="h: hue shifted by up to ±h turns of the colour circle")

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "Augmentation":
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 10:
            raise ValueError("scale must be [smallest, largest] with 0 < smallest ≤ largest ≤ 10")
        return self

    def __call__(self, image: Pixels, label: Pixels | None, seed: Seed) -> tuple[Pixels, Pixels | None]:
        """Image (H, W, 3) and label (H, W) -> both changed, at the size of `crop` or else their own.

        Everything is drawn from `seed`; switching one option leaves the draws of the others as they were.
        """
        draws = np.random.default_rng(seed).random(8)
        picture = Image.fromarray(image)
        truth = None if label is None else Image.fromarray(label)
        picture, truth = self._place(picture, truth, draws[:3])
        if draws[3] < self.mirror:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            truth = None if truth is None else truth.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = self._jitter(picture, draws[4:])
        return np.asarray(picture), None if truth is None else np.asarray(truth)

    def _place(
        self, picture: Image.Image, truth: Image.Image | None, draws: NDArray[np.float64]
    ) -> tuple[Image.Image, Image.Image | None]:
        """Scale and crop in one resampling: the visible part of the scaled picture, padded to the crop."""
        size = picture.size
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
            return picture, truth
        placed = _cut(picture, Image.Resampling.BICUBIC, box, visible, offsets, crop, PADDING_COLOR)
        if truth is None:
            return placed, None
        return placed, _cut(truth, Image.Resampling.NEAREST, box, visible, offsets, crop, IGNORE)

    def _jitter(self, picture: Image.Image, draws: NDArray[np.float64]) -> Image.Image:
        factors = 2 * draws - 1  # -1 … 1: brightness, contrast, saturation, hue
        if self.brightness:
            picture = ImageEnhance.Brightness(picture).enhance(1 + self.brightness * factors[0])
        if self.contrast:
            picture = ImageEnhance.Contrast(picture).enhance(1 + self.contrast * factors[1])
        if self.saturation:
            picture = ImageEnhance.Color(picture).enhance(1 + self.saturation * factors[2])
        if self.hue:
            turn = round(255 * self.hue * factors[3])
            hue, saturation, value = picture.convert("HSV").split()
            hue = hue.point([(level + turn) % 256 for level in range(256)])
            picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        return picture


def _cut(
    picture: Image.Image,
    resampling: Image.Resampling,
    box: list[float],
    visible: list[int],
    offsets: list[int],
    crop: tuple[int, int],
    padding: int | tuple[int, int, int],
) -> Image.Image:
    left, top, right, bottom = box
    part = picture.resize((visible[0], visible[1]), resampling, box=(left, top, right, bottom))
    if part.size == crop:
        return part
    canvas = Image.new(picture.mode, crop, padding)
    canvas.paste(part, (offsets[0], offsets[1]))
    return canvas

"""Strong augmentation (DACS, DAFormer, MIC): colour jitter and blur, each with a probability.

    images = strong(images, draw_strong(seeds, "mixed", settings))

Images are RGB in 0..255 before and after. All random draws are functions of the samples' seeds only.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from segadapt.augment.blur import blur
from segadapt.augment.colour import JitterDraws, draw_jitter, jitter, published_jitter
from segadapt.augment.draw import between, permutation, uniform
from segadapt.losses import precise

SIGMA = (0.15, 1.15)
"""Range of the blur's sigma in pixels."""


class Strength(Protocol):
    """The settings that strong augmentation needs."""

    @property
    def jitter_strength(self) -> float: ...
    @property
    def jitter_probability(self) -> float: ...
    @property
    def blur_probability(self) -> float: ...


@dataclass(frozen=True)
class StrongDraws:
    """The operations on each image of a batch."""

    jitter: JitterDraws
    jittered: Tensor  # (B,) bool
    sigma: Tensor  # (B,) of the blur, in pixels
    blurred: Tensor  # (B,) bool


def draw_strong(
    seeds: Tensor, stream: str, settings: Strength, deciding: Tensor | None = None, alike: bool = False
) -> StrongDraws:
    """Random draws for the samples of `seeds` (B,) int64.

    `deciding`: other seeds (B,) that decide which images are jittered and which blurred (as published, one seed for
    all). `alike`: they also decide order and sigma, so that only the jitter factors differ between images.
    """
    deciding = seeds if deciding is None else deciding
    others = deciding if alike else seeds
    s = settings.jitter_strength
    drawn = draw_jitter(seeds, f"{stream}/jitter", s, s, s, s)
    return StrongDraws(
        replace(drawn, order=permutation(others, f"{stream}/jitter/order", drawn.order.shape[1])),
        uniform(deciding, f"{stream}/jittered") < settings.jitter_probability,
        between(others, f"{stream}/sigma", *SIGMA),
        uniform(deciding, f"{stream}/blurred") < settings.blur_probability,
    )


def strong(images: Tensor, draws: StrongDraws, settings: Strength, published: bool = False) -> Tensor:
    """images (B, 3, H, W) RGB in 0..255, uint8 or float -> the same in floating point, jittered and then blurred.

    `published`: the jitter of kornia 0.5.8 instead of torchvision's. Nothing waits for the device: an operation that is
    not applied to an image is computed and discarded, unless its probability is 0.
    """
    pixels = images if images.is_floating_point() else precise(images)
    if settings.jitter_strength > 0 and settings.jitter_probability > 0:
        changed = (published_jitter if published else jitter)(pixels, draws.jitter)
        pixels = torch.where(draws.jittered[:, None, None, None], changed, pixels)
    if settings.blur_probability > 0:
        pixels = torch.where(draws.blurred[:, None, None, None], blur(pixels, draws.sigma), pixels)
    return pixels

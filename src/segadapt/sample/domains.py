"""The two domains, and their pictures by number."""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from segadapt.sample import looks, styles
from segadapt.sample.street import draw_street

SAMPLE_VERSION = 1
"""Version of the pictures: changes whenever a seed gives other ones (docs/sample-domains.md has figures for each)."""


@dataclass(frozen=True)
class Domain:
    """One look of the street world."""

    palette: styles.Palette
    statistics: styles.Statistics
    look: looks.Look


DOMAINS = {
    "gta5": Domain(styles.SOURCE_PALETTE, styles.SOURCE_STATISTICS, looks.RENDERED),
    "cityscapes": Domain(styles.TARGET_PALETTE, styles.TARGET_STATISTICS, looks.CAMERA),
}


def sample_pair(
    domain: str, split: str, index: int, seed: int = 0, size: tuple[int, int] = (480, 240)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture `index` of a domain ("gta5", "cityscapes") and split: RGB (H, W, 3) and Cityscapes label ids (H, W).

    A pure function of `SAMPLE_VERSION` and its arguments; `size` is (width, height).
    """
    return draw_pair(DOMAINS[domain], Random(f"segadapt sample {SAMPLE_VERSION}/{seed}/{domain}/{split}/{index}"), size)


def draw_pair(style: Domain, rng: Random, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture of any look: RGB (H, W, 3) and Cityscapes label ids (H, W), uint8; `size` is (width, height)."""
    sunny = rng.random() < style.look.sun
    drawing = draw_street(size, style.palette, style.statistics, rng, sunny)
    return looks.develop(drawing, style.look, rng, sunny), drawing.labels

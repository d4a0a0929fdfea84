"""Which pixels of a prediction become pseudo-labels: the most confident ones of each class.

One threshold for all classes would leave out the rare ones, of which a network is never sure (class-balanced
self-training, ECCV 2018). So each class has its own: the confidence that its most confident `keep` share of pixels
reaches, and never more than `certain`. Confidences are counted in 256 levels, so that a histogram over a whole data set
is small, and what is selected follows from the files alone.
"""

import math

import numpy as np
from numpy.typing import NDArray

IGNORE = 255  # as in `segadapt.data.label_spaces`
LEVELS = 256
"""Steps of a confidence: level n is the probability n / 255."""

Labels = NDArray[np.uint8]
Counts = NDArray[np.int64]


def confidence_levels(confidence: NDArray[np.float32]) -> Labels:
    """Probabilities (H, W) in 0..1 -> levels uint8 (H, W) in 0..255."""
    return np.rint(confidence * (LEVELS - 1)).astype(np.uint8)


def count_levels(labels: Labels, levels: Labels, classes: int) -> Counts:
    """Train ids and levels (H, W) -> int64 (C, 256): pixels of each class at each level; ignored ones do not count."""
    counted = labels < classes
    cells = labels[counted].astype(np.int64) * LEVELS + levels[counted]
    return np.bincount(cells, minlength=classes * LEVELS).reshape(classes, LEVELS)


def class_thresholds(counts: Counts, keep: float, certain: float) -> Counts:
    """Counts (C, 256) -> the level (C,) from which pixels of each class are kept.

    The highest level that at least the share `keep` (0..1) of the class's pixels reach, or that of the confidence
    `certain` (0..1) where it is lower. A class without pixels has that of `certain`.
    """
    reaching = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # pixels at a level or above it, never rising
    enough = reaching >= keep * reaching[:, :1]
    thresholds: Counts = np.minimum(enough.sum(axis=1) - 1, math.ceil(certain * (LEVELS - 1)))
    return thresholds


def select(labels: Labels, levels: Labels, thresholds: Counts) -> Labels:
    """Train ids and levels (H, W), thresholds (C,) -> train ids (H, W) with 255 where the level is too low."""
    needed = np.zeros(256, np.int64)
    needed[: len(thresholds)] = thresholds
    return np.where(levels >= needed[labels], labels, np.uint8(IGNORE))


def kept_counts(counts: Counts, thresholds: Counts) -> Counts:
    """Counts (C, 256), thresholds (C,) -> how many pixels of each class (C,) `select` keeps."""
    kept: Counts = np.where(np.arange(LEVELS) >= thresholds[:, None], counts, 0).sum(axis=1)
    return kept

"""The one source of every score: a confusion matrix, and intersection over union from it.

Rules (those of the Cityscapes evaluation tool): counts are summed over all images before anything is divided; pixels
whose label is ignored count for nothing, whatever is predicted there; a class that occurs neither in the labels nor in
the predictions has no score (NaN) and is left out of every mean; a class that is only predicted scores 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segadapt.data.label_spaces import IGNORE

OTHER = "other"
"""The last column, where there is one: predictions of a class that the scored label space does not have."""


class Confusion:
    """Pixel counts (C, K) int64: rows are labels, columns are predictions.

    K = C, or C + 1 with `other=True`: the last column then holds pixels predicted as a class outside the label space
    (train id C in the predictions). Such a pixel is missed by its own class and charged to no other.
    """

    def __init__(self, classes: Sequence[str], other: bool = False, counts: NDArray[np.int64] | None = None) -> None:
        self.classes = tuple(classes)
        self.columns = (*self.classes, OTHER) if other else self.classes
        shape = (len(self.classes), len(self.columns))
        self.counts = np.zeros(shape, np.int64) if counts is None else counts
        if self.counts.shape != shape:
            raise ValueError(f"counts of shape {self.counts.shape} for {shape[0]} classes and {shape[1]} columns")

    def add(self, labels: NDArray[np.uint8], predictions: NDArray[np.uint8]) -> None:
        """Count one image: train ids (H, W), labels with 255 ignored; predictions < K wherever the label counts.

        Raises ValueError when the shapes differ, or when an id is outside the classes.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
        pairs = labels.astype(np.int32) << 8
        pairs |= predictions
        table = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)  # (label, prediction)
        counted = table[: len(self.classes), : len(self.columns)]
        if counted.sum() + table[IGNORE].sum() != labels.size:
            raise ValueError(f"a label or a prediction is outside the {len(self.classes)} classes")
        self.counts += counted

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class, (C,) in percent; NaN for a class in neither labels nor predictions."""
        hits = np.diagonal(self.counts).astype(np.float64)
        labelled = self.counts.sum(axis=1)
        predicted = self.counts[:, : len(self.classes)].sum(axis=0)
        union = labelled + predicted - hits
        scores: NDArray[np.float64] = np.full(hits.shape, math.nan)
        np.divide(100.0 * hits, union, out=scores, where=union > 0)
        return scores

    def miou(self) -> float:
        """Mean IoU in percent over the classes that have a score; NaN when none has."""
        return self.subset(self.classes)

    def subset(self, names: Sequence[str]) -> float:
        """Mean IoU in percent over those of `names` that have a score: the same counts, fewer classes in the mean.

        Raises ValueError for a name that is no class here.
        """
        unknown = sorted(set(names) - set(self.classes))
        if unknown:
            raise ValueError(f"no such classes: {', '.join(unknown)}")
        scores = self.iou()[[self.classes.index(name) for name in names]]
        scores = scores[~np.isnan(scores)]
        return float(scores.mean()) if len(scores) else math.nan

    def per_class(self) -> dict[str, float | None]:
        """Class name -> IoU in percent, None for a class without a score: as JSON has it."""
        return {
            name: None if math.isnan(score) else float(score)
            for name, score in zip(self.classes, self.iou(), strict=True)
        }

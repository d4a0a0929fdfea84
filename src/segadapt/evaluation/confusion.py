"""The one source of every score: a confusion matrix, and intersection over union, Dice and accuracy from it.

Rules (those of the Cityscapes evaluation tool): counts are summed over all images before anything is divided; pixels
whose label is ignored do not count, whatever is predicted there; a class that occurs neither in the labels nor in
the predictions has no score (NaN) and is left out of every mean; a class that is only predicted scores 0.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segadapt.counting import occurrences
from segadapt.data.label_spaces import IGNORE

IDS = 256
"""Number of values of a uint8."""
OTHER = "other"
"""The last column, where there is one: predictions of a class that the scored label space does not have."""


class Confusion:
    """Pixel counts (C, K) int64: rows are labels, columns are predictions.

    K = C, or C + 1 with `other=True`: the last column then holds pixels predicted as a class outside the label space
    (train id C in the predictions). Such a pixel is a miss for its own class and a false positive for no other.
    """

    def __init__(self, classes: Sequence[str], other: bool = False, counts: NDArray[np.int64] | None = None) -> None:
        self.classes = tuple(classes)
        self.columns = (*self.classes, OTHER) if other else self.classes
        shape = (len(self.classes), len(self.columns))
        self._counts = np.zeros(shape, np.int64) if counts is None else counts
        self._on_device: Tensor | None = None  # (C + 2, K + 1) int64, see `add_on_device`; not yet in `counts`
        if self._counts.shape != shape:
            raise ValueError(f"counts of shape {self._counts.shape} for {shape[0]} classes and {shape[1]} columns")

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels per (label, prediction), (C, K). Waits for counts on a device; raises as `add` does."""
        if self._on_device is not None:
            table, self._on_device = self._on_device.cpu().numpy(), None
            self._include(table, ignored=len(self.classes))
        return self._counts

    def add(self, labels: NDArray[np.uint8], predictions: NDArray[np.uint8]) -> None:
        """Count one image: train ids (H, W), labels with 255 ignored; predictions < K wherever the label counts.

        Raises ValueError when the shapes differ, or when an id is outside the classes.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
        pairs = labels.astype(np.int32) << 8
        pairs |= predictions
        self._include(np.bincount(pairs.ravel(), minlength=IDS * IDS).reshape(IDS, IDS), ignored=IGNORE)

    def add_on_device(self, labels: Tensor, predictions: Tensor) -> None:
        """As `add`, uint8 tensors (H, W) on one device, for which the host does not wait (as `bincount` would).

        Invalid ids raise when `counts` is read. Raises ValueError when the shapes differ.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels {tuple(labels.shape)} and predictions {tuple(predictions.shape)} differ in shape")
        # Few cells, in many tables: a row for ignored labels, and one row and column for ids that are
        # outside the classes.
        classes, columns = len(self.classes), len(self.columns)
        rows = labels.int().clamp_(max=classes).add_((labels >= classes) & (labels != IGNORE))
        places = rows.mul_(columns + 1).add_(predictions.int().clamp_(max=columns))
        counted = occurrences(places, (classes + 2) * (columns + 1)).view(classes + 2, columns + 1)
        self._on_device = counted if self._on_device is None else self._on_device.add_(counted)

    def _include(self, table: NDArray[np.int64], ignored: int) -> None:
        """Add the counts of a table whose first rows are the classes, and whose first columns are the predictions.

        Its row `ignored` is dropped, and anything elsewhere is an error.
        """
        counted = table[: len(self.classes), : len(self.columns)]
        if counted.sum() + table[ignored].sum() != table.sum():
            raise ValueError(f"a label or a prediction is outside the {len(self.classes)} classes")
        self._counts += counted

    def merge(self, other: "Confusion") -> None:
        """Add the counts of another one of the same classes; counts on a device stay there."""
        self._counts += other._counts
        if other._on_device is not None:
            self._on_device = (
                other._on_device.clone() if self._on_device is None else self._on_device.add_(other._on_device)
            )

    def table(self) -> Tensor:
        """The counts (C, K) int64 of valid ids on their device, without waiting for it."""
        counts = torch.from_numpy(self._counts)
        if self._on_device is None:
            return counts.clone()
        on_device = self._on_device[: counts.shape[0], : counts.shape[1]]
        return (
            on_device + counts.to(on_device.device) if self._counts.any() else on_device.clone()
        )  # no copy to wait for

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class, (C,) in percent; NaN for a class in neither labels nor predictions."""
        hits, labelled, predicted = self._sums()
        return _percent(hits, labelled + predicted - hits)

    def dice(self) -> NDArray[np.float64]:
        """Dice (F1) per class, 2 · hits / (labelled + predicted), (C,) in percent; NaN as for `iou`."""
        hits, labelled, predicted = self._sums()
        return _percent(2 * hits, labelled + predicted)

    def accuracy(self) -> NDArray[np.float64]:
        """The share of a class's labelled pixels that are predicted as it, (C,) in percent; NaN without such pixels."""
        hits, labelled, _ = self._sums()
        return _percent(hits, labelled)

    def pixel_accuracy(self) -> float:
        """The share of all labelled pixels that are right, in percent; NaN without any."""
        hits, labelled, _ = self._sums()
        return float(_percent(hits.sum(keepdims=True), labelled.sum(keepdims=True))[0])

    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Pixels per class, each (C,): rightly predicted, labelled, predicted."""
        counts = self.counts
        return np.diagonal(counts), counts.sum(axis=1), counts[:, : len(self.classes)].sum(axis=0)

    def miou(self) -> float:
        """Mean IoU in percent over the classes that have a score; NaN when none has."""
        return mean_score(self.iou())

    def subset(self, names: Sequence[str]) -> float:
        """Mean IoU in percent over those of `names` that have a score: the same counts, fewer classes in the mean.

        Raises ValueError for a name that is not a class here.
        """
        unknown = sorted(set(names) - set(self.classes))
        if unknown:
            raise ValueError(f"no such classes: {', '.join(unknown)}")
        return mean_score(self.iou()[[self.classes.index(name) for name in names]])

    def by_class(self, scores: NDArray[np.float64]) -> dict[str, float | None]:
        """Class name -> its score of (C,), None for a class without one, for JSON."""
        return {
            name: None if math.isnan(score) else float(score) for name, score in zip(self.classes, scores, strict=True)
        }


def mean_score(scores: NDArray[np.float64]) -> float:
    """The mean over the classes that have a score; NaN when none has."""
    found = scores[~np.isnan(scores)]
    return float(found.mean()) if len(found) else math.nan


def _percent(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Parts of wholes in percent; NaN where the whole is 0."""
    shares: NDArray[np.float64] = np.full(parts.shape, math.nan)
    np.divide(100.0 * parts, wholes, out=shares, where=wholes > 0)
    return shares

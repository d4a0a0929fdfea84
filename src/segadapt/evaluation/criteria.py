"""Choosing a model without labels: a criterion, and how well it agrees with the score that it stands in for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class InfoMax:
    """H(mean p) - mean H(p) over all pixels of unlabelled images, in nats: 0 … log C, higher is better.

    High when single predictions are sure (second term) and all classes are used (first term): the mutual information
    between image and prediction (Bridle et al., NIPS 1991; as criterion for domain adaptation: Musgrave et al., 2022,
    arXiv 2208.07360). Softmax maps at the network's native stride, one image at a time.
    """

    def __init__(self) -> None:
        self._sum_p: Tensor | None = None  # (C,) float64 on the device
        self._sum_entropy: Tensor | None = None
        self._pixels = 0

    def add(self, logits: Tensor) -> None:
        """Count the pixels of logits (B, C, h, w)."""
        log_p = logits.float().log_softmax(dim=1)
        p = log_p.exp()
        sum_p = p.sum(dim=(0, 2, 3), dtype=torch.float64)
        sum_entropy = -(p * log_p).sum(dtype=torch.float64)
        self._sum_p = sum_p if self._sum_p is None else self._sum_p + sum_p
        self._sum_entropy = sum_entropy if self._sum_entropy is None else self._sum_entropy + sum_entropy
        self._pixels += logits.shape[0] * logits.shape[2] * logits.shape[3]

    def value(self) -> float:
        """The criterion over all pixels so far; NaN before the first."""
        if self._sum_p is None or self._sum_entropy is None:
            return math.nan
        mean_p = self._sum_p / self._pixels
        return float(torch.special.entr(mean_p).sum() - self._sum_entropy / self._pixels)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation in -1 … 1, ties on their average rank; NaN below two points or without any order."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values cannot be compared")
    a, b = _centred_ranks(first), _centred_ranks(second)
    spread = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / spread if spread else math.nan


def _centred_ranks(values: Sequence[float]) -> list[float]:
    """Ranks minus their mean: #smaller + #equal / 2 - n / 2."""
    return [
        sum(other < value for other in values) + sum(other == value for other in values) / 2 - len(values) / 2
        for value in values
    ]


def agreement(points: Sequence[tuple[float, float]]) -> dict[str, object] | None:
    """How well InfoMax ordered the evaluations of one training: `label_free` of evaluation.json.

    `points` are (InfoMax, target mIoU) pairs; None when there are fewer than two, or no order to compare.
    """
    correlation = spearman([infomax for infomax, _ in points], [miou for _, miou in points])
    if math.isnan(correlation):
        return None
    return {"criterion": "infomax", "spearman": correlation, "points": len(points)}

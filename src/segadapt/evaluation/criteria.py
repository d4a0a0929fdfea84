"""Choosing a model without labels: criteria, and how well they agree with the score that they stand in for.

All see softmax maps of target images at the network's native stride, one image at a time, and higher is better.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Criterion(Protocol):
    """A number about predictions that needs no label."""

    def add(self, logits: Tensor) -> None:
        """Take in logits (B, C, h, w)."""

    def value(self) -> float:
        """The criterion over all so far; NaN before the first."""


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


class NeighbourhoodDensity:
    """Soft neighbourhood density, in nats: 0 … log(POSITIONS - 1), higher is better (SND; Saito et al., ICCV 2021).

    The entropy of each position's similarities to the others, as probabilities: high when each has many that are
    predicted alike, as clusters have. Similarity is the cosine of softmax vectors, over the published temperature of
    0.05. Each image has `POSITIONS` of its own, evenly spread, or all that it has; the value is the images' mean.
    """

    POSITIONS = 1024
    TEMPERATURE = 0.05

    def __init__(self) -> None:
        self._sum: Tensor | None = None  # over images, float64 on the device
        self._images = 0

    def add(self, logits: Tensor) -> None:
        """Take in logits (B, C, h, w)."""
        p = logits.float().softmax(dim=1).flatten(2)  # (B, C, h·w)
        count = min(self.POSITIONS, p.shape[2])
        if count < 2:
            return  # no neighbours
        p = torch.nn.functional.normalize(p[..., torch.arange(count, device=p.device) * p.shape[2] // count], dim=1)
        similarity = (p.mT @ p) / self.TEMPERATURE  # (B, n, n)
        similarity.diagonal(dim1=1, dim2=2).fill_(-math.inf)  # nobody is his own neighbour
        entropies = torch.special.entr(similarity.softmax(dim=2)).sum(dim=2).mean(dim=1, dtype=torch.float64)
        self._sum = entropies.sum() if self._sum is None else self._sum + entropies.sum()
        self._images += logits.shape[0]

    def value(self) -> float:
        """The criterion over all images so far; NaN before the first."""
        return math.nan if self._sum is None else float(self._sum) / self._images


class NuclearNorm:
    """Nuclear norm of the matrix of all softmax vectors over its largest possible value: 0 … 1, higher is better.

    High when single predictions are sure and all classes are used (BNM; Cui et al., CVPR 2020; as a criterion: Musgrave
    et al., 2022). Over all pixels at once: the singular values of P (N, C) are the roots of the eigenvalues of PᵀP.
    """

    def __init__(self) -> None:
        self._gram: Tensor | None = None  # PᵀP, (C, C) float64 on the device
        self._pixels = 0

    def add(self, logits: Tensor) -> None:
        """Count the pixels of logits (B, C, h, w)."""
        p = logits.double().softmax(dim=1).flatten(2)  # the roots of small eigenvalues would show float32's rounding
        gram = (p @ p.mT).sum(dim=0)
        self._gram = gram if self._gram is None else self._gram + gram
        self._pixels += p.shape[0] * p.shape[2]

    def value(self) -> float:
        """The criterion over all pixels so far; NaN before the first."""
        if self._gram is None:
            return math.nan
        eigenvalues = torch.linalg.eigvalsh(self._gram.cpu()).clamp(min=0)
        return float(eigenvalues.sqrt().sum()) / math.sqrt(self._pixels * len(self._gram))


CRITERIA: dict[str, Callable[[], Criterion]] = {
    "infomax": InfoMax,
    "snd": NeighbourhoodDensity,
    "bnm": NuclearNorm,
}
"""What a recipe's `criterion` can say -> the criterion. metrics.jsonl has each as `val/NAME`."""


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


def agreement(points: Mapping[str, Sequence[tuple[float, float]]], chosen: str) -> dict[str, object] | None:
    """How well each criterion ordered the evaluations of one training: `label_free` of evaluation.json.

    `points`: (value, target mIoU) by criterion; `chosen`: the one that `select: label_free` goes by. None when that has
    fewer than two points, or no order to compare.
    """
    found = {
        name: spearman([value for value, _ in own], [miou for _, miou in own]) for name, own in points.items() if own
    }
    correlations = {name: correlation for name, correlation in found.items() if not math.isnan(correlation)}
    if chosen not in correlations:
        return None
    return {
        "criterion": chosen,
        "spearman": correlations[chosen],
        "points": len(points[chosen]),
        "criteria": correlations,
    }

"""Choosing a model without labels: criteria, and how well they agree with the score that they stand in for.

All see softmax maps of target images at the network's native stride, and higher is better. Each
is a function of sums over images, so that several processes can see some of the images each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Criterion(ABC):
    """A label-free score of predictions, from sums over images: the sums of parts add up to those of all.

    `sums`: sums from elsewhere, as the property `sums` returns them; None: nothing yet.
    """

    def __init__(self, classes: int, sums: Tensor | None = None) -> None:
        self.classes = classes
        self._sums = torch.zeros(self.length, dtype=torch.float64) if sums is None else sums
        if self._sums.shape != (self.length,):
            raise ValueError(f"sums of shape {tuple(self._sums.shape)}, not ({self.length},), for {classes} classes")

    def add(self, logits: Tensor) -> None:
        """Add logits (B, C, h, w), on any device, without waiting for it."""
        self._sums = self._sums.to(logits.device) + self._of(logits)

    @property
    def sums(self) -> Tensor:
        """The sums so far, (length,) float64 on the CPU. Waits for a device."""
        return self._sums.cpu()

    @property
    @abstractmethod
    def length(self) -> int:
        """Number of sums."""

    @abstractmethod
    def _of(self, logits: Tensor) -> Tensor:
        """The sums of logits (B, C, h, w), on their device: (length,) float64, the last one a count."""

    def value(self) -> float:
        """The criterion over all images so far; NaN before the first."""
        sums = self.sums
        return self._value(sums[:-1], float(sums[-1])) if sums[-1] else math.nan

    @abstractmethod
    def _value(self, sums: Tensor, count: float) -> float:
        """The criterion from the sums, of which the last is given separately."""


class InfoMax(Criterion):
    """H(mean p) - mean H(p) over all pixels of unlabelled images, in nats: 0 … log C, higher is better.

    High when single predictions are sure (second term) and all classes are used (first term): the mutual information
    between image and prediction (Bridle et al., NIPS 1991; as criterion for domain adaptation: Musgrave et al., 2022,
    arXiv 2208.07360). Softmax maps at the network's native stride.
    """

    @property
    def length(self) -> int:
        """Probabilities of each class, entropies, pixels."""
        return self.classes + 2

    def _of(self, logits: Tensor) -> Tensor:
        log_p = logits.float().log_softmax(dim=1)
        p = log_p.exp()
        sum_p = p.sum(dim=(0, 2, 3), dtype=torch.float64)
        return _joined(sum_p, -(p * log_p).sum(dtype=torch.float64), count=p[:, 0].numel())

    def _value(self, sums: Tensor, count: float) -> float:
        mean_p, mean_entropy = sums[:-1] / count, sums[-1] / count
        return float(torch.special.entr(mean_p).sum() - mean_entropy)


class NeighbourhoodDensity(Criterion):
    """Soft neighbourhood density, in nats: 0 … log(POSITIONS - 1), higher is better (SND; Saito et al., ICCV 2021).

    The entropy of each position's similarities to the others, taken as probabilities: high when many others are
    predicted alike, as in clusters. Similarity is the cosine of softmax vectors, divided by the published temperature
    of 0.05. Each image contributes `POSITIONS` evenly spread positions, or all that it has; the value is the mean over
    images.
    """

    POSITIONS = 1024
    TEMPERATURE = 0.05

    @property
    def length(self) -> int:
        """Entropies, images."""
        return 2

    def _of(self, logits: Tensor) -> Tensor:
        p = logits.float().softmax(dim=1).flatten(2)  # (B, C, h·w)
        count = min(self.POSITIONS, p.shape[2])
        if count < 2:
            return torch.zeros(2, dtype=torch.float64, device=p.device)  # no neighbours
        p = torch.nn.functional.normalize(p[..., torch.arange(count, device=p.device) * p.shape[2] // count], dim=1)
        similarity = (p.mT @ p) / self.TEMPERATURE  # (B, n, n)
        similarity.diagonal(dim1=1, dim2=2).fill_(-math.inf)  # no position is its own neighbour
        entropies = torch.special.entr(similarity.softmax(dim=2)).sum(dim=2).mean(dim=1, dtype=torch.float64)
        return _joined(entropies.sum(), count=len(entropies))

    def _value(self, sums: Tensor, count: float) -> float:
        return float(sums) / count


class NuclearNorm(Criterion):
    """Nuclear norm of the matrix of all softmax vectors over its largest possible value: 0 … 1, higher is better.

    High when single predictions are confident and all classes are used (BNM; Cui et al., CVPR 2020; as a criterion:
    Musgrave et al., 2022). Over all pixels at once: the singular values of P (N, C) are the roots of the eigenvalues of
    PᵀP.
    """

    @property
    def length(self) -> int:
        """PᵀP, pixels."""
        return self.classes**2 + 1

    def _of(self, logits: Tensor) -> Tensor:
        p = logits.double().softmax(dim=1).flatten(2)  # roots of small eigenvalues would amplify float32 rounding
        return _joined((p @ p.mT).sum(dim=0), count=p[:, 0].numel())

    def _value(self, sums: Tensor, count: float) -> float:
        eigenvalues = torch.linalg.eigvalsh(sums.view(self.classes, self.classes)).clamp(min=0)
        return float(eigenvalues.sqrt().sum()) / math.sqrt(count * self.classes)


def _joined(*sums: Tensor, count: int) -> Tensor:
    """Sums of any shape and a count as one vector, made without a copy from the host."""
    return torch.cat([*(own.flatten() for own in sums), sums[0].new_full((1,), count)])


CRITERIA: dict[str, type[Criterion]] = {
    "infomax": InfoMax,
    "snd": NeighbourhoodDensity,
    "bnm": NuclearNorm,
}
"""Value of a recipe's `criterion` -> the criterion. In metrics.jsonl each is `val/NAME`."""


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

    `points`: (value, target mIoU) by criterion; `chosen`: the one that `select: label_free` uses. None when that has
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

"""Losses as pure functions of tensors of equal size. They return sums and counts, never means.

Why: a mean over labelled pixels is not the mean of the ranks' means. The update divides the sum by the count of all
ranks and micro-batches, so that a loss has the same value however its batch is distributed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255
"""The train id of ignored pixels."""


@dataclass(frozen=True)
class Loss:
    """One term: weight · sum / count.

    A count that follows from shapes is a plain number, the same for every micro-batch of every rank. A count that
    depends on the data (labelled pixels, a mask) is a tensor.
    """

    sum: Tensor  # scalar float32, carries the gradient
    count: Tensor | float  # a tensor is a scalar float32 without gradient
    weight: float | Tensor = 1.0  # a tensor is a scalar that changes from step to step

    def __rmul__(self, weight: float | Tensor) -> "Loss":
        """`weight * term` sets its weight in the total; the reported value is that of the term itself."""
        return replace(self, weight=weight * self.weight)

    def plus(self, other: "Loss", share: float = 1.0) -> "Loss":
        """This term plus `share` times another one with the same count, as one named value.

        With different counts the sum of the means would not be the mean of the sums: AssertionError if both are known
        on the host; on a GPU, to avoid waiting for it, the term becomes NaN, which ends the training.
        """
        return replace(self, sum=self.sum + share * other.sum, count=_one_count(self.count, other.count))

    def times(self, factor: float) -> "Loss":
        """`factor` times this term: a factor of its definition, not of its place in the total."""
        return replace(self, sum=factor * self.sum)


def _one_count(a: Tensor | float, b: Tensor | float) -> Tensor | float:
    """The count of two terms that have the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a == b
        assert a.device.type != "cpu" or bool(same), f"counts differ: {a:g} and {b:g}"
        return torch.where(same, a, torch.nan)
    assert not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b, f"counts differ: {a} and {b}"
    return a


def precise(values: Tensor) -> Tensor:
    """In PyTorch's default dtype: float32, whatever autocast has made of it (float64 in tests that set it so)."""
    return values.to(torch.get_default_dtype())


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Loss:
    """Cross-entropy over the labelled pixels; `class_weights` (C,) weight each pixel by its class.

    logits (B, C, H, W) float; labels (B, H, W) integer train ids, 255 = ignored. The count is the number of labelled
    pixels, or the sum of their weights (PyTorch's weighted mean; SE-GAN, the class-balanced loss).
    """
    assert logits.shape[-2:] == labels.shape[-2:], "losses never resize"
    total = F.cross_entropy(precise(logits), labels.long(), class_weights, ignore_index=IGNORE, reduction="sum")
    return Loss(total, labelled_pixels(labels, class_weights))


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Loss:
    """Cross-entropy of each pixel times its weight, mean over all pixels (DACS: for labels that may be wrong).

    logits (B, C, H, W) float; labels (B, H, W) integer train ids; weights (B, H, W) in 0..1. The count includes all
    pixels, so that low confidence gives a small loss; an ignored pixel (255) adds no loss but is counted.
    """
    assert logits.shape[-2:] == labels.shape[-2:], "losses never resize"
    each = F.cross_entropy(precise(logits), labels.long(), ignore_index=IGNORE, reduction="none")
    return Loss((weights * each).sum(), float(labels.numel()))


def labelled_pixels(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The count of `cross_entropy` for these labels (B, H, W), known without a pass of the network: a scalar."""
    labelled = labels != IGNORE
    if class_weights is None:
        return precise(labelled.sum())
    # `where` keeps the look-up inside the table: 255 has no weight.
    weights = class_weights[torch.where(labelled, labels, 0).long()]
    return (weights * labelled).sum()


def masked_squared_error(given: Tensor, wanted: Tensor, mask: Tensor) -> Loss:
    """Squared error of two tensors over the pixels of a mask and all channels (SEAN, the consistency loss).

    given, wanted (B, C, H, W) float, no gradient flows to `wanted`; mask (B, 1, H, W) bool. The count is masked
    pixels · C; if no pixel is masked, sum and count are 0, and the term is 0.
    """
    error = (precise(given) - precise(wanted.detach())).square().sum(1, keepdim=True)  # (B, 1, H, W)
    # `where`, not indexing: a boolean index would wait for the GPU, and every rank must have the same graph.
    total = torch.where(mask, error, torch.zeros_like(error)).sum()
    return Loss(total, masked_values(mask, given.shape[1]))


def masked_values(mask: Tensor, channels: int) -> Tensor:
    """The count of `masked_squared_error`: masked pixels of (B, 1, H, W) times channels, a scalar."""
    return precise(mask.sum()) * channels


def squared_error(given: Tensor, wanted: Tensor) -> Loss:
    """Squared error of two tensors of equal shape, mean over all values (SE-GAN, consistency; TGSTN, perceptual loss).

    given, wanted (B, C, H, W) float; no gradient flows to `wanted`.
    """
    total = (precise(given) - precise(wanted.detach())).square().sum()
    return Loss(total, float(given.numel()))


Domain = Literal["source", "target"]
DOMAIN_LABELS: dict[Domain, float] = {"source": 0.0, "target": 1.0}


def domain_loss(answers: Tensor, domain: Domain, least_squares: bool = False) -> Loss:
    """How far a discriminator's answers are from predicting `domain`: binary cross-entropy with logits, or MSE.

    answers (B, 1, h, w): its logits. Each image contributes its mean and counts once, so that terms of images of
    different sizes can be added. Source is 0, target 1.
    """
    answers = precise(answers)
    wanted = torch.full_like(answers, DOMAIN_LABELS[domain])
    compare = F.mse_loss if least_squares else F.binary_cross_entropy_with_logits
    pixels = answers[0].numel()
    return Loss(compare(answers, wanted, reduction="sum") / pixels, float(len(answers)))


def joint(term: Callable[[int], Loss], heads: int, auxiliary: float) -> Loss:
    """The terms of a network's heads as one: that of the main (last) head + `auxiliary` · those of the others.

    `term(i)` returns the term of head i; if `auxiliary` is 0, nothing is computed for the auxiliary heads.
    """
    total = term(heads - 1)
    for i in range(heads - 1 if auxiliary else 0):
        total = total.plus(term(i), auxiliary)
    return total


def head_numbers(heads: int) -> range:
    """The papers' numbers of heads 0 … `heads` - 1, the main one last: 1 and 2; a single head is 2, the main one."""
    return range(1, heads + 1) if heads > 1 else range(2, 3)

"""Losses as pure functions of maps of one size. They return sums and counts, never means.

Why: a mean over labelled pixels is not the mean of the ranks' means. Whoever minimizes divides the sum by the count of
all ranks and all accumulation steps, so that a loss has the same value however its batch is spread.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255
"""The train id that counts for nothing."""


@dataclass(frozen=True)
class Loss:
    """One term: weight · sum / count."""

    sum: Tensor  # scalar float32, carries the gradient
    count: Tensor  # scalar float32 without gradient
    weight: float = 1.0

    def weighted(self, weight: float) -> "Loss":
        """The same term with another weight in the total."""
        return replace(self, weight=weight)


def cross_entropy(logits: Tensor, labels: Tensor) -> Loss:
    """Cross-entropy over the labelled pixels (the segmentation loss of both papers without class weights).

    logits (B, C, H, W) float; labels (B, H, W) integer train ids, 255 = ignored.
    """
    assert logits.shape[-2:] == labels.shape[-2:], "losses never resize"
    total = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="sum")
    return Loss(total, (labels != IGNORE).sum().float())


def masked_squared_error(maps: Tensor, wanted: Tensor, mask: Tensor) -> Loss:
    """Squared error of two maps over the pixels of a mask and all channels (SEAN, the consistency loss).

    maps, wanted (B, C, H, W) float, no gradient flows to `wanted`; mask (B, 1, H, W) bool. The count is masked
    pixels · C; with no masked pixel sum and count are 0, and the term counts as 0.
    """
    error = (maps.float() - wanted.detach().float()).square().sum(1, keepdim=True)  # (B, 1, H, W)
    # `where`, not indexing: a boolean index would wait for the GPU, and every rank must have the same graph.
    total = torch.where(mask, error, torch.zeros_like(error)).sum()
    return Loss(total, mask.sum().float() * maps.shape[1])

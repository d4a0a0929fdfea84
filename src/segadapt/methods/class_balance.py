"""Running class weights: rare classes count more (SE-GAN, TMM 2022, the class-balanced loss)."""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from segadapt.counting import occurrences
from segadapt.losses import IGNORE, precise
from segadapt.methods.method import Update
from segadapt.methods.settings import SegmenterSettings

RARE = 7.0
"""The weight of a class that is rare in this batch, and of one that is absent from many."""
INERTIA = 0.9
"""Inertia of the running weight."""


class BalancedSettings(SegmenterSettings):
    """Settings shared by the methods with the class-balanced loss."""

    balance: bool = Field(True, description="class-balanced cross-entropy; false: the plain mean over labelled pixels")
    rare_share: float = Field(
        0.0044, ge=0, le=1, description="a class with a smaller share of the batch's pixels is rare: weight 7"
    )
    rare_pixels: PositiveInt | None = Field(
        None, description="instead of `rare_share`: this many pixels per image (published: 4096, whatever the size)"
    )


class ClassBalance(nn.Module):
    """w_c = (7 if c is rare in this batch, else 1) · r_c,  r_c ← 0.9 r_c + 0.1 · (7 if c is absent, else 1) before use.

    The running weight r (C,) starts at 1 and is part of a training's checkpoint.
    """

    running: Tensor

    def __init__(self, classes: int, settings: BalancedSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("running", torch.ones(classes))

    def of_batch(self, labels: Tensor, update: Update) -> Tensor | None:
        """The class weights (C,) of a batch whose share on this rank is labels (B, H, W); None without balance."""
        if not self.settings.balance:
            return None
        return self.weights(update.over_ranks(class_counts(labels)), self.settings.batch)

    @torch.no_grad()
    def weights(self, counts: Tensor, batch: int) -> Tensor:
        """Pixels per train id of the whole batch (256,), over all ranks -> the batch's class weights (C,)."""
        mine, everything = precise(counts[: len(self.running)]), precise(counts.sum())
        self.running.mul_(INERTIA).add_(torch.where(mine == 0, RARE, 1.0), alpha=1 - INERTIA)
        if self.settings.rare_pixels is not None:
            few = torch.full_like(everything, float(self.settings.rare_pixels * batch))
        else:
            few = self.settings.rare_share * everything
        return torch.where(mine < few, RARE, 1.0) * self.running


def class_counts(labels: Tensor) -> Tensor:
    """Labels (B, H, W) uint8 -> pixels per train id (256,) int64, for which the host does not wait."""
    return occurrences(labels, IGNORE + 1)

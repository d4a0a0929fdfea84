"""Losses, score and moving average as the published programs compute them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = 255
SOURCE, TARGET = 0.0, 1.0
"""What a discriminator should say."""


def upsampled(maps: Tensor, size: torch.Size | tuple[int, int], align_corners: bool) -> Tensor:
    """Maps (B, C, h, w) -> (B, C, *size), bilinear."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=align_corners)


def pixel_rows(maps: Tensor, chosen: Tensor) -> Tensor:
    """Maps (B, C, H, W) -> the pixels of a mask (B, H, W) as rows (N, C): transposed, copied, masked."""
    rows = maps.transpose(1, 2).transpose(2, 3).contiguous()  # (B, H, W, C)
    batch, height, width, classes = rows.shape
    return rows[chosen.view(batch, height, width, 1).repeat(1, 1, 1, classes)].view(-1, classes)


def cross_entropy_2d(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over the labelled pixels. logits (B, C, H, W), labels (B, H, W) int64 with 255 ignored."""
    labelled = (labels >= 0) * (labels != IGNORE)
    if not labelled.any():
        return torch.zeros((), device=logits.device)
    return F.cross_entropy(
        pixel_rows(logits, labelled),
        labels[labelled],
        weight=None if class_weights is None else class_weights.to(logits.dtype),
    )


def domain_bce(answers: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy with logits of a discriminator's whole map."""
    return F.binary_cross_entropy_with_logits(answers, torch.full_like(answers, domain))


class BalancedWeights:
    """Class weights of SE-GAN's class-balanced cross-entropy, counted class by class on the CPU."""

    def __init__(self, classes: int) -> None:
        self.running = np.ones(classes, np.float32)

    def __call__(self, labels: Tensor) -> Tensor:
        """Labels (B, H, W) of this batch -> weights (C,)."""
        maps = labels.cpu().numpy()
        now = np.ones_like(self.running)
        absent = np.ones_like(self.running)
        for c in range(len(now)):
            pixels = int((maps == c).sum())
            if pixels < 64 * 64 * len(maps):
                now[c] = 7
            if pixels == 0:
                absent[c] = 7
        self.running = 0.9 * self.running + 0.1 * absent
        return torch.from_numpy(now * self.running).to(labels.device)


def confusion(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Pixel counts (C, C), rows are labels; other labels are ignored."""
    known = (labels >= 0) & (labels < classes)
    pairs = classes * labels[known].astype(int) + predictions[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(counts: NDArray[np.int64]) -> float:
    """In percent, over the classes that occur."""
    union = counts.sum(axis=1) + counts.sum(axis=0) - np.diag(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(100 * np.nanmean(np.diag(counts) / union))


def batch_miou(logits: Tensor, labels: Tensor) -> float:
    """The score of one step's batch: arg-max at full size, then numpy on the CPU."""
    predictions = torch.max(logits.detach(), 1)[1].cpu().numpy()
    counts = [confusion(*maps, logits.shape[1]) for maps in zip(labels.cpu().numpy(), predictions, strict=True)]
    return mean_iou(np.sum(counts, axis=0))


@torch.no_grad()
def move_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """The moving average, parameter by parameter."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.data.mul_(decay)
        old.data.add_(new.data * (1.0 - decay))

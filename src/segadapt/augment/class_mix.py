"""Class mixing (DACS, WACV 2021, after ClassMix): half of a source image's classes are pasted onto a target image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from segadapt.augment.draw import uniform
from segadapt.losses import IGNORE, precise

_IDS = 256  # of uint8 labels


@dataclass(frozen=True)
class Mixed:
    """A batch of mixed images."""

    images: Tensor  # (B, 3, H, W), float or as both were
    labels: Tensor  # (B, H, W): those of the source where it was pasted, else the pseudo-labels
    weights: Tensor  # (B, H, W): 1 where the source was pasted, else those of the pseudo-labels
    pasted: Tensor  # (B, H, W) bool


def class_mix(
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    weights: Tensor,
    seeds: Tensor,
    stream: str = "class_mix",
    published: bool = False,
) -> Mixed:
    """Paste half of the classes of source image i onto target image i.

    source: images (B, 3, H, W) and labels (B, H, W) with 255 = ignored; target: images of that size and pseudo-labels;
    weights: (B, H, W) of the pseudo-labels; seeds: (B,) int64. For `published` see `draw_classes`.
    """
    pasted = pasted_pixels(source[1], draw_classes(source[1], seeds, stream, published))
    return Mixed(
        torch.where(pasted[:, None], *_of_one_kind(source[0], target[0])),
        torch.where(pasted, *_of_one_kind(source[1], target[1])),
        torch.where(pasted, torch.ones_like(weights), weights),
        pasted,
    )


def draw_classes(labels: Tensor, seeds: Tensor, stream: str, published: bool = False) -> Tensor:
    """labels (B, H, W) -> (B, 256) bool: of the n distinct ids of each image, ceil(n / 2), without replacement.

    Ignored pixels are not a class. `published`: the ids are those of the whole batch, including 255, as in DACS,
    DAFormer and MIC, so that half of them may be ids that an image does not have; the draw then depends on the
    micro-batch.
    """
    present = torch.zeros(len(labels), _IDS, dtype=torch.bool, device=labels.device)
    present.scatter_(1, labels.flatten(1).long(), True)
    if published:
        present = present.any(dim=0, keepdim=True).expand(len(labels), -1)
    else:
        present[:, IGNORE] = False
    keys = uniform(seeds, stream, (_IDS,), torch.float64).masked_fill(~present, 2.0)
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1)
    half = (present.sum(dim=1, keepdim=True) + 1) // 2
    return rank < half


def pasted_pixels(labels: Tensor, chosen: Tensor) -> Tensor:
    """labels (B, H, W), chosen (B, 256) bool -> (B, H, W) bool: the pixels whose id was chosen."""
    return chosen.gather(1, labels.flatten(1).long()).view(labels.shape)


def _of_one_kind(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both unchanged if they have the same dtype; otherwise integers as int64 and numbers in floating point."""
    if one.dtype == other.dtype:
        return one, other
    if one.is_floating_point() or other.is_floating_point():
        return precise(one), precise(other)
    return one.long(), other.long()

"""Masks of square blocks (MIC: masked image consistency, CVPR 2023)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.augment.draw import uniform
from segadapt.losses import precise


def draw_blocks(seeds: Tensor, stream: str, size: tuple[int, int], block: int, ratio: float) -> Tensor:
    """(B, 1, H, W) bool, true where an image of `size` (H, W) stays visible: a share of 1 - `ratio`, on average.

    MIC uses ratio 0.7, with blocks of 64 pixels in crops of 1024 and 32 in crops of 512.
    """
    return visible(uniform(seeds, stream, (1, *grid(size, block))), size, ratio)


def grid(size: tuple[int, int], block: int) -> tuple[int, int]:
    """How many blocks an image (H, W) has, rounded half to even as in the published program; at least one."""
    return max(1, round(size[0] / block)), max(1, round(size[1] / block))


def visible(drawn: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """drawn (B, 1, rows, columns) in [0, 1) -> (B, 1, H, W) bool: blocks above `ratio`, by nearest neighbour."""
    return F.interpolate((drawn > ratio).float(), size=size, mode="nearest").bool()


def masked(images: Tensor, keep: Tensor, fill: Tensor) -> Tensor:
    """images (B, 3, H, W) RGB, uint8 or float, and keep (B, 1, H, W) bool -> `fill` (3,) where it is false, float.

    MIC multiplies normalised pixels by the mask: the same as filling with the mean of the network's pixel format,
    `pixels.inverse(torch.zeros(1, 3, 1, 1))`.
    """
    pixels = images if images.is_floating_point() else precise(images)
    return torch.where(keep, pixels, fill.to(pixels).view(1, 3, 1, 1))

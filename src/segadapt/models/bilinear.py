"""Bilinear interpolation as two matrix products: faster on a CPU, there and back, and rows can be had one by one."""

import torch
from torch import Tensor
from torch.nn import functional as F


def matrix(old: int, new: int, align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (new, old) of linear interpolation from `old` to `new` values, with dtype and device of `like`."""
    unit = torch.eye(old, dtype=like.dtype, device=like.device)
    return F.interpolate(unit[None], size=new, mode="linear", align_corners=align_corners)[0].T


def upsample(logits: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    """Logits (B, C, h, w) -> (B, C, *size) as `F.interpolate` gives them up to rounding; size = (H, W)."""
    rows = matrix(logits.shape[2], size[0], align_corners, logits)
    columns = matrix(logits.shape[3], size[1], align_corners, logits)
    return rows @ (logits @ columns.T)

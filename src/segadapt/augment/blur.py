"""Gaussian blur with a separate strength for each image."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.losses import precise


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """images (B, 3, H, W), uint8 or float of any range, and sigma (B,) in pixels -> blurred, in floating point.

    The kernel is as wide as DAFormer's, about a tenth of each side (`kernel_side`), truncated there and normalised; at
    the border the image is reflected. DAFormer draws sigma uniformly from 0.15 to 1.15.
    """
    pixels = images if images.is_floating_point() else precise(images)
    height, width = pixels.shape[-2:]
    vertical, horizontal = (_kernels(sigma.to(pixels), kernel_side(side)) for side in (height, width))
    pixels = _along(pixels, vertical, dim=2)
    return _along(pixels, horizontal, dim=3)


def kernel_side(side: int) -> int:
    """The published kernel size along an image side, an odd number of pixels: 51 at 512, 103 at 1024."""
    tenth = math.ceil(0.1 * side)
    return math.floor(tenth - 0.5 + tenth % 2)


def _kernels(sigma: Tensor, side: int) -> Tensor:
    """(B,) -> (B, side): normalised Gaussians."""
    places = torch.arange(side, device=sigma.device, dtype=sigma.dtype) - side // 2
    weights = torch.exp(-(places**2) / (2 * sigma[:, None] ** 2))
    return weights / weights.sum(dim=1, keepdim=True)


def _along(pixels: Tensor, kernels: Tensor, dim: int) -> Tensor:
    """Each image convolved with its own kernel along one dimension: images are the groups of one convolution."""
    (batch, channels, height, width), side = pixels.shape, kernels.shape[1]
    border = (0, 0, side // 2, side // 2) if dim == 2 else (side // 2, side // 2, 0, 0)
    padded = F.pad(pixels, border, mode="reflect").flatten(0, 1)[None]
    shape = (batch * channels, 1, side, 1) if dim == 2 else (batch * channels, 1, 1, side)
    weights = kernels.repeat_interleave(channels, dim=0).view(shape)
    return F.conv2d(padded, weights, groups=batch * channels).view(batch, channels, height, width)

"""Probabilities refined along the edges of their image, in the manner of PAMR (Araslanov and Roth, CVPR 2020).

Each pixel repeatedly takes a weighted mean of its neighbours' probabilities; the weights are a softmax of how alike
their colours are. So what a coarse network says follows the edges in the image, and lone wrong pixels disappear. The
paper divides a colour difference by its local standard deviation; here its scale is fixed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.losses import precise

DILATIONS = (1, 2, 4)
"""Distances in pixels of the 8 neighbours each."""
COLOUR_SCALE = 3.0
"""Mean colour difference, in 0..255, that divides a neighbour's weight by e."""

_PLACES = [
    (row * step, column * step)
    for step in DILATIONS
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
]
_REACH = max(DILATIONS)


def refined(images: Tensor, probabilities: Tensor, iterations: int) -> Tensor:
    """images (B, 3, H, W) RGB in 0..255, uint8 or float, and probabilities (B, C, H, W) -> refined probabilities.

    They still sum to 1 over the classes. Beyond the border, the nearest pixel is repeated. Memory: about 24 + 3 C
    values for each pixel.
    """
    pixels = images if images.is_floating_point() else precise(images)
    around = _padded(pixels)
    unlike = torch.stack([(_moved(around, place) - pixels).abs().mean(dim=1) for place in _PLACES])
    weights = (unlike / -COLOUR_SCALE).softmax(dim=0)[:, :, None]  # (24, B, 1, H, W)
    for _ in range(iterations):
        around, mean = _padded(probabilities), torch.zeros_like(probabilities)
        for weight, place in zip(weights, _PLACES, strict=True):
            mean.addcmul_(weight, _moved(around, place))
        probabilities = mean
    return probabilities


def _padded(planes: Tensor) -> Tensor:
    return F.pad(planes, (_REACH,) * 4, mode="replicate")


def _moved(padded: Tensor, place: tuple[int, int]) -> Tensor:
    """What lies `place` = (rows, columns) away from each pixel, (B, C, H, W)."""
    height, width = padded.shape[-2] - 2 * _REACH, padded.shape[-1] - 2 * _REACH
    top, left = _REACH + place[0], _REACH + place[1]
    return padded[..., top : top + height, left : left + width]

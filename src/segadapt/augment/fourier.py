"""Fourier domain adaptation (FDA, CVPR 2020): the low-frequency amplitudes of a target image in a source image.

Written from facts about the published program, which has no licence.
"""

import math

import torch
from torch import Tensor

from segadapt.losses import precise


def with_amplitudes_of(target: Tensor, source: Tensor, share: float, published: bool = False) -> Tensor:
    """`source` with its phases and the amplitudes of `target` in a window of low frequencies.

    source, target: (B, C, H, W) of equal size, uint8 or float with the same range; the result is float and may leave
    that range (the published program does not clip it). The window holds the frequencies -b … b of both axes, b =
    floor(share · shorter side); FDA uses shares of 0.01, 0.05 and 0.09. `published`: -b … b-1, as in the published
    training, which takes the real part of the complex result.
    """
    assert source.shape == target.shape, (source.shape, target.shape)
    own, others = (torch.fft.fft2(x if x.is_floating_point() else precise(x)) for x in (source, target))
    height, width = source.shape[-2:]
    reach = math.floor(share * min(height, width))
    last = reach - 1 if published else reach
    rows, columns = (_within(side, -reach, last, source.device) for side in (height, width))
    window = rows[:, None] & columns[None, :]
    swapped = torch.polar(torch.where(window, others.abs(), own.abs()), own.angle())
    mixed: Tensor = torch.fft.ifft2(swapped).real
    return mixed


def _within(side: int, first: int, last: int, device: torch.device) -> Tensor:
    """(side,) bool: which positions of a spectrum hold the frequencies first … last."""
    places = torch.arange(side, device=device)
    frequencies = torch.where(places < (side + 1) // 2, places, places - side)
    return (frequencies >= first) & (frequencies <= last)

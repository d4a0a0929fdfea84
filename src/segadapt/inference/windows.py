"""An input in overlapping windows, for networks that should not see it whole, and their logits put together."""

from collections.abc import Callable

import torch
from torch import Tensor

from segadapt.models.segmenter import Segmenter

OVERLAP = 1 / 3  # of a window, at least, is shared with its neighbour


def blended(
    network: Segmenter,
    logits_of: Callable[[Tensor], Tensor],
    pixels: Tensor,
    window: tuple[int, int],
    half: bool,
) -> Tensor:
    """Pixels (B, 3, H, W) -> logits (B, C, H, W) from windows (w, h) that are smaller on a side at least.

    `logits_of` makes the native logits of a window, `network` upsamples them. Each window's count with a weight that
    falls linearly from its middle to its borders, where a network sees least context, so that no seams show; with
    `half`, as published HRDA has it, windows begin half a window apart and all count alike.
    """
    height, width = pixels.shape[-2:]
    window_width, window_height = min(window[0], width), min(window[1], height)
    starts = starts_half_apart if half else starts_overlapping
    weight = _tent(window_height, pixels.device)[:, None] * _tent(window_width, pixels.device)[None, :]
    if half:
        weight = torch.ones_like(weight)
    total = torch.zeros((len(pixels), network.classes, height, width), device=pixels.device)
    weights = torch.zeros((height, width), device=pixels.device)
    for top in starts(height, window_height):
        for left in starts(width, window_width):
            here = (..., slice(top, top + window_height), slice(left, left + window_width))
            logits = network.upsample(logits_of(pixels[here]), (window_height, window_width))
            total[here] += weight * logits
            weights[here] += weight
    return total.div_(weights)


def starts_overlapping(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover `length` evenly and overlap by at least OVERLAP of a window."""
    step = max(1, int(window * (1 - OVERLAP)))
    count = 1 + max(0, -(-(length - window) // step))
    return [round(index * (length - window) / max(1, count - 1)) for index in range(count)]


def starts_half_apart(length: int, window: int) -> list[int]:
    """Where windows begin, half a window apart, the last at the end: as the published HRDA cuts its input."""
    step = max(1, window // 2)
    return [min(index * step, length - window) for index in range(1 + -(-(length - window) // step))]


def _tent(length: int, device: torch.device) -> Tensor:
    """(length,) weights that rise linearly from both ends to the middle, all above 0."""
    rising = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    return torch.minimum(rising, rising.flip(0))

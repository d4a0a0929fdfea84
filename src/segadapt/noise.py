"""Gaussian noise that depends on the sample alone, so that runs on any number of ranks draw the same."""

import math

import torch
from torch import Tensor

from segadapt.batch import Batch
from segadapt.sample_randomness import Draws

PASS = 1 << 20
"""Sets these draws apart from those of dropout, whose passes are numbered from 0."""


class SampleNoise:
    """Independent N(0, σ²) noise for the samples of one batch, in the order in which it is asked for.

    Each sample's is a function of its seed (a function of run seed, step and position). On a CPU it comes from
    PyTorch's generator; on a device that the host runs ahead of, from the samples' hashed seeds there, so that a
    captured step draws anew whenever it is replayed.
    """

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.draws, self.generators = None, list[torch.Generator]()
        if batch.words is None:
            self.generators = [torch.Generator(device).manual_seed(seed) for seed in batch.seeds]
        else:
            self.draws = Draws(batch.seeds, device, PASS, batch.step_seed, placed=batch.words[0])

    def add(self, images: Tensor, sigma: float) -> Tensor:
        """images (B, 3, H, W), 0..255 -> float32 images + noise of standard deviation `sigma` in pixel units."""
        images = images.float()
        return images if sigma == 0 else images + sigma * self._drawn(images)

    def _drawn(self, like: Tensor) -> Tensor:
        if self.draws is not None:
            return normal(self.draws, len(like), like[0].numel()).view(like.shape)
        drawn = [torch.randn(like.shape[1:], generator=each, device=like.device) for each in self.generators]
        return torch.stack(drawn)


def normal(draws: Draws, samples: int, elements: int) -> Tensor:
    """The next draw as N(0, 1) numbers, float32 (samples, elements), each two from two words (Box and Muller, 1958)."""
    half = -(-elements // 2)
    radius, angle = ((draws.words(samples, half) + offset).float() * 2.0**-32 for offset in (1, 0))  # never ln 0
    radius, angle = (-2.0 * radius.log()).sqrt_(), 2 * math.pi * angle
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :elements]

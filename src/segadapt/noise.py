"""Gaussian noise that depends on the sample alone, so that runs on any number of ranks draw the same."""

import torch
from torch import Tensor


class SampleNoise:
    """Independent N(0, σ²) noise for the samples of one batch, in the order in which it is asked for.

    Each sample has a generator of its own, started from its seed (a function of run seed, step and position).
    """

    def __init__(self, seeds: tuple[int, ...], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def add(self, images: Tensor, sigma: float) -> Tensor:
        """images (B, 3, H, W), 0..255 -> float32 images + noise of standard deviation `sigma` in pixel units."""
        images = images.float()
        if sigma == 0:
            return images
        drawn = torch.stack(
            [torch.randn(images.shape[1:], generator=generator, device=images.device) for generator in self.generators]
        )
        return images + sigma * drawn

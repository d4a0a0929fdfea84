"""Your own network: an encoder of depthwise convolutions and a decoder of two scales, 0.1 million parameters.

Stride 4. Group norm lets it train from scratch with batches of any size; the dropout before the head draws random
numbers per sample and so is the same on any number of ranks.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.plugin import IMAGENET, Dropout2d, NetworkOptions, Segmenter, register_network

WIDTHS = (32, 64, 128)


class Separable(nn.Module):
    """A depthwise 3×3 and a pointwise convolution with group norm; added to the input if both have the same shape."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, out, 1, bias=False)
        self.norm = nn.GroupNorm(8, out)
        self.adds = stride == 1 and channels == out

    def forward(self, values: Tensor) -> Tensor:
        found = F.relu(self.norm(self.pointwise(self.depthwise(values))))
        return values + found if self.adds else found


class TwoScalesOptions(NetworkOptions):
    """Options in recipes: `network: {name: two_scales, dropout: 0.2}`."""

    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate of the features")


class TwoScales(Segmenter):
    """Fine features at stride 4 beside coarse ones at stride 16."""

    Options = TwoScalesOptions  # omit in a network without options
    pixels = IMAGENET  # the pixel format that `encode` receives
    stride = 4  # of the logits relative to the image

    def __init__(self, classes: int, attention: bool = False, options: TwoScalesOptions = TwoScalesOptions()) -> None:
        super().__init__(classes, 64, attention, options)
        fine, middle, coarse = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, fine, 3, 2, 1, bias=False), nn.GroupNorm(8, fine), nn.ReLU())
        self.fine = nn.Sequential(Separable(fine, fine, stride=2), Separable(fine, fine))
        self.middle = nn.Sequential(Separable(fine, middle, stride=2), *(Separable(middle, middle) for _ in range(2)))
        self.coarse = nn.Sequential(Separable(middle, coarse, stride=2), *(Separable(coarse, coarse) for _ in range(4)))
        self.from_fine, self.from_coarse = nn.Conv2d(fine, 64, 1), nn.Conv2d(coarse, 64, 1)
        self.head = nn.Sequential(Dropout2d(options.dropout), Separable(64, 64), nn.Conv2d(64, classes, 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> features (B, 64, H/4, W/4), rounded up."""
        fine = self.through((self.stem, self.fine), pixels)  # `through` enables activation checkpointing
        coarse = self.through((self.middle, self.coarse), fine)
        up = F.interpolate(self.from_coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.relu(self.from_fine(fine) + up)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 64, h, w) -> one head's logits (B, C, h, w)."""
        return (self.head(features),)

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters to which `head_lr` applies."""
        return list(self.head.parameters())


register_network("two_scales", TwoScales)

"""The discriminator of TGSTN, SE-GAN and AdaptSegNet: after DCGAN's (Radford et al., 2016), fully convolutional.

It has no norm. SE-GAN (TMM 2022) keeps it this simple on purpose: its generalization bound asks for it.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU
WIDTH = 32
"""Channels of the first convolution in SE-GAN; each of the next three has twice as many."""


def doubling(first: int) -> tuple[int, int, int, int]:
    """Channels of the first four convolutions, from those of the first."""
    return first, 2 * first, 4 * first, 8 * first


class Discriminator(nn.Module):
    """Five 4×4 convolutions of stride 2, leaky ReLU between them: (B, channels, H, W) -> raw (B, 1, H/32, W/32).

    `channels` are 3 for images, the number of classes for softmax maps; `widths` are the channels of the first four
    convolutions: the default is SE-GAN's, AdaptSegNet has (64, 128, 256, 512). H and W of at least 32; the result is
    for a loss with logits. Modules are called as in the published files.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int] = doubling(WIDTH)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.conv1 = nn.Conv2d(channels, first, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 4, stride=2, padding=1)
        self.conv3 = nn.Conv2d(second, third, 4, stride=2, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 4, stride=2, padding=1)
        self.classifier = nn.Conv2d(fourth, 1, 4, stride=2, padding=1)

    def in_words(self) -> str:
        """What it is, for a person."""
        return f"a discriminator of {self.conv1.in_channels} channels"

    def forward(self, features: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = F.leaky_relu(conv(features), SLOPE, inplace=True)
        return cast(Tensor, self.classifier(features))

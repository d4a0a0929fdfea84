"""A small DeepLab that learns a street world from scratch, on a CPU, in minutes: for the demo and the tests.

It has no published counterpart. Its shape follows DeepLab-v2 (Chen et al., TPAMI 2018): stride 8 by dilation, and a
head of parallel dilated 3×3 convolutions whose outputs are summed.

It comes with either norm. Group norm (Wu and He, ECCV 2018) has no statistics that a batch of one could spoil; batch
norm (Ioffe and Szegedy, ICML 2015) learns faster from batches of several images, and its statistics can follow the
target.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.models import bilinear
from segadapt.models.segmenter import IMAGENET, Segmenter

WIDTHS = (24, 48, 96)  # channels at strides 2, 4 and 8
BODY_DILATIONS = (1, 2, 4)  # of the residual blocks at stride 8
HEAD_DILATIONS = (1, 2, 4, 6)  # at 240×120 the feature map is 30×15: wider ones would see padding only
GROUPS = 8

Norm = Callable[[int], nn.Module]
"""Channels -> a norm for them with scale (`weight`) and shift (`bias`)."""


class NormedConv(nn.Sequential):
    """3×3 convolution without bias, then the norm; "same" padding at any dilation."""

    def __init__(self, norm: Norm, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False), norm(outputs)
        )


class ResidualBlock(nn.Module):
    """Two normed convolutions around a shortcut; the shape (B, C, h, w) stays."""

    def __init__(self, norm: Norm, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = NormedConv(norm, channels, channels, dilation=dilation)
        self.second = NormedConv(norm, channels, channels, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + cast(Tensor, self.second(F.relu(self.first(features), inplace=True))), inplace=True)


class DilatedHead(nn.Module):
    """DeepLab-v2's head: 3×3 convolutions of several dilations side by side, summed. (B, F, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, classes: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in dilations)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.branches[0](features)
        for branch in self.branches[1:]:
            logits = logits + branch(features)
        return logits


class DeepLabSmall(Segmenter):
    """0.66 million parameters, stride 8: images (B, 3, 120, 240) give logits (B, C, 15, 30) and 96 features.

    ImageNet pixel format. `attention` adds SEAN's; `published_aspp` is quirk `aspp`: the head has its first two
    dilations only. `norm` is group norm, or batch norm as in `DeepLabSmallBN`.
    """

    pixels = IMAGENET
    stride = 8

    def __init__(
        self,
        classes: int,
        attention: bool = False,
        published_aspp: bool = False,
        norm: Norm = partial(nn.GroupNorm, GROUPS),
    ) -> None:
        stem, middle, width = WIDTHS
        super().__init__(classes, feature_channels=width, attention=attention)
        self.body = nn.Sequential(
            NormedConv(norm, 3, stem, stride=2),
            nn.ReLU(inplace=True),
            NormedConv(norm, stem, middle, stride=2),
            nn.ReLU(inplace=True),
            ResidualBlock(norm, middle),
            NormedConv(norm, middle, width, stride=2),
            nn.ReLU(inplace=True),
            *(ResidualBlock(norm, width, dilation) for dilation in BODY_DILATIONS),
        )
        self.head = DilatedHead(width, classes, HEAD_DILATIONS[:2] if published_aspp else HEAD_DILATIONS)
        self._initialise()

    def _initialise(self) -> None:
        """He's normal for convolutions before a ReLU; N(0, 0.01) in head (and attention), as DeepLab-v2."""
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(cast(Tensor, module.second[1].weight))  # each block starts as the identity
        for branch in self.head.branches:
            conv = cast(nn.Conv2d, branch)
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> features (B, 96, H/8, W/8), rounded up."""
        body = self.body
        return self.through((body[:2], body[2:4], body[4], body[5:7], *list(body)[7:]), pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 96, h, w) -> one head's logits (B, C, h, w)."""
        return (cast(Tensor, self.head(features)),)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def upsample(self, logits: Tensor, size: tuple[int, ...]) -> Tensor:
        """The contract's bilinear rule as two matrix products: on a CPU five times as fast there and back."""
        return bilinear.upsample(logits, size, self.align_corners)


class DeepLabSmallBN(DeepLabSmall):
    """`DeepLabSmall` with batch norm; trained from scratch it needs `batch_norm: learn`."""

    def __init__(self, classes: int, attention: bool = False, published_aspp: bool = False) -> None:
        super().__init__(classes, attention, published_aspp, norm=nn.BatchNorm2d)

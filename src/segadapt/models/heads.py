"""Classifier heads that several networks share."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.losses import precise
from segadapt.models.segmenter import NetworkOptions

Aspp = Literal["full", "published"]


class DeepLabOptions(NetworkOptions):
    """What a recipe may choose about a network with DeepLab-v2's head."""

    aspp: Aspp = Field(
        "full",
        description="convolutions of the head that are used: full: all; published: the first two (what quirk `aspp` "
        "sets)",
    )


DILATIONS = (6, 12, 18, 24)


class AtrousHead(nn.Module):
    """DeepLab-v2's head: parallel 3×3 convolutions of dilation 6, 12, 18, 24, with bias, summed (DeepLab, TPAMI 2018).

    Features (B, F, h, w) -> logits (B, C, h, w). Weights start from N(0, 0.01), biases from 0.

    There are always four convolutions, as in the published files. `aspp: published` uses the first two only, one after
    another: the published programs return inside the loop over them. The other two then never get a gradient.
    """

    def __init__(self, channels: int, classes: int, aspp: Aspp = "full") -> None:
        super().__init__()
        self.aspp = aspp
        self.convs = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in DILATIONS)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        convs = cast(list[nn.Conv2d], list(self.convs))
        if self.aspp == "published":  # with the published rounding
            return cast(Tensor, convs[0](features) + convs[1](features))
        if torch.onnx.is_in_onnx_export():  # the programs that run it have convolutions, and not all have `fold`
            return cast(Tensor, convs[0](features) + convs[1](features) + convs[2](features) + convs[3](features))
        return summed(convs, features)


def summed(convs: Sequence[nn.Conv2d], features: Tensor) -> Tensor:
    """The sum of 3×3 convolutions that keep the size, by one product: features (B, F, h, w) -> (B, C, h, w).

    The product gives each tap of each convolution an output of its own; shifted by the dilations, these are added up.
    By itself a convolution with as few output channels as there are classes leaves a processor's matrix units idle: the
    heads took a quarter of a self-training step for a twentieth of its operations.
    """
    # Flipped: `fold` sends a tap's value to where it belongs, a convolution fetches it from there.
    taps = torch.cat([conv.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) for conv in convs])  # (n·C·9, F)
    maps = precise(F.linear(features.flatten(2).mT, taps).mT)  # (B, n·C·9, h·w)
    total = torch.stack([precise(conv.bias) for conv in convs if conv.bias is not None]).sum(0)[:, None, None]
    for conv, of_taps in zip(convs, maps.chunk(len(convs), 1), strict=True):
        dilation = conv.dilation[0]
        total = total + F.fold(of_taps, features.shape[-2:], 3, dilation=dilation, padding=dilation)
    return total

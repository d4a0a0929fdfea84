"""Classifier heads that several networks share."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segadapt.devices import gpu_kernels
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
    # Flipped: a tap's value is sent to where it belongs, a convolution fetches it from there.
    taps = torch.cat([conv.weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2) for conv in convs])  # (n·9·C, F)
    of_taps = F.linear(features.flatten(2).mT, taps)  # (B, h·w, n·9·C)
    bias = torch.stack([precise(conv.bias) for conv in convs if conv.bias is not None]).sum(0)
    size, dilations = (features.shape[2], features.shape[3]), [conv.dilation[0] for conv in convs]
    return cast(Tensor, _Shifted.apply(of_taps, bias, size, dilations))  # type: ignore[no-untyped-call]


class _Shifted(torch.autograd.Function):
    """The sum of the outputs of all taps, each shifted to where it belongs, and of a bias (C,).

    (B, h·w, n·9·C) of n 3×3 convolutions with these dilations -> (B, C, h, w). As `F.fold` with padding that keeps the
    size, which takes twice as long.
    """

    @staticmethod
    def forward(ctx: Any, of_taps: Tensor, bias: Tensor, size: tuple[int, int], dilations: list[int]) -> Tensor:
        ctx.size, ctx.dilations, ctx.dtype = size, dilations, of_taps.dtype
        kernels = gpu_kernels(of_taps)
        ctx.kernels = kernels if kernels is not None and kernels.knows(bias, dilations) else None
        if ctx.kernels is not None:
            return cast(
                Tensor, ctx.kernels.shifted_sum(of_taps, bias, size, dilations).permute(0, 3, 1, 2).contiguous()
            )
        taps = of_taps.view(len(of_taps), *size, len(dilations), 9, -1)
        total = bias.expand(*taps.shape[:3], -1)  # (B, h, w, C)
        for number, dilation in enumerate(dilations):
            own = torch.zeros_like(total, memory_format=torch.contiguous_format)
            for tap in range(9):
                (rows, from_rows), (columns, from_columns) = (
                    _moved(length, (place - 1) * dilation) for length, place in zip(size, divmod(tap, 3), strict=True)
                )
                own[:, rows, columns] += taps[:, from_rows, from_columns, number, tap]
            total = total + own
        return total.permute(0, 3, 1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (height, width), dilations = ctx.size, ctx.dilations
        images, channels = gradient.shape[:2]
        of_bias = gradient.sum((0, 2, 3))
        if ctx.kernels is not None:
            gradient = gradient.permute(0, 2, 3, 1).contiguous()
            return ctx.kernels.spread(gradient, dilations, ctx.dtype), of_bias, None, None
        found = gradient.new_empty((images, height, width, len(dilations), 3, 3, channels), dtype=ctx.dtype)
        for number, d in enumerate(dilations):
            padded = F.pad(gradient, [d] * 4).permute(0, 2, 3, 1).contiguous()
            image, row, pixel = padded.stride()[:3]
            # Each tap sees the gradient from another place: rows and columns of taps are `d` apart.
            seen = (images, height, width, 3, 3, channels), (image, row, pixel, d * row, d * pixel, 1)
            found[:, :, :, number].copy_(padded.as_strided(*seen))
        return found.view(images, height * width, -1), of_bias, None, None


def _moved(length: int, by: int) -> tuple[slice, slice]:
    """Where values land that are moved by so many places, and which of them do."""
    return slice(max(by, 0), max(length + min(by, 0), 0)), slice(max(-by, 0), max(length - max(by, 0), 0))

"""Classifier heads that several networks share."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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
    # Flipped: a tap's value is sent to where it belongs, a convolution fetches it from there.
    taps = torch.cat([conv.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) for conv in convs])  # (n·C·9, F)
    maps = F.linear(features.flatten(2).mT, taps).mT.contiguous()  # (B, n·C·9, h·w)
    total = torch.stack([precise(conv.bias) for conv in convs if conv.bias is not None]).sum(0)[:, None, None]
    size = (features.shape[2], features.shape[3])
    for conv, of_taps in zip(convs, maps.chunk(len(convs), 1), strict=True):
        total = total + _Shifted.apply(of_taps, size, conv.dilation[0])  # type: ignore[no-untyped-call]
    return total


class _Shifted(torch.autograd.Function):
    """Sum of the outputs of nine taps, each shifted to where it belongs: (B, C·9, h·w) -> (B, C, h, w).

    As `F.fold` with padding that keeps the size, which takes longer: twice on a CPU, and much on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, of_taps: Tensor, size: tuple[int, int], dilation: int) -> Tensor:
        ctx.size, ctx.dilation, ctx.dtype = size, dilation, of_taps.dtype
        taps = of_taps.reshape(len(of_taps), -1, 9, *size)
        dtype = torch.promote_types(of_taps.dtype, torch.get_default_dtype())  # see `precise`
        total = taps.new_zeros((*taps.shape[:2], *size), dtype=dtype)
        for tap in range(9):
            (rows, from_rows), (columns, from_columns) = (
                _moved(length, (place - 1) * dilation) for length, place in zip(size, divmod(tap, 3), strict=True)
            )
            total[:, :, rows, columns] += taps[:, :, tap, from_rows, from_columns]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (height, width), dilation = ctx.size, ctx.dilation
        padded = F.pad(gradient, [dilation] * 4).contiguous()
        images, channels, area, row = *padded.shape[:2], padded[0, 0].numel(), padded.shape[3]
        # Each tap sees the gradient from another place: rows and columns of taps are `dilation` apart.
        seen = padded.as_strided(
            (images, channels, 3, 3, height, width), (channels * area, area, dilation * row, dilation, row, 1)
        )
        return seen.to(ctx.dtype).reshape(images, channels * 9, height * width), None, None


def _moved(length: int, by: int) -> tuple[slice, slice]:
    """Where values land that are moved by so many places, and which of them do."""
    return slice(max(by, 0), max(length + min(by, 0), 0)), slice(max(-by, 0), max(length - max(by, 0), 0))

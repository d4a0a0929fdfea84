"""Decoders over four scales: DAFormer's (Hoyer et al., CVPR 2022, arXiv 2111.14887), and SegFormer's own.

Each scale is brought to `width` channels by a linear layer per pixel, and to the size of the finest; what is
concatenated is fused into `width` channels, which a 1×1 convolution classifies. DAFormer fuses with context, by
parallel convolutions of several dilations; SegFormer, and the light variant of DAFormer, by one 1×1 convolution.

Modules are called as in the published files.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.batch_norm import BatchNorm2d, normed
from segadapt.models.folding import fold

DILATIONS = (1, 6, 12, 18)  # of the context-aware fusion; the first is a 1×1 convolution


class NormedConv(nn.Module):
    """A convolution without bias, batch norm, ReLU: (B, C, h, w) -> (B, C', h, w). The kernel is 1 or 3."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
        self.bn = BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, values: Tensor) -> Tensor:
        return normed(self.conv, self.bn, values, relu_to=math.inf)


class SeparableConv(nn.Module):
    """A dilated depthwise 3×3 and a 1×1 convolution, each with batch norm and ReLU: (B, C, h, w) -> (B, C', h, w)."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.depthwise_conv = NormedConv(inputs, inputs, 3, dilation, groups=inputs)
        self.pointwise_conv = NormedConv(inputs, outputs)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.pointwise_conv(self.depthwise_conv(values)))


class ContextFusion(nn.Module):
    """DAFormer's fusion: parallel branches of several dilations, then a 3×3 convolution. (B, 4·width, h, w) -> width
    channels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.aspp_modules = nn.ModuleList(
            NormedConv(inputs, width) if dilation == 1 else SeparableConv(inputs, width, dilation)
            for dilation in DILATIONS
        )
        self.bottleneck = NormedConv(len(DILATIONS) * width, width, 3)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.bottleneck(torch.cat([branch(values) for branch in self.aspp_modules], dim=1)))


class Embedding(nn.Module):
    """A linear layer per pixel: (B, C, h, w) -> (B, width, h, w)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, width)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.proj(values.permute(0, 2, 3, 1))).permute(0, 3, 1, 2).contiguous()


class Decoder(nn.Module):
    """What the decoders have in common. `fuse` gives (B, width, h, w), `classify` logits (B, C, h, w) of it.

    `channels` are those of the encoder's scales, fine to coarse.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)

    def fuse(self, scales: Sequence[Tensor]) -> Tensor:
        """The encoder's features (B, C_i, h_i, w_i), fine to coarse -> (B, width, h_1, w_1)."""
        size = scales[0].shape[-2:]
        embedded = []
        for layer, scale in zip(self.embeddings(), scales, strict=True):
            values: Tensor = layer(scale)
            if values.shape[-2:] != size:
                values = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
            embedded.append(values)
        return cast(Tensor, self.fusion()(torch.cat(embedded, dim=1)))

    def classify(self, features: Tensor) -> Tensor:
        """Fused features (B, width, h, w) -> logits (B, C, h, w)."""
        return cast(Tensor, self.classifier()(self.dropout(features)))

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        return self.classify(self.fuse(scales))

    def embeddings(self) -> nn.ModuleList:
        """The linear layers of the scales."""
        raise NotImplementedError

    def fusion(self) -> nn.Module:
        """What makes one scale of four."""
        raise NotImplementedError

    def classifier(self) -> nn.Module:
        """The last convolution."""
        raise NotImplementedError


class DaformerHead(Decoder):
    """DAFormer's decoder: with its context-aware fusion, or (`context` off) by one 1×1 convolution."""

    def __init__(
        self, channels: Sequence[int], classes: int, width: int = 256, dropout: float = 0.1, context: bool = True
    ) -> None:
        super().__init__(dropout)
        self.embed_layers = nn.ModuleList(Embedding(inputs, width) for inputs in channels)
        joined = len(channels) * width
        self.fuse_layer = ContextFusion(joined, width) if context else NormedConv(joined, width)
        self.conv_seg = classifier(width, classes)

    def embeddings(self) -> nn.ModuleList:
        return self.embed_layers

    def fusion(self) -> nn.Module:
        return self.fuse_layer

    def classifier(self) -> nn.Module:
        return self.conv_seg


class SegformerHead(Decoder):
    """SegFormer's decoder: it computes what DAFormer's does without context, under names of its own."""

    def __init__(self, channels: Sequence[int], classes: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__(dropout)
        self.linear_c = nn.ModuleList(Embedding(inputs, width) for inputs in channels)
        self.linear_fuse = NormedConv(len(channels) * width, width)
        self.linear_pred = classifier(width, classes)

    def embeddings(self) -> nn.ModuleList:
        return self.linear_c

    def fusion(self) -> nn.Module:
        return self.linear_fuse

    def classifier(self) -> nn.Module:
        return self.linear_pred


def fold_norms(network: nn.Module) -> None:
    """Fold the batch norms of all decoders in a network that is in eval mode."""
    for module in network.modules():
        if isinstance(module, NormedConv):
            fold(module, "conv", "bn")


def classifier(width: int, classes: int) -> nn.Conv2d:
    """A 1×1 convolution to the classes; its weights start from N(0, 0.01), its bias from 0."""
    conv = nn.Conv2d(width, classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv

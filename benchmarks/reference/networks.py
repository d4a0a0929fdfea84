"""The networks whose published forward pass is written otherwise than segadapt's: same weights, same results."""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from segadapt.batch_norm import BatchNorm2d
from segadapt.models.heads import AtrousHead
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import InstanceNorm, StyleTransfer


class PublishedInstanceNorm(nn.Module):
    """(x - mean) / sqrt(variance + 1e-9) · scale + shift, each operation by itself."""

    def __init__(self, scale: nn.Parameter, shift: nn.Parameter) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, maps: Tensor) -> Tensor:
        pixels = maps.shape[2] * maps.shape[3]
        flat = maps.reshape(maps.shape[0], maps.shape[1], pixels)
        mean = torch.mean(flat, 2).unsqueeze(2).unsqueeze(3).expand_as(maps)
        variance = torch.var(flat, 2).unsqueeze(2).unsqueeze(3).expand_as(maps) * ((pixels - 1) / float(pixels))
        scale, shift = (values[None, :, None, None].expand_as(maps) for values in (self.scale, self.shift))
        return (maps - mean) / torch.sqrt(variance + 1e-9) * scale + shift


class PublishedHead(AtrousHead):
    """Convolution by convolution."""

    def forward(self, features: Tensor) -> Tensor:
        logits, *others = (conv(features) for conv in list(self.convs)[: 2 if self.aspp == "published" else None])
        for more in others:
            logits = logits + more
        return cast(Tensor, logits)


def published_segmenter(network: Segmenter) -> Segmenter:
    """A copy with PyTorch's own batch norms, and heads of convolutions."""
    published = copy.deepcopy(network)
    for module in published.modules():
        if type(module) is BatchNorm2d:
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        elif type(module) is AtrousHead:
            module.__class__ = PublishedHead
    return published


def published_style_transfer(network: StyleTransfer) -> StyleTransfer:
    """A copy with the same weights and published instance norms."""
    published = copy.deepcopy(network)
    for parent in list(published.modules()):
        for name, module in parent.named_children():
            if isinstance(module, InstanceNorm):
                setattr(parent, name, PublishedInstanceNorm(module.scale, module.shift))
    return published

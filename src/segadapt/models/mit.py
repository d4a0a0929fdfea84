"""The MiT encoder of SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203), B0 to B5: four stages, strides 4 to 32.

A stage is a strided convolution and a layer norm, transformer blocks, and a layer norm. Keys and values are reduced by
8, 4, 2 and 1 on each side before attention, and a depthwise 3×3 convolution in each MLP takes the place of a position
embedding: any input of at least 32 pixels on a side will do.

Activations are (B, h, w, C) throughout. Modules are called as in the published files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.sample_randomness import DropPath

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # of keys and values, on each side
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # kernel and stride of each stage's convolution
MLP_RATIO = 4
OUTER_EPS, INNER_EPS = 1e-6, 1e-5
"""Of the norms of blocks and stages; of those after a convolution."""
SMALLEST = 32
"""Pixels on a side that leave a key in every stage."""


@dataclass(frozen=True)
class Size:
    """Channels and number of blocks of each stage."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


SIZES = {
    "b0": Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Size((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": Size((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": Size((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": Size((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": Size((64, 128, 320, 512), (3, 6, 40, 3)),
}


def convolved(conv: nn.Conv2d, values: Tensor) -> Tensor:
    """A convolution of activations (B, h, w, C) -> (B, h', w', C')."""
    return cast(Tensor, conv(values.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class PatchEmbedding(nn.Module):
    """A strided convolution and a layer norm over channels: (B, h, w, C) -> (B, h / stride, w / stride, C')."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(outputs, eps=INNER_EPS)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.norm(convolved(self.proj, values)))


class Attention(nn.Module):
    """Attention of all positions to those that are left after a reduction: (B, h, w, C) -> the same shape.

    The reduction is a convolution whose kernel is its stride; what is left over at the right and at the bottom is cut
    off. Keys and values are one linear layer, keys first.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.head_count = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width, eps=INNER_EPS) if reduction > 1 else None

    def forward(self, values: Tensor) -> Tensor:
        reduced = values
        if self.sr is not None and self.norm is not None:
            reduced = self.norm(convolved(self.sr, values))
        query = self._split(self.q(values))
        key, value = (self._split(part) for part in self.kv(reduced).chunk(2, dim=-1))
        attended = attention(query, key, value)  # (B, heads, h·w, C / heads)
        return cast(Tensor, self.proj(attended.transpose(1, 2).reshape(values.shape)))

    def _split(self, values: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, heads, h·w, C / heads)."""
        return values.reshape(values.shape[0], -1, self.head_count, values.shape[-1] // self.head_count).transpose(1, 2)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √C) v; all (B, heads, tokens, C), of the keys fewer tokens.

    On a CPU operation by operation, as the published program computes it: PyTorch's fused kernel there rounds
    otherwise with AVX-512, so that two encoders with the same weights are not quite the same where one has gradients
    (feature distance, CVPR 2022).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
    return torch.matmul(weights.softmax(-1), value)


class DepthwiseConv(nn.Module):
    """A depthwise 3×3 convolution with bias: (B, h, w, C) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, values: Tensor) -> Tensor:
        return convolved(self.dwconv, values)


class Mlp(nn.Module):
    """Linear, depthwise convolution, exact GELU, linear: (B, h, w, C) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.dwconv = DepthwiseConv(MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.dwconv(self.fc1(values)))))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), each of which stochastic depth leaves out for a share of samples.

    (B, h, w, C) -> the same shape.
    """

    def __init__(self, width: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=OUTER_EPS)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=OUTER_EPS)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, values: Tensor) -> Tensor:
        values = values + self.drop_path(self.attn(self.norm1(values)))
        return cast(Tensor, values + self.drop_path(self.mlp(self.norm2(values))))


class MiT(nn.Module):
    """The encoder; `drop_path` rises linearly over all blocks, from 0 to this."""

    def __init__(self, size: Size, drop_path: float = 0.0) -> None:
        super().__init__()
        inputs, rates = 3, iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        for i, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            kernel, stride = PATCHES[i]
            self.add_module(f"patch_embed{i + 1}", PatchEmbedding(inputs, width, kernel, stride))
            blocks = (Block(width, HEADS[i], REDUCTIONS[i], next(rates)) for _ in range(depth))
            self.add_module(f"block{i + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width, eps=OUTER_EPS))
            inputs = width
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stages(self) -> Iterator[tuple[list[nn.Module], nn.Module]]:
        """Of each stage its parts, one after another, and the norm that closes it."""
        for i in range(1, len(PATCHES) + 1):
            blocks = cast(nn.ModuleList, self.get_submodule(f"block{i}"))
            yield [self.get_submodule(f"patch_embed{i}"), *blocks], self.get_submodule(f"norm{i}")

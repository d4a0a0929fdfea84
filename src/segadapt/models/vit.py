"""Plain vision transformers (Dosovitskiy et al., ICLR 2021) as DINOv2 and DINOv3 have them.

DINOv2 (Oquab et al., TMLR 2024, arXiv 2304.07193): patches of 14 pixels, learned positions on a grid of 37×37 that are
resampled to the image's; with registers (Darcet et al., ICLR 2024, arXiv 2309.16588), if asked for.
DINOv3 (Siméoni et al., 2025, arXiv 2508.10104): patches of 16 pixels, four registers, and positions by rotation of
queries and keys (RoPE; Su et al., 2021, arXiv 2104.09864), which know no grid.

Tokens are (B, N, C): the class token, the registers, then the patches row by row. Modules are called as in the
published files.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.losses import precise
from segadapt.models.lora import Lora
from segadapt.sample_randomness import DropPath

MLP_RATIO = 4
FRESH_SCALE = 1e-5
"""What the factors of residual branches begin with; published weights bring their own."""


@dataclass(frozen=True)
class Size:
    """Channels of a token, number of blocks, heads of attention."""

    width: int
    depth: int
    heads: int


SIZES = {"s": Size(384, 12, 6), "b": Size(768, 12, 12), "l": Size(1024, 24, 16)}


@dataclass(frozen=True)
class Kind:
    """What tells one family of these networks from another."""

    patch: int  # pixels on a side
    registers: int
    eps: float  # of the layer norms
    grid: int | None  # learned positions on a side; None: rotation
    antialias: bool = False  # when positions are resampled
    key_bias: bool = True


DINOV2 = Kind(patch=14, registers=0, eps=1e-6, grid=37)
DINOV2_REGISTERS = Kind(patch=14, registers=4, eps=1e-6, grid=37, antialias=True)
DINOV3 = Kind(patch=16, registers=4, eps=1e-5, grid=None, key_bias=False)
PERIOD = 100.0
"""DINOv3's: the slowest rotation turns 1/100 as far as the fastest, nearly."""


class PatchEmbedding(nn.Module):
    """One token for each patch: pixels (B, 3, H, W) -> (B, H/p · W/p, C)."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.proj(pixels)).flatten(2).transpose(1, 2)


class Projection(nn.Linear):
    """Queries, keys and values by one linear layer; without `key_bias` that part of the bias stands for 0."""

    def __init__(self, width: int, key_bias: bool) -> None:
        super().__init__(width, 3 * width)
        self.key_bias = key_bias

    def forward(self, tokens: Tensor) -> Tensor:
        bias: Tensor = self.bias
        if not self.key_bias:
            query, key, value = bias.chunk(3)
            bias = torch.cat([query, torch.zeros_like(key), value])
        return F.linear(tokens, self.weight, bias)


class Attention(nn.Module):
    """Attention of all tokens to all: (B, N, C) -> the same shape. With `rank`, LoRA on queries and values."""

    def __init__(self, size: Size, key_bias: bool, rank: int | None, alpha: float) -> None:
        super().__init__()
        self.head_count = size.heads
        self.qkv = Projection(size.width, key_bias)
        self.proj = nn.Linear(size.width, size.width)
        self.lora_q = None if rank is None else Lora(size.width, size.width, rank, alpha)
        self.lora_v = None if rank is None else Lora(size.width, size.width, rank, alpha)

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        if self.lora_q is not None and self.lora_v is not None:
            query, value = query + self.lora_q(tokens), value + self.lora_v(tokens)
        query, key, value = (self._split(part) for part in (query, key, value))
        if rotation is not None:
            query, key = (rotated(part, *rotation).to(value.dtype) for part in (query, key))
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, C / heads)
        return cast(Tensor, self.proj(attended.transpose(1, 2).reshape(tokens.shape)))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        return tokens.view(*tokens.shape[:2], self.head_count, -1).transpose(1, 2)

    def merge_lora(self) -> None:
        """Put LoRA into the layer that it stands beside: the same output by one product."""
        if self.lora_q is None or self.lora_v is None:
            return
        with torch.no_grad():
            query, _, value = self.qkv.weight.chunk(3)
            query += self.lora_q.product()
            value += self.lora_v.product()
        self.lora_q = self.lora_v = None


class LayerScale(nn.Module):
    """A factor for each channel (Touvron et al., ICCV 2021): (B, N, C) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), FRESH_SCALE))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class Mlp(nn.Module):
    """Linear, exact GELU, linear: (B, N, C) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(tokens))))


class Block(nn.Module):
    """x + s · attention(norm(x)), then x + s · MLP(norm(x)): (B, N, C) -> the same shape."""

    def __init__(self, size: Size, kind: Kind, drop_path: float, rank: int | None, alpha: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=kind.eps)
        self.attn = Attention(size, kind.key_bias, rank, alpha)
        self.ls1 = LayerScale(size.width)
        self.norm2 = nn.LayerNorm(size.width, eps=kind.eps)
        self.mlp = Mlp(size.width)
        self.ls2 = LayerScale(size.width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        tokens = tokens + self.drop_path(self.ls1(self.attn(self.norm1(tokens), rotation)))
        return cast(Tensor, tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens)))))


class ViT(nn.Module):
    """The encoder; `drop_path` rises linearly over the blocks, from 0 to this. `rank`: of LoRA, None without."""

    def __init__(
        self, size: Size, kind: Kind, drop_path: float = 0.0, rank: int | None = None, alpha: float = 1.0
    ) -> None:
        super().__init__()
        self.size, self.kind = size, kind
        width = size.width
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = None if kind.grid is None else nn.Parameter(torch.empty(1, 1 + kind.grid**2, width))
        self.register_tokens = nn.Parameter(torch.empty(1, kind.registers, width)) if kind.registers else None
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbedding(kind.patch, width)
        rates = torch.linspace(0, drop_path, size.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(size, kind, rate, rank, alpha) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=kind.eps)
        for token in (self.cls_token, self.pos_embed, self.register_tokens):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def before_patches(self) -> int:
        """How many tokens stand before those of the patches."""
        return 1 + self.kind.registers

    def embed(self, pixels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W) of whole patches -> tokens (B, N, C) with their positions, if these are learned.

        hidden (B, H/p, W/p) bool: patches whose tokens are the mask token instead.
        """
        rows, columns = (side // self.kind.patch for side in pixels.shape[-2:])
        tokens = self.patch_embed(pixels)
        if hidden is not None:
            tokens = torch.where(hidden.flatten(1)[..., None], self.mask_token.to(tokens.dtype), tokens)
        first: Tensor = self.cls_token
        if self.pos_embed is not None:
            first = first + self.pos_embed[:, :1]
            tokens = tokens + self.positions(rows, columns)
        before = [first] if self.register_tokens is None else [first, self.register_tokens]
        return torch.cat([*(token.to(tokens.dtype).expand(tokens.shape[0], -1, -1) for token in before), tokens], dim=1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The learned positions of so many patches: (1, rows · columns, C), by bicubic interpolation."""
        assert self.pos_embed is not None and self.kind.grid is not None
        grid, known = self.kind.grid, self.pos_embed[:, 1:]
        if rows == columns == grid:
            return known
        vertical, horizontal = (self._resampling(grid, side, known) for side in (rows, columns))
        table = known.view(grid, grid, -1)
        # Products: a GPU's backward pass of bicubic interpolation adds up in any order.
        return torch.einsum("ri,cj,ijk->rck", vertical, horizontal, precise(table)).flatten(0, 1)[None]

    def _resampling(self, old: int, new: int, like: Tensor) -> Tensor:
        """The matrix (new, old) of bicubic interpolation."""
        unit = torch.eye(old, device=like.device, dtype=torch.get_default_dtype())[None, None]
        return F.interpolate(unit, size=(new, old), mode="bicubic", antialias=self.kind.antialias)[0, 0]

    def rotation(self, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of so many patches, each (rows · columns, C / heads); None where positions are learned."""
        if self.kind.grid is not None:
            return None
        quarter, dtype = self.size.width // self.size.heads // 4, torch.get_default_dtype()
        speeds = PERIOD ** -(torch.arange(quarter, device=device, dtype=dtype) / quarter)
        y, x = (2 * (torch.arange(side, device=device, dtype=dtype) + 0.5) / side - 1 for side in (rows, columns))
        y, x = (2 * math.pi * place[:, None] * speeds for place in (y, x))
        grid = (rows, columns, quarter)
        angles = torch.cat([y[:, None].expand(grid), x[None].expand(grid)], dim=-1).flatten(0, 1).repeat(1, 2)
        return angles.cos(), angles.sin()

    def as_map(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens (B, N, C) -> those of the patches after the last norm: (B, C, rows, columns)."""
        patches: Tensor = self.norm(tokens)[:, self.before_patches :]
        return patches.transpose(1, 2).reshape(patches.shape[0], -1, rows, columns)


def rotated(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys (B, heads, N, D), of which the last ones are patches: these turned by their position."""
    before, patches = heads[:, :, : -len(cosine)], heads[:, :, -len(cosine) :]
    left, right = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat([-right, left], dim=-1) * sine
    return torch.cat([before.to(turned.dtype), turned], dim=2)

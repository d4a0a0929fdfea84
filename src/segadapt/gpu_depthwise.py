"""Depthwise convolutions on a GPU, forward and backward: part of `gpu_kernels`.

cuDNN is slow where the kernel is 5×5 or dilated and the channels lie last in memory, which is most of an
EfficientNet-Lite0. Here a program computes a tile of positions and channels; a weight is read once for all positions of
a tile. The gradient of the weights has partial sums, which a second kernel adds up: always in the same order.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, SUM_ROWS, WIDTH = 16, 32, 64
"""Positions of a tile, of one whose sums are gradients of weights, and channels of both."""
PROGRAMS = 4096
"""Programs that a GPU has at once, more or less: so many compute the gradients of the weights."""
SIZES = ["rows", "height", "width", "from_height", "from_width", "top", "left", "dilation"]
"""Numbers for whose values no kernel of its own is compiled: a network has some forty kinds of layers otherwise."""
FLOATS = torch.float32, torch.bfloat16, torch.float16
MOST = 2**31 - 2**16
"""Activations that 32 bits can count."""


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator, unused-ignore]
def _gather(source, weights, bias, out, rows, channels, height, width, from_height, from_width, top, left, dilation, STRIDE: tl.constexpr, SIDE: tl.constexpr, TURNED: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803, E501
    # A position of `out` gathers from `source`: the output from the input, or the input's gradient from the output's.
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known, inside = channel < channels, position < rows
    column, row, image = position % width, (position // width) % height, position // (width * height)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    if BIAS:
        total += tl.load(bias + channel, known, other=0.0).to(tl.float32)[None, :]
    for place in tl.static_range(SIDE * SIDE):
        down, right = (place // SIDE) * dilation - top, (place % SIDE) * dilation - left
        if TURNED:
            y, x = row - down, column - right
            there = inside & (y >= 0) & (x >= 0) & (y % STRIDE == 0) & (x % STRIDE == 0)
            y, x = y // STRIDE, x // STRIDE
        else:
            y, x = row * STRIDE + down, column * STRIDE + right
            there = inside & (y >= 0) & (x >= 0)
        there = there & (y < from_height) & (x < from_width)
        at = ((image * from_height + y) * from_width + x)[:, None] * channels + channel[None, :]
        values = tl.load(source + at, there[:, None] & known[None, :], other=0.0)
        weight = tl.load(weights + channel * (SIDE * SIDE) + place, known, other=0.0).to(values.dtype)
        total += values.to(tl.float32) * weight.to(tl.float32)[None, :]
    at = position[:, None] * channels + channel[None, :]
    tl.store(out + at, total, inside[:, None] & known[None, :])


@triton.jit(do_not_specialize=[*SIZES, "turns"])  # type: ignore[untyped-decorator, unused-ignore]
def _weight_sums(gradient, source, sums, rows, channels, height, width, from_height, from_width, top, left, dilation, turns, STRIDE: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803, E501
    block, place = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = channel < channels
    down, right = (place // SIDE) * dilation - top, (place % SIDE) * dilation - left
    total = tl.zeros((WIDTH,), tl.float32)
    for turn in range(turns):
        position = (block * turns + turn) * ROWS + tl.arange(0, ROWS)
        column, row, image = position % width, (position // width) % height, position // (width * height)
        y, x = row * STRIDE + down, column * STRIDE + right
        there = (position < rows) & (y >= 0) & (x >= 0) & (y < from_height) & (x < from_width)
        inside = there[:, None] & known[None, :]
        of_out = tl.load(gradient + position[:, None] * channels + channel[None, :], inside, other=0.0)
        at = ((image * from_height + y) * from_width + x)[:, None] * channels + channel[None, :]
        values = tl.load(source + at, inside, other=0.0)
        total += tl.sum(of_out.to(tl.float32) * values.to(tl.float32), 0)
    tl.store(sums + (block * SIDE * SIDE + place) * channels + channel, total, known)


@dataclass(frozen=True)
class How:
    """A depthwise convolution with a square kernel: y[i, j] = Σ_uv w[u, v] · x[s·i + d·u - top, s·j + d·v - left]."""

    stride: int
    top: int
    left: int
    dilation: int
    size: tuple[int, int]  # height and width of the output


def fits_depthwise(activations: Tensor, weights: Tensor) -> bool:
    """Whether the kernels can compute it: activations (B, C, H, W) in float32 or less, weights (C, 1, k, k)."""
    return (
        activations.dtype in FLOATS
        and weights.dtype in FLOATS
        and weights.shape[:2] == (activations.shape[1], 1)
        and weights.shape[2] == weights.shape[3]
        and 0 < activations.numel() < MOST
    )


def depthwise(activations: Tensor, weights: Tensor, bias: Tensor | None, how: How) -> Tensor:
    """Activations (B, C, H, W), weights (C, 1, k, k) and a bias (C,) if any -> (B, C, h, w), channels last in memory.

    Under autocast in its dtype, into which the weights are rounded; sums are float32. See `fits_depthwise`.
    """
    if torch.is_autocast_enabled("cuda"):
        activations = activations.to(torch.get_autocast_dtype("cuda"))
    given = activations.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, _Depthwise.apply(given, weights, bias, how))  # type: ignore[no-untyped-call]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, weights: Tensor, bias: Tensor | None, how: How) -> Tensor:
        ctx.save_for_backward(given, weights)
        ctx.how, ctx.bias_dtype = how, None if bias is None else bias.dtype
        shape = (len(given), given.shape[1], *how.size)
        return _gathered(given, weights, bias, shape, how, turned=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given, weights = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_given, of_weights, of_bias = ctx.needs_input_grad[:3]
        return (
            _gathered(gradient, weights, None, given.shape, ctx.how, turned=True) if of_given else None,
            _of_weights(gradient, given, weights, ctx.how) if of_weights else None,
            gradient.sum((0, 2, 3), dtype=torch.float32).to(ctx.bias_dtype) if of_bias else None,
            None,
        )


def _gathered(
    source: Tensor, weights: Tensor, bias: Tensor | None, shape: tuple[int, ...], how: How, turned: bool
) -> Tensor:
    out = torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=torch.channels_last)
    grid, rows, width = _tiles(out, ROWS)
    with torch.cuda.device_of(source):  # type: ignore[no-untyped-call]
        _gather[grid](
            *(source, weights, source if bias is None else bias, out, rows, *_sizes(out, source, how)),
            *(how.stride, weights.shape[2], turned, bias is not None, ROWS, width),
        )
    return out


def _of_weights(gradient: Tensor, given: Tensor, weights: Tensor, how: How) -> Tensor:
    side = weights.shape[2]
    (blocks, groups), rows, width = _tiles(gradient, SUM_ROWS)
    wanted = max(1, PROGRAMS // (groups * side * side))
    turns = triton.cdiv(blocks, wanted)
    blocks = triton.cdiv(blocks, turns)
    sums = torch.empty((blocks, side * side, gradient.shape[1]), dtype=torch.float32, device=gradient.device)
    with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
        _weight_sums[(blocks, groups, side * side)](
            *(gradient, given, sums, rows, *_sizes(gradient, given, how), turns),
            *(how.stride, side, SUM_ROWS, width),
        )
    return sums.sum(0).mT.reshape(weights.shape).to(weights.dtype)


def _tiles(out: Tensor, height: int) -> tuple[tuple[int, int], int, int]:
    """The grid of tiles of (B, C, h, w), its positions, and the channels of a tile."""
    channels = out.shape[1]
    rows, width = out.numel() // channels, min(WIDTH, triton.next_power_of_2(channels))
    return (triton.cdiv(rows, height), triton.cdiv(channels, width)), rows, width


def _sizes(out: Tensor, source: Tensor, how: How) -> tuple[int, ...]:
    """What both kernels are told of the tensors and of the convolution."""
    return out.shape[1], *out.shape[-2:], *source.shape[-2:], how.top, how.left, how.dilation

"""GPU kernels that fuse several of PyTorch's: `devices.gpu_kernels` says where they can be used.

- A batch norm with fixed statistics, the shortcut that is added to it and its ReLU are one kernel, and one backward
  (two where its weight and bias learn). A network like ResNet-101 otherwise spends as long in these as in its
  convolutions: each reads and writes all activations.
- Depthwise convolutions (`gpu_depthwise`), forward and backward, where cuDNN is slow.
- The shifted sum of an atrous head's taps (`models.heads.summed`) is one, and one backward, instead of some forty that
  each move next to nothing.

Written in Triton, which comes with PyTorch's builds for NVIDIA's and AMD's GPUs.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor
from torch.autograd.function import once_differentiable

from segadapt.gpu_depthwise import How, depthwise, fits_depthwise

__all__ = ["How", "depthwise", "fits", "fits_depthwise", "knows", "normed", "shifted_sum", "spread"]

BLOCK = 1024
"""Activations computed by one program of a kernel."""
MOST = 2**31 - BLOCK
"""The largest number of activations that 32 bits can index."""
ROWS, WIDTH = 32, 64
"""Positions and channels of a tile whose sums over positions are a norm's gradients."""
MOST_SUMS = 256
"""Partial sums per channel; their sum is a second kernel, so that its order is always the same."""
TAPS_BLOCK = 256
"""Values of a head computed by one program."""
MOST_CONVS = 4
"""Number of a head's convolutions that the kernels support."""


def _on_device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Triton launches on the current GPU, which need not be the tensor's."""
    return cast(AbstractContextManager[None], torch.cuda.device_of(tensor))  # type: ignore[no-untyped-call]


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _forward(given, weight, bias, mean, variance, eps, plus, top, out, count, channels, PLUS: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803, E501
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    channel = at % channels  # channels are last in memory
    factor = tl.load(weight + channel, inside).to(tl.float32) / tl.sqrt(tl.load(variance + channel, inside) + eps)
    shift = tl.load(bias + channel, inside) - tl.load(mean + channel, inside) * factor
    values = tl.load(given + at, inside).to(tl.float32) * factor + shift
    if PLUS:
        values += tl.load(plus + at, inside).to(tl.float32)
    if RELU:
        values = tl.where(values <= 0, 0.0, values)  # NaN stays NaN, as in PyTorch
        values = tl.where(values >= top, top, values)
    tl.store(out + at, values, inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _backward(gradient, weight, variance, eps, top, out, of_given, of_plus, count, channels, PLUS: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803, E501
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    channel = at % channels
    values = tl.load(gradient + at, inside).to(tl.float32)
    if RELU:
        after = tl.load(out + at, inside).to(tl.float32)
        values = tl.where((after <= 0) | (after >= top), 0.0, values)
    if PLUS:
        tl.store(of_plus + at, values, inside)
    factor = tl.load(weight + channel, inside).to(tl.float32) / tl.sqrt(tl.load(variance + channel, inside) + eps)
    tl.store(of_given + at, values * factor, inside)


@triton.jit(do_not_specialize=["rows", "turns"])  # type: ignore[untyped-decorator, unused-ignore]
def _backward_and_sums(gradient, given, weight, mean, variance, eps, top, out, of_given, of_plus, sums, rows, channels, turns, PLUS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803, E501
    block, channel = tl.program_id(0), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = channel < channels
    inverse = 1.0 / tl.sqrt(tl.load(variance + channel, known, other=1.0) + eps)
    factor, centre = tl.load(weight + channel, known) * inverse, tl.load(mean + channel, known)
    of_weight, of_bias = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for turn in range(turns):
        row = (block * turns + turn) * ROWS + tl.arange(0, ROWS)
        at, inside = row[:, None] * channels + channel[None, :], (row < rows)[:, None] & known[None, :]
        values = tl.load(gradient + at, inside, other=0.0).to(tl.float32)
        if RELU:
            after = tl.load(out + at, inside, other=0.0).to(tl.float32)
            values = tl.where((after <= 0) | (after >= top), 0.0, values)
        if PLUS:
            tl.store(of_plus + at, values, inside)
        tl.store(of_given + at, values * factor[None, :], inside)
        normalized = (tl.load(given + at, inside, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        of_weight += tl.sum(values * normalized, 0)
        of_bias += tl.sum(values, 0)
    tl.store(sums + block * 2 * channels + channel, of_weight, known)
    tl.store(sums + (block * 2 + 1) * channels + channel, of_bias, known)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor, float],
        plus: Tensor | None,
        relu_to: float | None,
    ) -> Tensor:
        mean, variance, eps = statistics
        out, count, relu = torch.empty_like(given), given.numel(), relu_to is not None
        with _on_device_of(given):
            _forward[(triton.cdiv(count, BLOCK),)](
                *(given, weight, bias, mean, variance, eps, given if plus is None else plus, relu_to or 0.0, out),
                *(count, given.shape[1], plus is not None, relu, BLOCK),
            )
        ctx.learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]  # then its input is needed again
        ctx.save_for_backward(weight, mean, variance, given if ctx.learns else None, out if relu else None)
        ctx.eps, ctx.has_plus, ctx.relu_to = eps, plus is not None, relu_to
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, variance, given, out = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_given, relu = torch.empty_like(gradient), ctx.relu_to is not None
        # Without a ReLU the gradient of the shortcut is the incoming gradient.
        of_plus = torch.empty_like(gradient) if ctx.has_plus and relu else gradient
        how = ctx.eps, ctx.relu_to or 0.0, out if relu else gradient, of_given, of_plus
        switches = of_plus is not gradient, relu
        of_norm: tuple[Tensor | None, ...] = (None, None)
        channels, count = gradient.shape[1], gradient.numel()
        with _on_device_of(gradient):
            if ctx.learns:
                rows = count // channels
                turns = triton.cdiv(rows, ROWS * MOST_SUMS)
                blocks, width = triton.cdiv(rows, ROWS * turns), min(WIDTH, triton.next_power_of_2(channels))
                sums = torch.empty((blocks, 2, channels), dtype=torch.float32, device=gradient.device)
                _backward_and_sums[(blocks, triton.cdiv(channels, width))](
                    *(gradient, given, weight, mean, variance, *how, sums, rows, channels, turns),
                    *(*switches, ROWS, width),
                )
                of_norm = sums.sum(0).to(weight.dtype).unbind()
            else:
                _backward[(triton.cdiv(count, BLOCK),)](
                    *(gradient, weight, variance, *how, count, channels, *switches, BLOCK)
                )
        return of_given, *of_norm, None, of_plus if ctx.has_plus else None, None


def fits(given: Tensor, plus: Tensor | None) -> bool:
    """Whether the kernels support these: (B, C, H, W) with channels last in memory, at most float32."""
    return (
        given.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and 0 < given.numel() < MOST
        and given.is_contiguous(memory_format=torch.channels_last)
        and (plus is None or (plus.dtype == given.dtype and plus.shape == given.shape))
    )


def normed(given: Tensor, norm: torch.nn.BatchNorm2d, plus: Tensor | None, relu_to: float | None) -> Tensor:
    """`norm(given)` by the running statistics, with `plus` and a ReLU that ends at `relu_to` where they are given.

    (B, C, H, W) on a GPU, see `fits`. Gradients flow to `given`, `plus`, and the norm's weight and bias if they learn.
    """
    statistics = (norm.running_mean, norm.running_var, norm.eps)
    if plus is not None:
        plus = plus.contiguous(memory_format=torch.channels_last)
    return _Normed.apply(given, norm.weight, norm.bias, statistics, plus, relu_to)  # type: ignore[no-any-return, no-untyped-call]


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sum(taps, bias, d0, d1, d2, d3, out, count, height, width, channels, CONVS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of (B, h, w, C)
    inside = at < count
    channel, pixel = at % channels, at // channels
    column, row = pixel % width, (pixel // width) % height
    total = tl.load(bias + channel, inside)
    for number in tl.static_range(CONVS):
        dilation = d0 if number == 0 else d1 if number == 1 else d2 if number == 2 else d3
        own = tl.zeros((BLOCK,), tl.float32)
        for tap in tl.static_range(9):
            down, right = (1 - tap // 3) * dilation, (1 - tap % 3) * dilation  # where the tap's value comes from
            there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            source = ((pixel + down * width + right).to(tl.int64) * (CONVS * 9) + number * 9 + tap) * channels + channel
            own += tl.load(taps + source, inside & there, other=0.0).to(tl.float32)
        total += own
    tl.store(out + at, total, inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _spread(gradient, d0, d1, d2, d3, out, count, height, width, channels, CONVS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # fmt: skip # noqa: N803
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # of (B, h, w, n, 9, C)
    inside = at < count
    channel, left = at % channels, at // channels
    tap, left = left % 9, left // 9
    number, pixel = left % CONVS, left // CONVS
    column, row = pixel % width, (pixel // width) % height
    dilation = tl.where(number == 0, d0, tl.where(number == 1, d1, tl.where(number == 2, d2, d3)))
    down, right = (tap // 3 - 1) * dilation, (tap % 3 - 1) * dilation  # where the tap's value went
    there = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
    values = tl.load(gradient + (pixel + down * width + right) * channels + channel, inside & there, other=0.0)
    tl.store(out + at, values, inside)


def knows(bias: Tensor, dilations: Sequence[int]) -> bool:
    """Whether `shifted_sum` and `spread` support a head of these."""
    return bias.dtype == torch.float32 and len(dilations) <= MOST_CONVS


def shifted_sum(of_taps: Tensor, bias: Tensor, size: tuple[int, int], dilations: Sequence[int]) -> Tensor:
    """Taps (B, h·w, n·9·C) and a bias (C,) float32 -> (B, h, w, C) float32."""
    images, convs = len(of_taps), len(dilations)
    out = torch.empty((images, *size, len(bias)), dtype=torch.float32, device=of_taps.device)
    count = out.numel()
    with _on_device_of(of_taps):
        _sum[(triton.cdiv(count, TAPS_BLOCK),)](
            *(of_taps, bias.contiguous(), *_four(dilations), out, count, *size, len(bias), convs, TAPS_BLOCK)
        )
    return out


def spread(gradient: Tensor, dilations: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The gradient (B, h, w, C) -> that of the taps (B, h·w, n·9·C)."""
    images, height, width, channels = gradient.shape
    convs = len(dilations)
    out = torch.empty((images, height * width, convs * 9 * channels), dtype=dtype, device=gradient.device)
    count = out.numel()
    with _on_device_of(gradient):
        _spread[(triton.cdiv(count, TAPS_BLOCK),)](
            *(gradient, *_four(dilations), out, count, height, width, channels, convs, TAPS_BLOCK)
        )
    return out


def _four(dilations: Sequence[int]) -> tuple[int, ...]:
    return (*dilations, *[0] * (MOST_CONVS - len(dilations)))

"""GPU kernels that fuse several of PyTorch's: `devices.gpu_kernels` says where they can be used.

- A frozen batch norm, the shortcut that is added to it and its ReLU are one kernel, and one in the backward pass.
  Otherwise a network like ResNet-101 spends as long in these as in its convolutions, since each reads and writes all
  activations.
- The shifted sum of an atrous head's taps (`models.heads.summed`) is one kernel, and one in the backward pass, instead
  of some forty that each do very little.

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

BLOCK = 1024
"""Activations computed by one program of a kernel."""
MOST = 2**31 - BLOCK
"""The largest number of activations that 32 bits can index."""
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


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        norm: tuple[Tensor, Tensor, Tensor, Tensor, float],
        plus: Tensor | None,
        relu_to: float | None,
    ) -> Tensor:
        weight, bias, mean, variance, eps = norm
        out, count, relu = torch.empty_like(given), given.numel(), relu_to is not None
        with _on_device_of(given):
            _forward[(triton.cdiv(count, BLOCK),)](
                *(given, weight, bias, mean, variance, eps, given if plus is None else plus, relu_to or 0.0, out),
                *(count, given.shape[1], plus is not None, relu, BLOCK),
            )
        ctx.save_for_backward(weight, variance, *([out] if relu else []))
        ctx.eps, ctx.has_plus, ctx.relu_to = eps, plus is not None, relu_to
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, variance, *kept = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        count, of_given, relu = gradient.numel(), torch.empty_like(gradient), ctx.relu_to is not None
        # Without a ReLU the gradient of the shortcut is the incoming gradient.
        of_plus = torch.empty_like(gradient) if ctx.has_plus and relu else gradient
        with _on_device_of(gradient):
            _backward[(triton.cdiv(count, BLOCK),)](
                *(gradient, weight, variance, ctx.eps, ctx.relu_to or 0.0, kept[0] if relu else gradient, of_given),
                *(of_plus, count, gradient.shape[1], of_plus is not gradient, relu, BLOCK),
            )
        return of_given, None, of_plus if ctx.has_plus else None, None


def fits(given: Tensor, plus: Tensor | None) -> bool:
    """Whether the kernels support these: (B, C, H, W) with channels last in memory, at most float32."""
    return (
        given.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and 0 < given.numel() < MOST
        and given.is_contiguous(memory_format=torch.channels_last)
        and (plus is None or (plus.dtype == given.dtype and plus.shape == given.shape))
    )


def normed(given: Tensor, norm: torch.nn.BatchNorm2d, plus: Tensor | None, relu_to: float | None) -> Tensor:
    """`norm(given)` of a frozen norm, plus the shortcut `plus`, through a ReLU capped at `relu_to`, if given.

    (B, C, H, W) on a GPU, see `fits`. Gradients flow to `given` and `plus`.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    of_norm = (norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var, norm.eps)
    if plus is not None:
        plus = plus.contiguous(memory_format=torch.channels_last)
    return _Normed.apply(given, of_norm, plus, relu_to)  # type: ignore[no-any-return, no-untyped-call]


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

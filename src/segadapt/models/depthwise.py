"""Depthwise convolutions whose backward pass is as quick as the forward one, in bf16 on a CPU.

There oneDNN has quick kernels for every forward pass, but for the backward one only where the kernel is 3×3 without
stride or dilation: a 5×5 or a dilated one takes up to a hundred times as long as its forward pass, which is half of a
training step of EfficientNet-Lite0. Both gradients are made of what is quick:

    of the input    a depthwise convolution too: of the output's gradient, with zeros between its rows and columns
                    where there was a stride, by the kernel turned around
    of the weights  for each of the kernel's places the product of the gradient and the input shifted to it, summed
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Pair = tuple[int, int]


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether each channel is convolved with a square kernel of its own, with one stride and one dilation."""
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and len(set(conv.kernel_size)) == len(set(conv.stride)) == len(set(conv.dilation)) == 1
    )


def gains_from_depthwise(conv: nn.Conv2d, activations: Tensor) -> bool:
    """Whether `depthwise_conv2d` should do it: on a CPU under autocast, where the library's backward pass is slow."""
    return (
        activations.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and is_depthwise(conv)
        and max(conv.kernel_size) * conv.stride[0] * conv.dilation[0] > 3
    )


def depthwise_conv2d(
    activations: Tensor, weights: Tensor, bias: Tensor | None, stride: int, padding: Pair, dilation: int
) -> Tensor:
    """`F.conv2d` with as many groups as channels, under autocast on a CPU: activations (B, C, H, W) -> (B, C, h, w).

    Weights are (C, 1, k, l), the bias (C,) if any; padding is of rows and columns.
    """
    dtype = torch.get_autocast_dtype("cpu")
    bias = None if bias is None else bias.to(dtype)
    how = stride, padding, dilation
    return _Depthwise.apply(activations.to(dtype), weights.to(dtype), bias, *how)  # type: ignore[no-any-return, no-untyped-call]


class _Depthwise(torch.autograd.Function):
    """y[c, i, j] = bias[c] + Σ_uv weights[c, u, v] · x[c, s·i + d·u - top, s·j + d·v - left]; stride s, dilation d."""

    @staticmethod
    def forward(
        ctx: Any, activations: Tensor, weights: Tensor, bias: Tensor | None, stride: int, padding: Pair, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(activations, weights)
        ctx.how = stride, padding, dilation
        return F.conv2d(activations, weights, bias, stride, padding, dilation, len(weights))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        activations, weights = ctx.saved_tensors
        of_activations, of_weights, of_bias = ctx.needs_input_grad[:3]
        return (
            input_gradient(gradient, weights, activations.shape, *ctx.how) if of_activations else None,
            weight_gradient(gradient, activations, weights, *ctx.how) if of_weights else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            *[None] * 3,
        )


def input_gradient(
    gradient: Tensor, weights: Tensor, shape: torch.Size, stride: int, padding: Pair, dilation: int
) -> Tensor:
    """The gradient of activations (B, C, H, W), given this shape, from that of the output (B, C, h, w)."""
    if stride > 1:
        sizes = [(size - 1) * stride + 1 for size in gradient.shape[-2:]]
        spread = gradient.new_zeros(*gradient.shape[:2], *sizes).to(memory_format=torch.channels_last)
        spread[..., ::stride, ::stride] = gradient
        gradient = spread
    reach = [dilation * (size - 1) for size in weights.shape[-2:]]  # of the kernel, from its first place to its last
    top, left = (most - least for most, least in zip(reach, padding, strict=True))
    bottom, right = (
        size - given + least for size, given, least in zip(shape[-2:], gradient.shape[-2:], padding, strict=True)
    )
    if (top, left) != (bottom, right):
        gradient, top, left = F.pad(gradient, (left, right, top, bottom)), 0, 0
    return F.conv2d(gradient, weights.flip(2, 3), None, 1, (top, left), dilation, len(weights))


def weight_gradient(
    gradient: Tensor, activations: Tensor, weights: Tensor, stride: int, padding: Pair, dilation: int
) -> Tensor:
    """The gradient of the weights (C, 1, k, l), from that of the output (B, C, h, w)."""
    top, left = padding
    padded = F.pad(activations, (left, left, top, top)) if max(padding) else activations
    height, width = ((size - 1) * stride + 1 for size in gradient.shape[-2:])
    rows, columns = ([dilation * place for place in range(size)] for size in weights.shape[-2:])
    places = [
        (padded[..., u : u + height : stride, v : v + width : stride] * gradient).sum((0, 2, 3), dtype=torch.float32)
        for u in rows
        for v in columns
    ]
    return torch.stack(places, 1).view(weights.shape).to(weights.dtype)

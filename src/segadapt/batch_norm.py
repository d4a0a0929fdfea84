"""The batch norms of a network: frozen, or learning their running statistics.

A batch norm in train mode normalizes by the statistics of its input, which its running statistics follow; in eval mode
it normalizes by the running statistics, which stay fixed. No other part of a segmenter has a mode that matters. Its
input in train mode is one pass of a micro-batch, over all ranks: see `share_statistics`.
"""

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from segadapt.devices import gpu_kernels


@dataclass(frozen=True)
class _Kept:
    """A frozen batch norm's scale and shift, and what they were computed from, so that changes are noticed."""

    made_from: tuple[Tensor, ...]
    versions: tuple[int, ...]
    made: tuple[Tensor, Tensor]


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, except that a frozen one keeps no activation for the backward pass: (B, C, H, W) -> the same shape.

    Frozen, in eval mode and without gradients of its own, it is one scale and one shift per channel, and the gradient
    of its input needs only these; PyTorch's operation keeps its input all the same, which is about half of what a
    ResNet keeps in training. If autocast has the activations in another dtype, PyTorch's operation is used, which
    computes in float32; `normed` is better there.
    """

    _kept: "_Kept | None" = None

    def forward(self, activations: Tensor) -> Tensor:
        if not self.is_frozen or activations.dtype != self.weight.dtype:
            return super().forward(activations)
        factor, shift = self.factor_and_shift()
        return torch.addcmul(shift[:, None, None], activations, factor[:, None, None])

    @property
    def is_frozen(self) -> bool:
        """Whether training changes nothing in it."""
        return not (self.training or self.weight.requires_grad or self.bias.requires_grad)

    def factor_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of a frozen one, (C,) each. Cached until any part of it changes."""
        assert self.running_mean is not None and self.running_var is not None
        made_from = (self.weight, self.bias, self.running_mean, self.running_var)
        if torch.compiler.is_compiling() or any(tensor.is_inference() for tensor in made_from):
            return self._factor_and_shift()  # changes cannot be detected there
        versions = tuple(tensor._version for tensor in made_from)
        kept = self._kept
        if kept is not None and kept.versions == versions and all(map(operator.is_, kept.made_from, made_from)):
            return kept.made
        made = self._factor_and_shift()
        # Captured ones only have values at replay, and fake tensors never do.
        captured = self.weight.is_cuda and torch.cuda.is_current_stream_capturing()
        if type(made[0]) is Tensor and not captured:
            self._kept = _Kept(made_from, versions, made)
        return made

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, whose tensors count versions from the start: nothing is cached."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _factor_and_shift(self) -> tuple[Tensor, Tensor]:
        assert self.running_mean is not None and self.running_var is not None
        factor = self.weight * torch.rsqrt(self.running_var + self.eps)
        return factor, self.bias - self.running_mean * factor


def normed(
    conv: nn.Conv2d, norm: nn.Module, activations: Tensor, plus: Tensor | None = None, relu_to: float | None = None
) -> Tensor:
    """`norm(conv(activations))`, (B, F, H, W) -> (B, C, h, w); with an optional shortcut `plus` and ReLU.

    `relu_to` is where the ReLU ends: infinity, or 6 for ReLU6.
    One operation after another, as in the published networks, or in quicker ones: on a GPU a norm in eval mode, the sum
    and the ReLU are one kernel (`gpu_kernels`); otherwise, under autocast a frozen norm goes into the convolution's
    weights (`_in_weights`).
    """
    device = activations.device.type
    frozen = isinstance(norm, BatchNorm2d) and norm.is_frozen
    resting = isinstance(norm, BatchNorm2d) and not norm.training and norm.running_mean is not None
    kernels = gpu_kernels(activations) if resting else None
    if kernels is not None:
        given = conv(activations)
        if kernels.fits(given, plus):
            return cast(Tensor, kernels.normed(given, norm, plus, relu_to))
        given = norm(given)
    elif device in ("cpu", "cuda") and torch.is_autocast_enabled(device) and (frozen or device == "cpu"):
        given = _in_weights(conv, norm, activations)
    else:
        given = norm(conv(activations))
    if plus is not None:
        given = given + plus
    if relu_to is None:
        return cast(Tensor, given)
    return F.relu(given, inplace=True) if relu_to == math.inf else F.hardtanh(given, 0.0, relu_to, inplace=True)


def _in_weights(conv: nn.Conv2d, norm: nn.Module, activations: Tensor) -> Tensor:
    """`norm(conv(activations))` under autocast, in fewer and faster operations.

    A frozen norm is folded into the convolution's weights, which are fewer than the activations and must be cast
    anyway: no activation is read, written or kept for it. On a CPU a 1×1 convolution is computed as a matrix product,
    a third faster in the backward pass. (float32 keeps the published order of operations.)
    """
    weights, bias, after = conv.weight, conv.bias, norm
    if isinstance(norm, BatchNorm2d) and norm.is_frozen:
        factor, shift = norm.factor_and_shift()
        weights, after = weights * factor[:, None, None, None], nn.Identity()
        bias = shift if bias is None else shift + bias * factor
    if activations.device.type == "cpu" and conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1:
        given = F.linear(activations.permute(0, 2, 3, 1), weights.flatten(1), bias).permute(0, 3, 1, 2)
    else:
        given = conv._conv_forward(activations, weights, bias)  # also of subclasses
    return after(given)  # type: ignore[no-any-return]


def batch_norms(network: nn.Module) -> Iterator[BatchNorm]:
    """All of them, in the network's order."""
    return (module for module in network.modules() if isinstance(module, BatchNorm))


def set_learning(network: nn.Module, learns: bool) -> None:
    """Put all of them into train mode, or eval mode."""
    for norm in batch_norms(network):
        norm.train(learns)


def is_learning(module: nn.Module) -> bool:
    """Whether this module is a batch norm in train mode."""
    return isinstance(module, BatchNorm) and module.training


Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the ranks, in place, and returns it."""


@contextmanager
def keeping_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms in train mode normalize by their input's statistics, but their running ones do not follow."""
    norms = list(batch_norms(network))
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def share_statistics(network: nn.Module, total: Total) -> None:
    """From now on, the network's batch norms in train mode normalize by the statistics of all ranks' activations.

    Every rank must pass through the same norms in the same order, forward and backward.
    """
    for norm in batch_norms(network):
        norm.forward = partial(_forward, norm, total)  # type: ignore[method-assign]


def _forward(norm: BatchNorm, total: Total, activations: Tensor) -> Tensor:
    """As PyTorch's, for one rank of several: activations (B, C, ...) -> the same shape."""
    if not norm.training:
        return type(norm).forward(norm, activations)
    weight = norm.weight if norm.weight is not None else activations.new_ones(activations.shape[1])
    bias = norm.bias if norm.bias is not None else activations.new_zeros(activations.shape[1])
    given, mean, variance, count = _OverRanks.apply(activations, weight, bias, norm.eps, total)  # type: ignore[no-untyped-call]
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        # `momentum` None: the mean over all inputs so far.
        momentum = 1.0 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
        unbiased = variance * (count / (count - 1).clamp_min(1))
        norm.running_mean.mul_(1 - momentum).add_(momentum * mean.to(norm.running_mean.dtype))
        norm.running_var.mul_(1 - momentum).add_(momentum * unbiased.to(norm.running_var.dtype))
    return given  # type: ignore[no-any-return]


class _OverRanks(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) · weight + bias with mean and variance over all ranks, images and pixels.

    With x^ = (x - mean) / sqrt(variance + eps), N values of a channel in all, and sums over all ranks' values:
    dx = weight / sqrt(variance + eps) · (dy - Σ dy / N - x^ · Σ (dy · x^) / N)    (Ioffe and Szegedy, 2015, section 3)
    Gradients of weight and bias are this rank's: the updater sums them, as those of all parameters.
    """

    @staticmethod
    def forward(
        ctx: Any, activations: Tensor, weight: Tensor, bias: Tensor, eps: float, total: Total
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = activations.to(weight.dtype)  # autocast may have reduced its precision
        others = [0, *range(2, values.dim())]
        variance, mean = torch.var_mean(values, others, correction=0)
        n = values.numel() // values.shape[1]
        # Sums about zero would cancel; so each rank's mean and sum of squares about it are combined (Chan et al.,
        # 1979): first the mean over all, and then what each rank's squares are about that.
        sums = total(F.pad(mean.double() * n, (0, 1), value=n))  # and the number of values
        count, overall = sums[-1], sums[:-1] / sums[-1]
        about = total((variance.double() + (mean.double() - overall).square()) * n) / count
        mean, factor = overall.to(values.dtype), torch.rsqrt(about + eps).to(values.dtype)
        ctx.save_for_backward(activations, weight, mean, factor, count)
        ctx.total = total
        shape = [1, -1, *[1] * (values.dim() - 2)]
        scale = factor * weight
        given = torch.addcmul(bias.view(shape), values - mean.view(shape), scale.view(shape)).to(activations.dtype)
        ctx.mark_non_differentiable(overall, about, count)
        return given, overall, about, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        activations, weight, mean, factor, count = ctx.saved_tensors
        dy, values = gradient.to(weight.dtype), activations.to(weight.dtype)
        shape, others = [1, -1, *[1] * (values.dim() - 2)], [0, *range(2, values.dim())]
        normed = (values - mean.view(shape)) * factor.view(shape)
        dbias, dweight = dy.sum(others), (dy * normed).sum(others)
        of_all = ctx.total(torch.stack([dbias, dweight]).double()) / count
        shift, slope = of_all.to(dy.dtype)
        dactivations = (dy - shift.view(shape) - normed * slope.view(shape)) * (factor * weight).view(shape)
        return dactivations.to(activations.dtype), dweight.to(weight.dtype), dbias.to(weight.dtype), None, None

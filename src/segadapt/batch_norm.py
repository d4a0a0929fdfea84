"""The batch norms of a network: frozen, or learning statistics.

A batch norm in train mode normalizes by the statistics of what it sees, and its running statistics follow these; in
eval mode it normalizes by the running ones, which stay. Nothing else in a segmenter has a mode that matters.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, of which a frozen one keeps no map for the way back: (B, C, H, W) -> the same shape.

    Frozen, in eval mode and without gradients of its own, it is one factor and one shift per channel, and the gradient
    of its input needs these alone; PyTorch's operation keeps its input all the same, which is about half of what a
    ResNet keeps in training. Where autocast has the maps in another dtype, PyTorch's operation does it, which computes
    in float32; see `normed` for what is better there.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self.is_frozen or maps.dtype != self.weight.dtype:
            return super().forward(maps)
        factor, shift = self.factor_and_shift()
        return torch.addcmul(shift[:, None, None], maps, factor[:, None, None])

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of it changes in training."""
        return not (self.training or self.weight.requires_grad or self.bias.requires_grad)

    def factor_and_shift(self) -> tuple[Tensor, Tensor]:
        """What a frozen one does to each channel: (C,) each."""
        assert self.running_mean is not None and self.running_var is not None
        factor = self.weight * torch.rsqrt(self.running_var + self.eps)
        return factor, self.bias - self.running_mean * factor


def normed(conv: nn.Conv2d, norm: nn.Module, maps: Tensor) -> Tensor:
    """`norm(conv(maps))`, (B, F, H, W) -> (B, C, h, w); on a CPU under autocast in fewer and quicker operations.

    There a frozen norm goes into the convolution's weights, which are fewer than the maps' values and must be cast
    anyway: no map is read, written or kept for it. And a 1×1 convolution is a matrix product, which is a third quicker
    on its way back. (On a GPU the seven small kernels that this takes instead of one would cost the host more than they
    save the device; float32 on a CPU keeps the published order of operations.)
    """
    if maps.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return norm(conv(maps))  # type: ignore[no-any-return]
    weights, bias, after = conv.weight, conv.bias, norm
    if isinstance(norm, BatchNorm2d) and norm.is_frozen:
        factor, shift = norm.factor_and_shift()
        weights, after = weights * factor[:, None, None, None], nn.Identity()
        bias = shift if bias is None else shift + bias * factor
    if conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1:
        given = F.linear(maps.permute(0, 2, 3, 1), weights.flatten(1), bias).permute(0, 3, 1, 2)
    else:
        given = F.conv2d(maps, weights, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
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

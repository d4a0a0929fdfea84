"""The batch norms of a network: frozen, or learning statistics.

A batch norm in train mode normalizes by the statistics of what it sees, and its running statistics follow these; in
eval mode it normalizes by the running ones, which stay. Nothing else in a segmenter has a mode that matters.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, of which a frozen one keeps no map for the way back: (B, C, H, W) -> the same shape.

    Frozen, in eval mode and without gradients of its own, it is one factor and one shift per channel, and the gradient
    of its input needs these alone; PyTorch's operation keeps its input all the same, which is about half of what a
    ResNet keeps in training. Where autocast has the maps in another dtype, PyTorch's operation does it, which computes
    in float32.
    """

    def forward(self, maps: Tensor) -> Tensor:
        learned = self.weight.requires_grad or self.bias.requires_grad
        if self.training or learned or maps.dtype != self.weight.dtype:
            return super().forward(maps)
        assert self.running_mean is not None and self.running_var is not None
        factor = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * factor
        return torch.addcmul(shift[:, None, None], maps, factor[:, None, None])


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

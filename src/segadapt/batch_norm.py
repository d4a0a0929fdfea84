"""The batch norms of a network: frozen, or learning statistics.

A batch norm in train mode normalizes by the statistics of what it sees, and its running statistics follow these; in
eval mode it normalizes by the running ones, which stay. Nothing else in a segmenter has a mode that matters.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


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

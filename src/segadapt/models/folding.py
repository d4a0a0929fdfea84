"""Batch norm in eval mode is a scale and a shift per channel: a convolution before it can do both, for inference."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segadapt.batch_norm import BatchNorm2d


def fold(parent: nn.Module, conv: str, norm: str) -> None:
    """Replace two children of `parent`, in eval mode, by one convolution that computes what both did, and nothing."""
    before, after = getattr(parent, conv), getattr(parent, norm)
    setattr(parent, conv, fuse_conv_bn_eval(before, after).requires_grad_(False))
    setattr(parent, norm, nn.Identity())


def fold_sequences(network: nn.Module) -> None:
    """Fold each batch norm that follows a convolution in an `nn.Sequential`; elsewhere the order is not known.

    Subclasses of either are left as they are: they may compute something else.
    """
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            continue
        children = list(module.named_children())
        for (conv, before), (norm, after) in pairwise(children):
            if type(before) is nn.Conv2d and type(after) in (nn.BatchNorm2d, BatchNorm2d) and after.track_running_stats:
                fold(module, conv, norm)

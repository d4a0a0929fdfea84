"""Networks as inference runs them."""

from typing import TypeVar

import torch
from torch import nn

from segadapt.devices import Precision
from segadapt.models.style_transfer import StyleTransfer

__all__ = ["Precision", "ready"]
Network = TypeVar("Network", bound=nn.Module)


def ready(network: Network, precision: Precision) -> Network:
    """`network`, a copy made for inference, in the memory format that is fastest where it is.

    In bf16 a segmenter's convolutions have their weights rounded once and for all, as autocast rounds them at every
    call, under which it still runs; a style transfer network is in bfloat16 as a whole. float32 on a CPU keeps the
    usual layout, in which it is as fast.
    """
    if precision == "bf16" or next(network.parameters()).device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "bf16":
        whole = isinstance(network, StyleTransfer)
        for module in network.modules():
            if whole or isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    return network

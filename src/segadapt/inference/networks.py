"""Networks prepared for inference."""

from typing import TypeVar

import torch
from torch import nn

from segadapt.devices import Precision
from segadapt.models.style_transfer import StyleTransfer

__all__ = ["Precision", "ready"]
Network = TypeVar("Network", bound=nn.Module)


def ready(network: Network, precision: Precision) -> Network:
    """An inference copy of `network`, in the memory format that is fastest on its device.

    In bf16 a segmenter still runs under autocast, but its convolutions' weights are rounded once instead of at every
    call; a style transfer network is in bfloat16 as a whole. float32 on a CPU keeps the usual layout, which is as fast
    there.
    """
    if precision == "bf16" or next(network.parameters()).device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "bf16":
        whole = isinstance(network, StyleTransfer)
        for module in network.modules():
            if whole or isinstance(module, nn.Conv2d):
                module.to(torch.bfloat16)
    return network

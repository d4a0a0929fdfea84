"""The optimizers of the papers, from settings."""

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from segadapt.errors import UsageError
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.segmenter import Segmenter

Groups = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def segmenter_optimizer(network: Segmenter, settings: SegmenterSettings) -> Optimizer:
    """The optimizer of a segmenter: its heads learn `head_lr` times as fast; what is frozen stays out.

    Raises UsageError when `head_lr` is not 1 and the network does not say what its heads are.
    """
    heads = network.head_parameters()
    if settings.head_lr != 1 and not heads:
        raise UsageError(
            f"is {settings.head_lr:g}, but network '{settings.network_name}' "
            "does not say which parameters its heads have",
            where="head_lr",
            remedy="Leave it at 1, or give the network a `head_parameters`.",
        )
    of_heads = {id(parameter) for parameter in heads}
    every = network.published_body() if settings.quirk("repeated_updates") else network.parameters()
    body = [p for p in every if p.requires_grad and id(p) not in of_heads]
    groups: list[dict[str, Any]] = [{"params": body}, {"params": heads, "lr": settings.head_lr * settings.lr}]
    return make_optimizer([group for group in groups if group["params"]], settings)


def make_optimizer(parameters: Groups, settings: TrainingSettings) -> Optimizer:
    """Adam (betas 0.9 and 0.999, eps 1e-8) or SGD (momentum 0.9), with L2 weight decay in the gradient."""
    repeated = settings.quirk("repeated_updates")
    path = "single" if repeated else settings.optimizer_path  # the other paths update each entry from the same weights
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    options |= {"fused": path == "fused", "foreach": path == "foreach"}
    with warnings.catch_warnings():
        if repeated:
            warnings.filterwarnings("ignore", message=".*duplicate parameters")
        if settings.optimizer == "adam":
            return Adam(parameters, **options)
        return SGD(parameters, momentum=0.9, **options)


def discriminator_optimizer(
    discriminator: nn.Module, settings: TrainingSettings, lr: float, beta2: float = 0.999, weight_decay: float = 0.0
) -> Optimizer:
    """Adam with β1 0.9."""
    fused, foreach = settings.optimizer_path == "fused", settings.optimizer_path == "foreach"
    parameters = list(discriminator.parameters())
    return Adam(parameters, lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=fused, foreach=foreach)

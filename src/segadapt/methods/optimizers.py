"""The optimizers of the papers, from settings."""

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from segadapt.errors import UsageError
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.segmenter import Segmenter

Groups = Iterable[nn.Parameter] | Iterable[dict[str, Any]]

BETAS = (0.9, 0.999)
MOMENTUM = 0.9


def segmenter_optimizer(network: Segmenter, settings: SegmenterSettings) -> Optimizer:
    """The optimizer of a segmenter, with one learning rate and weight decay per group; frozen parameters are left out.

    The heads' learning rate is `head_lr` times the body's; that of each depth of the body is `layer_decay` times that
    of the next one towards the heads, as in BEiT (ICLR 2022); with `no_norm_decay`, the network's norms and biases have
    no weight decay. Raises UsageError for a setting that needs information which the network does not provide.
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
    rates = _rates_by_depth(network, settings)
    exempt = {id(p) for p in network.no_decay_parameters()} if settings.no_norm_decay else set[int]()
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for of_head, parameters in ((False, body), (True, [p for p in heads if p.requires_grad])):
        for parameter in parameters:
            multiple = settings.head_lr if of_head else rates.get(id(parameter), 1.0)
            groups.setdefault((of_head, multiple, id(parameter) not in exempt), []).append(parameter)
    return make_optimizer(
        [
            {"params": parameters, "lr": multiple * settings.lr} | ({} if decays else {"weight_decay": 0.0})
            for (_, multiple, decays), parameters in groups.items()
        ],
        settings,
    )


def _rates_by_depth(network: Segmenter, settings: SegmenterSettings) -> dict[int, float]:
    """Parameter's id -> `layer_decay` to the power of its distance from the heads; empty without `layer_decay`."""
    if settings.layer_decay is None:
        return {}
    depths = network.number_of_depths
    if depths < 2:
        raise UsageError(
            f"is {settings.layer_decay:g}, but network '{settings.network_name}' does not name its parameters' depths",
            where="layer_decay",
            remedy="Set it to null, or give the network a `depth_of` and `number_of_depths`.",
        )
    return {
        id(parameter): settings.layer_decay ** (depths - network.depth_of(name))
        for name, parameter in network.named_parameters()
    }


def make_optimizer(parameters: Groups, settings: TrainingSettings) -> Optimizer:
    """Adam or SGD with L2 weight decay in the gradient, or AdamW with decoupled decay; eps is 1e-8."""
    repeated = settings.quirk("repeated_updates")
    path = "single" if repeated else settings.optimizer_path  # the other paths update each entry from the same weights
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    options |= {"fused": path == "fused", "foreach": path == "foreach"}
    with warnings.catch_warnings():
        if repeated:
            warnings.filterwarnings("ignore", message=".*duplicate parameters")
        if settings.optimizer == "sgd":
            return SGD(parameters, momentum=MOMENTUM if settings.momentum is None else settings.momentum, **options)
        kind = AdamW if settings.optimizer == "adamw" else Adam
        return kind(parameters, betas=settings.betas or BETAS, **options)


def discriminator_optimizer(
    discriminator: nn.Module, settings: TrainingSettings, lr: float, beta2: float = 0.999, weight_decay: float = 0.0
) -> Optimizer:
    """Adam with β1 0.9."""
    fused, foreach = settings.optimizer_path == "fused", settings.optimizer_path == "foreach"
    parameters = list(discriminator.parameters())
    return Adam(parameters, lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=fused, foreach=foreach)

"""The optimizers of the papers, from settings."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from segadapt.methods.settings import TrainingSettings


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> Optimizer:
    """Adam (betas 0.9 and 0.999, eps 1e-8) or SGD (momentum 0.9), with L2 weight decay in the gradient."""
    fused = settings.optimizer_path == "fused"
    foreach = settings.optimizer_path == "foreach"
    if settings.optimizer == "adam":
        return Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused, foreach=foreach)
    return SGD(
        parameters, lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay, fused=fused, foreach=foreach
    )

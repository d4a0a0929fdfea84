"""The feature distance of DAFormer (CVPR 2022): on things, features stay close to the ImageNet-pretrained ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.losses import Loss, precise


def thing_cells(labels: Tensor, things: tuple[int, ...], shape: Sequence[int], ratio: float) -> Tensor:
    """labels (B, H, W) -> (B, h, w) bool: the cells of which a share of at least `ratio` is one thing class.

    `shape`, that of features, ends with h, w. `ratio` is above 0.5, so that at most one class can reach it.
    """
    cells = shape[-2], shape[-1]
    found = torch.zeros((len(labels), *cells), dtype=torch.bool, device=labels.device)
    for thing in things:
        share = F.adaptive_avg_pool2d(precise(labels == thing)[:, None], cells)
        found = found | (share[:, 0] >= ratio)
    return found


def feature_distance(features: Tensor, frozen: Tensor, cells: Tensor) -> Loss:
    """The L2 distance over channels, mean over the true `cells` (B, h, w); 0 where there are none.

    features, frozen (B, F, h, w); no gradient flows to `frozen`. The gradient of a distance of 0 is 0.
    """
    distance = torch.linalg.vector_norm(precise(features) - precise(frozen.detach()), dim=1)
    return Loss(torch.where(cells, distance, torch.zeros_like(distance)).sum(), precise(cells.sum()))

"""Low-rank adaptation of a linear layer (LoRA; Hu et al., ICLR 2022, arXiv 2106.09685).

    y = W x + α / r · B A x        A (r, in) random, B (out, r) zero: it begins as W alone

W is frozen and A and B learn. It is merged into W for inference and for export: W + α / r · B A.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Lora(nn.Module):
    """What is added to a linear layer's output: (…, in) -> (…, out)."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.factor = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, values: Tensor) -> Tensor:
        return self.factor * F.linear(F.linear(values, self.a), self.b)

    def product(self) -> Tensor:
        """α / r · B A (out, in): what it comes to in the layer's own weights."""
        return self.factor * (self.b @ self.a)

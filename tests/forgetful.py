"""A tiny segmenter that draws in all ways there are: drop path and both kinds of dropout, in its body and its heads."""

import torch
from torch import Tensor, nn

from by_hand import CLASSES
from segadapt.models.segmenter import CAFFE, Segmenter
from segadapt.sample_randomness import DropPath


class Residual(nn.Module):
    """A block that may be left out, with both kinds of dropout in it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.path, self.channels, self.elements = DropPath(0.3), nn.Dropout2d(0.2), nn.Dropout(0.25, inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        given: Tensor = self.elements(values + self.path(self.channels(torch.tanh(self.conv(values)))))
        return given


class Forgetful(Segmenter):
    """Stride 4, with one head or more of the same features."""

    pixels = CAFFE
    stride = 4

    def __init__(self, heads: int = 1, attention: bool = False) -> None:
        super().__init__(CLASSES, feature_channels=6, attention=attention)
        self.number_of_heads = heads
        self.body = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.Tanh(), Residual(6))
        self.ends = nn.ModuleList(nn.Sequential(nn.Dropout(0.1), nn.Conv2d(6, CLASSES, 1)) for _ in range(heads))
        nn.init.normal_(self.body[0].weight, std=0.01)  # type: ignore[arg-type]

    def encode(self, pixels: Tensor) -> Tensor:
        return self.through(self.body, pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        return tuple(end(features) for end in self.ends)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.ends.parameters())

"""A small DeepLab that learns a street world from scratch, on a CPU, in minutes: for the demo and the tests.

It has no published counterpart. Its shape follows DeepLab-v2 (Chen et al., TPAMI 2018): stride 8 by dilation, and a
head of parallel dilated 3×3 convolutions whose outputs are summed.

It comes with either norm. Group norm (Wu and He, ECCV 2018) has no statistics that a batch of one could spoil; batch
norm (Ioffe and Szegedy, ICML 2015) learns faster from batches of several images, and its statistics can follow the
target.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.models import bilinear
from segadapt.models.heads import DeepLabOptions
from segadapt.models.segmenter import IMAGENET, Segmenter

WIDTHS = (24, 48, 96)  # channels at strides 2, 4 and 8
BODY_DILATIONS = (1, 2, 4)  # of the residual blocks at stride 8
HEAD_DILATIONS = (1, 2, 4, 6)  # at 240×120 the feature map is 30×15: wider ones would see padding only
GROUPS = 8
BLOCK_STARTS = (0, 2, 4, 5, 7, 8, 9, 10)
"""Where each block begins in `body` (a convolution with its ReLU, or a residual block), and where the last one ends."""

Norm = Callable[[int], nn.Module]
"""Channels -> a norm for them with scale (`weight`) and shift (`bias`)."""
NORMS: dict[str, Norm] = {"group": partial(nn.GroupNorm, GROUPS), "batch": nn.BatchNorm2d}


class SmallOptions(DeepLabOptions):
    """What a recipe may choose about `deeplab_small`."""

    norm: Literal["group", "batch"] = Field(
        "group",
        description="group norm, or batch norm, which needs `batch_norm: learn` when it is trained from scratch",
    )


class SmallBNOptions(SmallOptions):
    """The same for `deeplab_small_bn`."""

    norm: Literal["group", "batch"] = Field("batch", description="as that of `deeplab_small`")


class NormedConv(nn.Sequential):
    """3×3 convolution without bias, then the norm; "same" padding at any dilation."""

    def __init__(self, norm: Norm, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False), norm(outputs)
        )


class ResidualBlock(nn.Module):
    """Two normed convolutions around a shortcut; the shape (B, C, h, w) stays."""

    def __init__(self, norm: Norm, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = NormedConv(norm, channels, channels, dilation=dilation)
        self.second = NormedConv(norm, channels, channels, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + cast(Tensor, self.second(F.relu(self.first(features), inplace=True))), inplace=True)


class DilatedHead(nn.Module):
    """DeepLab-v2's head: 3×3 convolutions of several dilations side by side, summed. (B, F, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, classes: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in dilations)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.branches[0](features)
        for branch in self.branches[1:]:
            logits = logits + branch(features)
        return logits


class DeepLabSmall(Segmenter):
    """0.66 million parameters, stride 8: images (B, 3, 120, 240) give logits (B, C, 15, 30) and 96 features.

    ImageNet pixel format. `attention` adds SEAN's; with `aspp: published` the head has its first two dilations only.
    """

    Options: ClassVar[type[SmallOptions]] = SmallOptions
    pixels = IMAGENET
    stride = 8

    def __init__(self, classes: int, attention: bool = False, options: SmallOptions | None = None) -> None:
        options = self.Options() if options is None else options
        stem, middle, width = WIDTHS
        norm = NORMS[options.norm]
        super().__init__(classes, width, attention, options)
        self.body = nn.Sequential(
            NormedConv(norm, 3, stem, stride=2),
            nn.ReLU(inplace=True),
            NormedConv(norm, stem, middle, stride=2),
            nn.ReLU(inplace=True),
            ResidualBlock(norm, middle),
            NormedConv(norm, middle, width, stride=2),
            nn.ReLU(inplace=True),
            *(ResidualBlock(norm, width, dilation) for dilation in BODY_DILATIONS),
        )
        self.head = DilatedHead(width, classes, HEAD_DILATIONS[:2] if options.aspp == "published" else HEAD_DILATIONS)
        self._initialise()

    def _initialise(self) -> None:
        """He's normal for convolutions before a ReLU; N(0, 0.01) in head (and attention), as DeepLab-v2."""
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(cast(Tensor, module.second[1].weight))  # each block starts as the identity
        for branch in self.head.branches:
            conv = cast(nn.Conv2d, branch)
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> features (B, 96, H/8, W/8), rounded up."""
        return self.through([self.body[start:stop] for start, stop in pairwise(BLOCK_STARTS)], pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 96, h, w) -> one head's logits (B, C, h, w)."""
        return (cast(Tensor, self.head(features)),)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    @property
    def number_of_depths(self) -> int:
        """Its strided convolutions and its residual blocks."""
        return len(BLOCK_STARTS) - 1

    def depth_of(self, name: str) -> int:
        module, _, rest = name.partition(".")
        if module != "body":
            return self.number_of_depths
        return bisect_right(BLOCK_STARTS, int(rest.partition(".")[0])) - 1

    def upsample(self, logits: Tensor, size: tuple[int, ...]) -> Tensor:
        """The contract's bilinear rule as two matrix products: on a CPU five times as fast there and back."""
        return bilinear.upsample(logits, size, self.align_corners)


class DeepLabSmallBN(DeepLabSmall):
    """`DeepLabSmall` with batch norm; trained from scratch it needs `batch_norm: learn`."""

    Options = SmallBNOptions

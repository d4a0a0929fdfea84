"""DeepLab-v2 ResNet-101 with two heads, the network of SE-GAN (TMM 2022) and AdaptSegNet (CVPR 2018).

A 7×7 stem and a max-pool with ceil mode (stride 4), then bottlenecks: layer1, layer2 (stride 8), layer3 with dilation
2, layer4 with dilation 4 (DeepLab, TPAMI 2018). The auxiliary head (`layer5`) sees layer3's 1024 channels, the main
head (`layer6`) layer4's 2048. A 1024×512 image (width × height) gives logits (B, C, 65, 129) per head.

Modules are called as in the published files.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.batch_norm import BatchNorm2d, normed
from segadapt.models.folding import fold
from segadapt.models.heads import AtrousHead, DeepLabOptions
from segadapt.models.segmenter import CAFFE, Segmenter, SegOutput

EXPANSION = 4  # output channels of a bottleneck over its width
STEM_CHANNELS, MIDDLE_CHANNELS, FEATURE_CHANNELS = 64, 1024, 2048
# blocks, width, stride and dilation of layer1 … layer4
STAGES = ((3, 64, 1, 1), (4, 128, 2, 1), (23, 256, 1, 2), (3, 512, 1, 4))
DEPTHS = {"conv1": 0, "bn1": 0, **{f"layer{number}": number for number in range(1, len(STAGES) + 1)}}
"""Module of the body -> its depth."""


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution, each with batch norm, around a shortcut: (B, F, h, w) -> (B, 4·width, h', w')."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), BatchNorm2d(outputs))
            if first
            else None
        )

    def place_stride(self, in_3x3: bool) -> None:
        """Let the 3×3 convolution have the stride, or the first 1×1."""
        stride = (self.stride, self.stride)
        self.conv1.stride, self.conv2.stride = ((1, 1), stride) if in_3x3 else (stride, (1, 1))

    def fold_norms(self) -> None:
        """Put each batch norm, as it is in eval mode, into the convolution before it (all but the shortcut's)."""
        for number in (1, 2, 3):
            fold(self, f"conv{number}", f"bn{number}")

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs
        if self.downsample is not None:
            conv, norm = self.downsample
            assert isinstance(conv, nn.Conv2d)
            shortcut = normed(conv, norm, inputs)
        features = normed(self.conv1, self.bn1, inputs, relu_to=math.inf)
        features = normed(self.conv2, self.bn2, features, relu_to=math.inf)
        return normed(self.conv3, self.bn3, features, plus=shortcut, relu_to=math.inf)


class DeepLabResNet101(Segmenter):
    """DeepLab-v2 ResNet-101 for `classes` classes; `attention` adds SEAN's, which the main head sees.

    `SegOutput.heads` is (auxiliary, main), its features are layer4's, its scales layer3's and layer4's. Scale and shift
    of every batch norm are never trained (`requires_grad` is off), and whether batch norm uses the batch's statistics
    is up to `set_mode`. Fresh weights: N(0, 0.01) for all convolutions, as the published programs have it; a start file
    usually replaces them.
    """

    Options = DeepLabOptions
    title = "two-head DeepLab ResNet-101"
    pixels = CAFFE
    stride = 8
    align_corners = True
    number_of_heads = 2

    def __init__(self, classes: int, attention: bool = False, options: DeepLabOptions = DeepLabOptions()) -> None:
        super().__init__(classes, FEATURE_CHANNELS, attention, options)
        self.stride_in_3x3 = False
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(STEM_CHANNELS)
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages()
        self.layer5 = AtrousHead(MIDDLE_CHANNELS, classes, options.aspp)
        self.layer6 = AtrousHead(FEATURE_CHANNELS, classes, options.aspp)
        for name, module in self.named_modules():
            if isinstance(module, BatchNorm2d):
                module.requires_grad_(False)
            elif isinstance(module, nn.Conv2d) and not name.startswith("attention."):
                nn.init.normal_(module.weight, std=0.01)

    def place_stride(self, in_3x3: bool) -> None:
        """Where a bottleneck's stride sits: in its 3×3 convolution (torchvision, timm), or in the first 1×1 (Caffe).

        It belongs to the weights: `segadapt.weights.resnet101` says which files want what.
        """
        self.stride_in_3x3 = in_3x3
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.place_stride(in_3x3)

    def traits(self) -> dict[str, bool]:
        return {"stride_in_3x3": self.stride_in_3x3}

    def take_traits(self, traits: Mapping[str, bool]) -> None:
        self.place_stride(traits.get("stride_in_3x3", False))

    def for_inference(self) -> Self:
        """See `Segmenter.for_inference`: all batch norms are folded."""
        network = super().for_inference()
        fold(network, "conv1", "bn1")
        for module in network.modules():
            if isinstance(module, Bottleneck):
                module.fold_norms()
        return network

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) -> features of layer3 (B, 1024, h, w) and layer4 (B, 2048, h, w), both at about an eighth
        (512 -> 65)."""
        stem = normed(self.conv1, self.bn1, pixels, relu_to=math.inf)
        pooled = F.max_pool2d(stem, 3, stride=2, padding=1, ceil_mode=True)
        middle = self.through((*self.layer1, *self.layer2, *self.layer3), pooled)
        return middle, self.through(self.layer4, middle)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 2048, h, w) -> the main head's logits alone (B, C, h, w): the other one sees layer3."""
        return (self.layer6(features),)

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.layer5.parameters(), *self.layer6.parameters()]

    def published_body(self) -> list[nn.Parameter]:
        """Collected module by module, each with all within it: see `collected_by_module`."""
        of_heads = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in collected_by_module(self) if id(parameter) not in of_heads]

    @property
    def number_of_depths(self) -> int:
        """The stem and layer1 … layer4."""
        return 1 + len(STAGES)

    def depth_of(self, name: str) -> int:
        module = name.partition(".")[0]
        return DEPTHS.get(module, self.number_of_depths)

    def segment(self, pixels: Tensor) -> SegOutput:
        middle, features = scales = self.encode_scales(pixels)
        attention = None if self.attention is None else self.attention(features)
        (main,) = self.heads(features if attention is None else (1 + attention) * features)
        return SegOutput((self.layer5(middle), main), attention, features, scales)


def collected_by_module(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters module by module, each with all within it, as the published program collects them.

    A convolution inside a block comes three times (of its stage, its block and itself), that of a shortcut four times.
    """
    for stage in network.children():
        for module in stage.modules():
            yield from module.parameters()


def _stages() -> list[nn.Sequential]:
    """layer1 … layer4. All blocks of a stage have its dilation, its first one has its stride."""
    stages, channels = [], STEM_CHANNELS
    for blocks, width, stride, dilation in STAGES:
        stage = [Bottleneck(channels, width, stride, dilation, first=True)]
        channels = EXPANSION * width
        stage += [Bottleneck(channels, width, 1, dilation, first=False) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(*stage))
    return stages

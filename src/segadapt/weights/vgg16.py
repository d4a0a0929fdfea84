"""Files for DeepLab VGG-16: Caffe's and torchvision's ImageNet weights, and SEAN's and SE-GAN's checkpoints."""

from segadapt.models.segmenter import CAFFE, IMAGENET
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

CAFFE_VGG16: KeyMap = {
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
"""VGG-16 as Caffe names it, in its order. The rest of such a file is the classifier's."""

IMAGENET_VGG16: KeyMap = {
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

PUBLISHED_VGG: KeyMap = {
    **{f"features.{i}": f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)},
    "aconv": "attention.conv",
    **{f"classifier.conv2d_list.{i}": f"classifier.convs.{i}" for i in range(4)},
}
"""DeepLab VGG-16 as the published SEAN and SE-GAN programs name it, in their order; `aconv` with attention only."""

ORIGINS = (
    Origin(
        "vgg16_caffe",
        "a Caffe VGG-16 file",
        signature=("conv1_1.weight", "conv5_3.weight"),
        keys=CAFFE_VGG16,
        pixels=CAFFE,
        body=CAFFE_VGG16,
        skipped=("fc", "score", "upscore"),
        positional=("f", "s", "u"),
    ),
    Origin(
        "vgg16_imagenet",
        "an ImageNet VGG-16 file of torchvision or timm",
        signature=("features.2.weight", "features.28.weight"),
        keys=IMAGENET_VGG16,
        pixels=IMAGENET,
        body=IMAGENET_VGG16,
        skipped=("classifier.", "pre_logits.", "head."),
    ),
    Origin(
        "published_vgg",
        "a published DeepLab VGG-16 checkpoint",
        signature=("features.0.weight", "features.31.weight", "classifier.conv2d_list.0.weight"),
        keys=PUBLISHED_VGG,
        pixels=CAFFE,
        whole=True,
        options={"aspp": "published"},
        classifier="classifier.conv2d_list.0.weight",
        attention="aconv.weight",
    ),
)

"""Files for DeepLab ResNet-101: ImageNet weights, the published start file, SE-GAN's and AdaptSegNet's checkpoints.

A bottleneck's stride sits in its 3×3 convolution in torchvision's weights, in its first 1×1 in Caffe's and in all that
are published.
"""

from segadapt.models.segmenter import CAFFE, IMAGENET
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

RESNET101_BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
_BLOCK = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
_FIRST_BLOCK = (*_BLOCK, "downsample.0", "downsample.1")

RESNET101: KeyMap = {
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

PUBLISHED_RESNET101: KeyMap = {
    **RESNET101,
    **{f"layer{head}.conv2d_list.{i}": f"layer{head}.convs.{i}" for head in (5, 6) for i in range(4)},
}
"""DeepLab ResNet-101 with two heads as the published SE-GAN and AdaptSegNet programs name it, in their order."""

START_PREFIX = "Scale."
"""What the names in a published start file begin with; in a checkpoint that was trained they do not."""

ORIGINS = (
    Origin(
        "resnet101",
        "an ImageNet ResNet-101 file of torchvision or timm, without a segmentation head",
        signature=("layer3.22.conv1.weight",),
        keys=RESNET101,
        pixels=IMAGENET,
        traits={"stride_in_3x3": True},
        body=RESNET101,
        skipped=("fc.",),
    ),
    Origin(
        "resnet101_start",
        "a published DeepLab ResNet-101 start file",
        signature=(f"{START_PREFIX}layer3.22.conv1.weight", f"{START_PREFIX}layer5.conv2d_list.0.weight"),
        # Its own head (`layer5`, of other classes) is left out. A `layer6`, which it has not, would be loaded: so the
        # published programs have it.
        keys={
            f"{START_PREFIX}{theirs}": ours
            for theirs, ours in PUBLISHED_RESNET101.items()
            if not theirs.startswith("layer5.")
        },
        pixels=CAFFE,
        body={f"{START_PREFIX}{module}": module for module in RESNET101},
        skipped=(f"{START_PREFIX}layer5.",),
        prefix=START_PREFIX,
        classifier=f"{START_PREFIX}layer5.conv2d_list.0.weight",
    ),
    Origin(
        "deeplab_resnet101",
        "a DeepLab ResNet-101 checkpoint",
        signature=("layer3.22.conv1.weight", "layer5.conv2d_list.0.weight", "layer6.conv2d_list.0.weight"),
        keys=PUBLISHED_RESNET101,
        pixels=CAFFE,
        whole=True,
        options={"aspp": "published"},
        classifier="layer6.conv2d_list.0.weight",
    ),
    Origin(
        "deeplab_resnet101_single",
        "a single-head DeepLab ResNet-101 checkpoint",
        signature=("layer3.22.conv1.weight", "layer5.conv2d_list.0.weight"),
        classifier="layer5.conv2d_list.0.weight",
    ),
    Origin(
        "state_dict",
        "a state dict of segadapt's DeepLab ResNet-101",
        signature=("layer3.22.conv1.weight", "layer6.convs.0.weight"),
        classifier="layer6.convs.0.weight",
        attention="attention.conv.weight",
    ),
)

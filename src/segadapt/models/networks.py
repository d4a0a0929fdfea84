"""The networks by name: what a recipe's `network:` can say. How one is chosen is in `choice`."""

from segadapt.models.choice import (
    NETWORKS,
    Choice,
    PlainChoice,
    build,
    chosen,
    classes_of,
    name_of,
    plain,
    register_network,
    with_option,
)
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.dino import Dinov2, Dinov3
from segadapt.models.efficientnet_lite import EfficientNetLite0
from segadapt.models.hrda import Hrda
from segadapt.models.segformer import Segformer
from segadapt.models.small import DeepLabSmall, DeepLabSmallBN
from segadapt.models.vgg import DeepLabVGG16

__all__ = [
    "NETWORKS",
    "Choice",
    "PlainChoice",
    "build",
    "chosen",
    "classes_of",
    "name_of",
    "plain",
    "register_network",
    "with_option",
]

NETWORKS |= {
    "deeplab_vgg16": DeepLabVGG16,
    "deeplab_resnet101": DeepLabResNet101,
    "efficientnet_lite0": EfficientNetLite0,
    "segformer": Segformer,
    "hrda": Hrda,
    "dinov2": Dinov2,
    "dinov3": Dinov3,
    "deeplab_small": DeepLabSmall,
    "deeplab_small_bn": DeepLabSmallBN,
}

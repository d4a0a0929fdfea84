"""The networks by name: what a recipe's `network:` can say."""

from segadapt.errors import UsageError, nearest
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.efficientnet_lite import EfficientNetLite0
from segadapt.models.segmenter import NetworkFactory, Segmenter
from segadapt.models.small import DeepLabSmall, DeepLabSmallBN
from segadapt.models.vgg import DeepLabVGG16

NETWORKS: dict[str, NetworkFactory] = {
    "deeplab_vgg16": DeepLabVGG16,
    "deeplab_resnet101": DeepLabResNet101,
    "efficientnet_lite0": EfficientNetLite0,
    "deeplab_small": DeepLabSmall,
    "deeplab_small_bn": DeepLabSmallBN,
}


def register(name: str, factory: NetworkFactory) -> None:
    """Make a network of one's own known under `name`, for recipes and saved models.

    `factory(classes=…, attention=…, published_aspp=…)` must give a `Segmenter`. Raises ValueError for a taken name.
    """
    if name in NETWORKS:
        raise ValueError(f"a network named {name!r} exists already")
    NETWORKS[name] = factory


def build(name: str, *, classes: int, attention: bool = False, published_aspp: bool = False) -> Segmenter:
    """A fresh network. `published_aspp` is quirk `aspp`: the head uses its first two dilations only.

    Raises UsageError for an unknown name.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name}'", where="network", remedy=nearest(name, list(NETWORKS)))
    return NETWORKS[name](classes=classes, attention=attention, published_aspp=published_aspp)

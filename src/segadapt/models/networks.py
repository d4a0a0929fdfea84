"""The networks by name: what a recipe's `network:` can say."""

from segadapt.errors import UsageError
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.efficientnet_lite import EfficientNetLite0
from segadapt.models.segmenter import NetworkFactory, Segmenter
from segadapt.models.small import DeepLabSmall, DeepLabSmallBN
from segadapt.models.vgg import DeepLabVGG16
from segadapt.plugin_loading import known

NETWORKS: dict[str, NetworkFactory] = {
    "deeplab_vgg16": DeepLabVGG16,
    "deeplab_resnet101": DeepLabResNet101,
    "efficientnet_lite0": EfficientNetLite0,
    "deeplab_small": DeepLabSmall,
    "deeplab_small_bn": DeepLabSmallBN,
}


def register_network(name: str, factory: NetworkFactory) -> None:
    """Make a network of one's own known under `name`, for recipes and saved models.

    `factory(classes=…, attention=…, published_aspp=…)` must give a `Segmenter`. Raises ValueError for a taken name.
    """
    before = NETWORKS.get(name)
    if before is not None and _origin(before) != _origin(factory):  # the same class may be defined anew, in a notebook
        raise ValueError(f"a network named '{name}' exists already")
    NETWORKS[name] = factory


def _origin(factory: NetworkFactory) -> tuple[str | None, str | None]:
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)


def build(name: str, *, classes: int, attention: bool = False, published_aspp: bool = False) -> Segmenter:
    """A fresh network. `published_aspp` is quirk `aspp`: the head uses its first two dilations only.

    Raises UsageError for an unknown name.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name}'", where="network", remedy=known(name, list(NETWORKS)))
    return NETWORKS[name](classes=classes, attention=attention, published_aspp=published_aspp)

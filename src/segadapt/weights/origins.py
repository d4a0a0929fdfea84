"""Which files each network takes: the origins of all networks, and the one that a file is of."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import nn

from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.dino import Dinov2, Dinov3
from segadapt.models.discriminators import Discriminator
from segadapt.models.efficientnet_lite import EfficientNetLite0
from segadapt.models.hrda import PREFIX, Hrda
from segadapt.models.networks import NETWORKS
from segadapt.models.segformer import Segformer
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.models.vgg import DeepLabVGG16
from segadapt.weights import dino, efficientnet_lite0, gan, mit, resnet101, vgg16
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

ORIGINS: dict[type[nn.Module], tuple[Origin, ...]] = {
    DeepLabVGG16: vgg16.ORIGINS,
    DeepLabResNet101: resnet101.ORIGINS,
    EfficientNetLite0: efficientnet_lite0.ORIGINS,
    Segformer: mit.SEGFORMER_ORIGINS,
    Hrda: mit.HRDA_ORIGINS,
    Dinov2: dino.DINOV2_ORIGINS,
    Dinov3: dino.DINOV3_ORIGINS,
    StyleTransfer: gan.STYLE_TRANSFER,
    Discriminator: gan.DISCRIMINATOR,
}
OWN_KINDS = ("model", "generator", "training")
"""Kinds of files that are not recognised by their tensors."""


def register_origin(network: type[Segmenter], origin: Origin) -> None:
    """Let a network take the files of one more origin. Raises ValueError for a kind that is known already."""
    if origin.kind in {"state_dict", *OWN_KINDS, *(known.kind for known in _all())}:
        raise ValueError(f"an origin {origin.kind!r} already exists")
    if not origin.signature:
        raise ValueError(f"the origin {origin.kind!r} has no signature: every file would be one")
    ORIGINS[network] = (*ORIGINS.get(network, ()), origin)


def origins_of(network: nn.Module) -> tuple[Origin, ...]:
    """The origins of the network's class, or of the nearest class that it is derived from.

    HRDA takes those of the network in it, too: its scale attention stays fresh then.
    """
    own = next((ORIGINS[base] for base in type(network).__mro__ if base in ORIGINS), ())
    if not isinstance(network, Hrda):
        return own
    inner = origins_of(network.network)
    return (*own, *(_within(origin, origin.keys, PREFIX) for origin in inner if origin.keys is not None))


def _within(origin: Origin, keys: KeyMap, prefix: str) -> Origin:
    """The origin for a network whose names begin with `prefix` in another one: such a file has not all of that."""
    inside = {theirs: prefix + ours for theirs, ours in keys.items()}
    body = inside if origin.body is None else {theirs: inside[theirs] for theirs in origin.body}
    return replace(origin, keys=inside, body=body, whole=False, positional=None)


def whole_origin(network: nn.Module) -> Origin | None:
    """The origin of files that hold all of such a network: of its very class, since another would be run otherwise."""
    return next((origin for origin in ORIGINS.get(type(network), ()) if origin.whole), None)


def recognise(names: Iterable[str]) -> Origin | None:
    """The origin of a file whose tensors have these names, or None: of those that fit, the one that asks for most."""
    there = set(names)
    fitting = [origin for origin in _all() if there.issuperset(origin.signature)]
    return max(fitting, key=lambda origin: len(origin.signature), default=None)


def runnable(kind: str) -> tuple[str, Origin] | None:
    """The network, by its name in recipes, and the origin of whole segmenters of this kind; None for any other kind."""
    for name, network in NETWORKS.items():
        for origin in ORIGINS.get(network, ()):
            if origin.whole and origin.kind == kind:
                return name, origin
    return None


def _all() -> Iterator[Origin]:
    for origins in ORIGINS.values():
        yield from origins

"""The files that a network can start from: one adapter per origin, which turns the file's names into ours.

Each origin is a literal table entry: its map of names, what of it is left out, and how its weights want to be run.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from segadapt.errors import UsageError
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.discriminators import Discriminator
from segadapt.models.efficientnet_lite import EfficientNetLite0
from segadapt.models.segmenter import CAFFE, IMAGENET, PIXEL_FORMATS, TENSORFLOW, PixelFormat, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.models.vgg import DeepLabVGG16
from segadapt.weights.checkpoint_files import Checkpoint, CheckpointInfo
from segadapt.weights.origins import (
    CAFFE_SKIPPED,
    CAFFE_VGG16,
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE0_SKIPPED,
    IMAGENET_RESNET101_SKIPPED,
    IMAGENET_SKIPPED,
    IMAGENET_VGG16,
    PUBLISHED_RESNET101,
    PUBLISHED_RESNET101_START,
    PUBLISHED_RESNET101_START_SKIPPED,
    PUBLISHED_VGG,
    RESNET101,
    ModuleMap,
    own_name,
    published_name,
)

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that changes nothing here, and that files from before PyTorch 0.4.1 have not."""


@dataclass(frozen=True)
class Origin:
    """How files of one kind become a network."""

    modules: ModuleMap
    pixels: PixelFormat  # that they were trained with
    body: ModuleMap | None = None  # the modules that the file must have, if not all of the network
    skipped: tuple[str, ...] = ()  # what else it may have: names that begin so
    stride_in_3x3: bool = False  # where a bottleneck has its stride


ORIGINS: dict[type[Segmenter], dict[str, Origin]] = {
    DeepLabVGG16: {
        "vgg16_caffe": Origin(CAFFE_VGG16, CAFFE, CAFFE_VGG16, CAFFE_SKIPPED),
        "vgg16_imagenet": Origin(IMAGENET_VGG16, IMAGENET, IMAGENET_VGG16, IMAGENET_SKIPPED),
        "published_vgg": Origin(PUBLISHED_VGG, CAFFE),
    },
    DeepLabResNet101: {
        "resnet101_start": Origin(
            PUBLISHED_RESNET101_START,
            CAFFE,
            {f"Scale.{module}": module for module in RESNET101},
            PUBLISHED_RESNET101_START_SKIPPED,
        ),
        "resnet101": Origin(RESNET101, IMAGENET, RESNET101, IMAGENET_RESNET101_SKIPPED, stride_in_3x3=True),
        "deeplab_resnet101": Origin(PUBLISHED_RESNET101, CAFFE),
    },
    EfficientNetLite0: {
        "efficientnet_lite0": Origin(EFFICIENTNET_LITE0, TENSORFLOW, EFFICIENTNET_LITE0, EFFICIENTNET_LITE0_SKIPPED),
    },
}
"""Network -> kind of file (see `layouts.LAYOUTS`) -> what to do with it."""

STARTS_OF: dict[type[Segmenter], str] = {
    DeepLabVGG16: "Caffe or ImageNet VGG-16 weights, or a published SEANet or VGG checkpoint",
    DeepLabResNet101: "its published start file, ImageNet ResNet-101 weights, or a published checkpoint with two heads",
    EfficientNetLite0: "ImageNet EfficientNet-Lite0 weights (start: efficientnet_lite0)",
}
"""The same for a person."""


@dataclass(frozen=True)
class Adapted:
    """A file's tensors by our names, before any check against the network."""

    tensors: dict[str, Tensor]
    skipped: tuple[str, ...] = ()
    partial: bool = False  # such a file has not all of the network's weights
    pixels: PixelFormat | None = None  # that they were trained with; None: the network's own
    stride_in_3x3: bool = False  # where a bottleneck has its stride


def adapt(checkpoint: Checkpoint, network: Segmenter) -> Adapted:
    """Our names for the file's tensors, by its kind. Raises UsageError for a kind that the network cannot take."""
    kind, tensors = checkpoint.info.kind, checkpoint.tensors
    origins: dict[str, Origin] = next((ORIGINS[base] for base in type(network).__mro__ if base in ORIGINS), {})
    if kind in origins:
        return _by_origin(checkpoint, network, origins[kind])
    if kind in ("model", "training"):
        header = checkpoint.header or {}
        pixels = PIXEL_FORMATS.get(str(header.get("pixels")))
        return Adapted(tensors, pixels=pixels, stride_in_3x3=bool(header.get("stride_in_3x3")))
    own = network.state_dict()
    if (kind == "state_dict" or not origins) and any(name in own for name in tensors):
        return Adapted(tensors)
    raise wrong_kind(checkpoint.info, network)


def _by_origin(checkpoint: Checkpoint, network: Segmenter, origin: Origin) -> Adapted:
    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        own = own_name(name, origin.modules)
        if own is not None:
            tensors[own] = tensor
        elif not (origin.skipped and name.startswith(origin.skipped)):
            raise misfit(checkpoint.info, f"it has '{name}', which such a file has not")
    if origin.body is not None:
        modules = set(origin.body.values())
        for name in network.state_dict():
            if name.rpartition(".")[0] in modules and name not in tensors and not name.endswith(COUNTER):
                raise misfit(checkpoint.info, f"it lacks '{published_name(name, origin.body)}'")
    skipped = tuple(name for name in checkpoint.tensors if origin.skipped and name.startswith(origin.skipped))
    return Adapted(tensors, skipped, origin.body is not None, origin.pixels, origin.stride_in_3x3)


VGG16_NAMES = tuple(f"{module}.{leaf}" for module in CAFFE_VGG16.values() for leaf in ("weight", "bias"))
"""Our names of the weights of VGG-16's thirteen convolutions, in order."""


def adapt_by_position(checkpoint: Checkpoint) -> Adapted:
    """Quirk `positional_load`: the file's n-th tensor is DeepLab VGG-16's n-th, without names that begin with f, s, u.

    Raises UsageError for a file with another number of them.
    """
    skipped = tuple(name for name in checkpoint.tensors if name.startswith(("f", "s", "u")))
    tensors = [tensor for name, tensor in checkpoint.tensors.items() if name not in skipped]
    if len(tensors) != len(VGG16_NAMES):
        what = f"quirk positional_load needs {len(VGG16_NAMES)} tensors in order, and it has {len(tensors)}"
        raise misfit(checkpoint.info, what)
    return Adapted(dict(zip(VGG16_NAMES, tensors, strict=True)), skipped, True, CAFFE)


TITLES: dict[type[nn.Module], str] = {
    DeepLabVGG16: "DeepLab VGG-16",
    DeepLabResNet101: "two-head DeepLab ResNet-101",
    EfficientNetLite0: "EfficientNet-Lite0",
    StyleTransfer: "a style transfer network",
    Discriminator: "a discriminator",
}


def named(network: nn.Module) -> str:
    """What the network is, for a person."""
    title = TITLES.get(type(network), type(network).__name__)
    if isinstance(network, Discriminator):
        return f"{title} of {network.conv1.in_channels} channels"
    if not isinstance(network, Segmenter):
        return title
    attention = " and attention" if network.attention is not None else ""
    return f"{title} with {network.classes} classes{attention}"


def wrong_kind(info: CheckpointInfo, network: nn.Module) -> UsageError:
    """The error for a file that is not for this network at all."""
    if isinstance(network, Segmenter):
        others = STARTS_OF.get(type(network))
        ours = "a segadapt model or training checkpoint of it"
        remedy = f"Start from {ours}{f', or: {others}' if others else ''}."
    else:
        remedy = "Use a published file of it, or a training checkpoint or model of segadapt that has it."
    return UsageError(f"this is {info}; expected {named(network)}", where=info.path, remedy=remedy)


def misfit(info: CheckpointInfo, what: str) -> UsageError:
    """The error for a file of the right kind that does not fit."""
    ours = info.kind in ("model", "generator", "training", "state_dict")
    remedy = (
        "Start from a file of the same network." if ours else "Use an unchanged file of this kind, or another start."
    )
    return UsageError(f"this is {info}, but {what}", where=info.path, remedy=remedy)

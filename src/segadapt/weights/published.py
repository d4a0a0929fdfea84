"""A network's weights into the files of the published programs, for those who exchange networks with them.

The names are `layouts.py`'s, in the published order; what these programs would read but run otherwise is refused.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segadapt.errors import UsageError
from segadapt.files import write_bytes
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import CAFFE, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.models.vgg import DeepLabVGG16
from segadapt.weights.checkpoint_files import read_checkpoint
from segadapt.weights.origins import PUBLISHED_RESNET101, PUBLISHED_VGG, ModuleMap, published_name, recognise

START_PREFIX = "Scale."
"""What the names in a published ResNet-101 start file begin with; in a checkpoint that was trained they do not."""

PUBLISHED: dict[type[nn.Module], ModuleMap | None] = {
    DeepLabVGG16: PUBLISHED_VGG,
    DeepLabResNet101: PUBLISHED_RESNET101,
    StyleTransfer: None,
    Discriminator: None,
}
"""The names of the published programs for each of their networks; None: they are ours."""


def published_state(network: Segmenter | StyleTransfer | Discriminator) -> dict[str, Tensor]:
    """The network's weights by the names of the published programs, in their order (not copied).

    Raises UsageError for a network that they do not have.
    """
    if type(network) not in PUBLISHED:
        raise UsageError(
            f"{type(network).__name__} has no published layout",
            where="network",
            remedy="DeepLab VGG-16, DeepLab ResNet-101, style transfer networks and discriminators have one.",
        )
    own: dict[str, Tensor] = network.state_dict()
    modules = PUBLISHED[type(network)]
    if modules is None:
        return own
    if isinstance(network, DeepLabResNet101) and network.attention is not None:
        raise UsageError(
            "DeepLab ResNet-101 with attention has no published layout",
            where="network",
            remedy="Share model.safetensors.",
        )
    order = {theirs: i for i, theirs in enumerate(modules)}
    names = {published_name(name, modules): name for name in own}
    return {theirs: own[names[theirs]] for theirs in sorted(names, key=lambda name: order[name.rpartition(".")[0]])}


def export_published(
    network: Segmenter | StyleTransfer | Discriminator, path: Path, *, start_file: bool = False
) -> None:
    """Write the network as the published programs save theirs: a plain state dict, `torch.save`.

    With `start_file` as the file that they start DeepLab ResNet-101 from: each name begins with `Scale.` (they leave
    out the auxiliary head). Raises UsageError for a network that they do not have, and for one that they would read but
    run otherwise.
    """
    state = published_state(network)
    if isinstance(network, Segmenter):
        _check_runs_the_same(network, path)
    if isinstance(network, StyleTransfer) and network.residual:
        raise UsageError(
            "the published programs have no residual sum around this network",
            where=path,
            remedy="Train with residual: false to exchange generators with them, or share model.safetensors.",
        )
    if start_file and not isinstance(network, DeepLabResNet101):
        raise UsageError("is no DeepLab ResNet-101, whose start file is meant", where=path, remedy="Leave it out.")
    if start_file:
        state = {START_PREFIX + name: tensor for name, tensor in state.items()}
    _write(path, state)


def export_discriminator(checkpoint: Path, module: str, path: Path) -> None:
    """Write a discriminator of a training checkpoint as the published programs save theirs.

    Raises UsageError for another kind of file, a name that it does not have, and a module that is no discriminator.
    """
    read = read_checkpoint(checkpoint)
    modules = read.modules or {}
    layouts = {name: recognise(tensors) for name, tensors in modules.items()}
    found = [name for name, layout in layouts.items() if layout is not None and layout.kind == "discriminator"]
    if module not in found:
        raise UsageError(
            f"this is {read.info}, without a discriminator '{module}'",
            where=checkpoint,
            remedy=f"It has {', '.join(found)}." if found else "Give a checkpoints/step_N.pt of a stage that has one.",
        )
    _write(path, modules[module])


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    # cloned: a view would be saved with all of its storage
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    file = io.BytesIO()  # torch.save to a path hides what the disk says
    torch.save(content, file)
    write_bytes(path, file.getvalue())


def _check_runs_the_same(network: Segmenter, path: Path) -> None:
    """Raise UsageError for a network that the published programs would feed or run otherwise."""
    if not getattr(network, "published_aspp", False):
        raise UsageError(
            "the published programs would use only half of this network's head (quirk aspp)",
            where=path,
            remedy="Train with quirks: {aspp: true} to exchange networks with them, or share model.safetensors.",
        )
    if network.pixels != CAFFE or getattr(network, "stride_in_3x3", False):
        raise UsageError(
            "this network started from ImageNet weights of torchvision, and the published programs run Caffe's",
            where=path,
            remedy="Start from Caffe's weights to exchange networks with them, or share model.safetensors.",
        )

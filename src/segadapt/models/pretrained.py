"""Starting weights into a network, and a network's weights into the files of the published programs.

One adapter per origin turns the file's names into ours; then every name and every shape is checked, and only what an
origin cannot have (the classifier of an ImageNet network, say) stays fresh.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segadapt.errors import UsageError
from segadapt.files import write_bytes
from segadapt.models.checkpoint_files import Checkpoint, CheckpointInfo, identify, read_checkpoint
from segadapt.models.layouts import (
    ATTENTION,
    CAFFE_SKIPPED,
    CAFFE_VGG16,
    IMAGENET_SKIPPED,
    IMAGENET_VGG16,
    PUBLISHED_VGG,
    ModuleMap,
    own_name,
    published_name,
)
from segadapt.models.segmenter import CAFFE, IMAGENET, PIXEL_FORMATS, PixelFormat, Segmenter
from segadapt.models.starts import find_start
from segadapt.models.vgg import DeepLabVGG16

__all__ = ["StartReport", "export_published", "identify", "load_start", "load_tensors", "published_state"]

VGG16_NAMES = tuple(f"{module}.{leaf}" for module in CAFFE_VGG16.values() for leaf in ("weight", "bias"))
"""Our names of the weights of VGG-16's thirteen convolutions, in order."""


@dataclass(frozen=True)
class StartReport:
    """What `load_start` did."""

    path: Path
    sha256: str
    origin: CheckpointInfo
    loaded: tuple[str, ...]  # our names of what came from the file
    fresh: tuple[str, ...]  # and of what stayed as it was initialized
    skipped: tuple[str, ...]  # the file's names of what was knowingly left out
    note: str = ""  # about the hash

    def __str__(self) -> str:
        """One line for a person."""
        parts = [f"starts from {self.path}, {self.origin}: {len(self.loaded)} tensors loaded"]
        if self.fresh:
            modules = dict.fromkeys(name.rpartition(".")[0] for name in self.fresh)
            parts.append(f"fresh: {', '.join(modules)}")
        if self.skipped:
            parts.append(f"left out: {', '.join(self.skipped)}")
        return "; ".join([*parts, self.note] if self.note else parts)


def load_start(
    network: Segmenter, start: str | Path, *, positional: bool = False, fresh_head: bool = False
) -> StartReport:
    """Put starting weights into `network`, and give it the pixel format that they were trained with.

    `start` is a key of `starts.STARTS` or the path of a file: Caffe or ImageNet VGG-16, a published SEANet or VGG
    checkpoint, a segadapt model or training checkpoint, or a state dict with the network's own names.

    - `positional` (quirk `positional_load`): a Caffe VGG-16 file, or one of unknown origin, is loaded in the order of
      its tensors, without those whose names start with f, s or u, instead of by name.
    - `fresh_head`: instead of being refused, a head of another class count stays fresh, and so does attention that the
      file has not; attention that only the file has is left out.

    Raises UsageError when file and network do not go together, else as `read_checkpoint` and `find_start`.
    """
    found = find_start(start)
    checkpoint = read_checkpoint(found.path)
    if positional and checkpoint.info.kind in ("vgg16_caffe", "state_dict"):
        adapted = _by_position(checkpoint, network)
    else:
        adapted = _adapt(checkpoint, network)
    loaded, left_out = load_tensors(
        network, adapted.tensors, checkpoint.info, partial=adapted.partial, fresh_head=fresh_head
    )
    if adapted.pixels is not None:
        network.pixels = adapted.pixels
    fresh = tuple(name for name in network.state_dict() if name not in loaded)
    return StartReport(
        found.path, found.sha256, checkpoint.info, loaded, fresh, (*adapted.skipped, *left_out), found.note
    )


def published_state(network: Segmenter) -> dict[str, Tensor]:
    """The network's weights by the names of the published programs, in their order (not copied).

    Raises UsageError for a network that they do not have.
    """
    if not isinstance(network, DeepLabVGG16):
        raise UsageError(
            f"{type(network).__name__} has no published layout", where="network", remedy="Only DeepLab VGG-16 has one."
        )
    own = network.state_dict()
    names = {published_name(name, PUBLISHED_VGG): name for name in own}
    order = list(PUBLISHED_VGG)
    return {
        theirs: own[names[theirs]] for theirs in sorted(names, key=lambda name: order.index(name.rpartition(".")[0]))
    }


def export_published(network: Segmenter, path: Path) -> None:
    """Write the network as the published programs save theirs: a plain state dict, `torch.save`.

    Raises UsageError for a network that they do not have, or one whose head uses all four dilations: they would read
    the file, but use the first two only (quirk `aspp`).
    """
    state = published_state(network)
    if not getattr(network, "published_aspp", False):
        raise UsageError(
            "the published programs would use only half of this network's head (quirk aspp)",
            where=path,
            remedy="Train with quirks: {aspp: true} to exchange networks with them, or share model.safetensors.",
        )
    # cloned: a view would be saved with all of its storage
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    file = io.BytesIO()  # torch.save to a path hides what the disk says
    torch.save(content, file)
    write_bytes(path, file.getvalue())


@dataclass(frozen=True)
class _Adapted:
    """A file's tensors by our names, before any check against the network."""

    tensors: dict[str, Tensor]
    skipped: tuple[str, ...] = ()
    partial: bool = False  # such a file has not all of the network's weights
    pixels: PixelFormat | None = None  # that they were trained with; None: the network's own


def _adapt(checkpoint: Checkpoint, network: Segmenter) -> _Adapted:
    """Our names for the file's tensors, by its kind. Raises UsageError for a kind that the network cannot take."""
    kind, tensors = checkpoint.info.kind, checkpoint.tensors
    if isinstance(network, DeepLabVGG16):
        if kind == "vgg16_caffe":
            return _vgg16(checkpoint, CAFFE_VGG16, CAFFE_SKIPPED, CAFFE)
        if kind == "vgg16_imagenet":
            return _vgg16(checkpoint, IMAGENET_VGG16, IMAGENET_SKIPPED, IMAGENET)
        if kind == "published_vgg":
            return _Adapted(_renamed(checkpoint, PUBLISHED_VGG), pixels=CAFFE)
    if kind in ("model", "training"):
        trained_with = str((checkpoint.header or {}).get("pixels"))
        return _Adapted(tensors, pixels=PIXEL_FORMATS.get(trained_with))
    own = network.state_dict()
    if any(name in own for name in tensors):
        return _Adapted(tensors)
    raise _wrong_kind(checkpoint.info, network)


def _vgg16(checkpoint: Checkpoint, modules: ModuleMap, skip: tuple[str, ...], pixels: PixelFormat) -> _Adapted:
    """VGG-16's thirteen convolutions by name; fc6, fc7, attention and head stay fresh."""
    tensors = _renamed(checkpoint, modules, skip)
    for name in VGG16_NAMES:
        if name not in tensors:
            raise _misfit(checkpoint.info, f"it lacks '{published_name(name, modules)}'")
    return _Adapted(tensors, tuple(name for name in checkpoint.tensors if name.startswith(skip)), True, pixels)


def _by_position(checkpoint: Checkpoint, network: Segmenter) -> _Adapted:
    """Quirk `positional_load`: the file's n-th tensor is the network's n-th."""
    if not isinstance(network, DeepLabVGG16):
        raise _wrong_kind(checkpoint.info, network)
    skipped = tuple(name for name in checkpoint.tensors if name.startswith(("f", "s", "u")))
    tensors = [tensor for name, tensor in checkpoint.tensors.items() if name not in skipped]
    if len(tensors) != len(VGG16_NAMES):
        what = f"quirk positional_load needs {len(VGG16_NAMES)} tensors in order, and it has {len(tensors)}"
        raise _misfit(checkpoint.info, what)
    return _Adapted(dict(zip(VGG16_NAMES, tensors, strict=True)), skipped, True, CAFFE)


def _renamed(checkpoint: Checkpoint, modules: ModuleMap, skip: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The file's tensors by our names, without those that begin with `skip`. Raises UsageError for any other name."""
    renamed = {}
    for name, tensor in checkpoint.tensors.items():
        own = own_name(name, modules)
        if own is not None:
            renamed[own] = tensor
        elif not name.startswith(skip):
            raise _misfit(checkpoint.info, f"it has '{name}', which such a file has not")
    return renamed


def load_tensors(
    network: Segmenter,
    tensors: Mapping[str, Tensor],
    info: CheckpointInfo,
    *,
    partial: bool = False,
    fresh_head: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy `tensors`, by our names, into `network`; give the names of what was copied and of what was left out.

    `partial`: not all of the network's weights must be there. `fresh_head`: as `load_start` has it.
    Raises UsageError for missing and unknown names and for other shapes; nothing is copied then.
    """
    own: dict[str, Tensor] = network.state_dict()
    unknown = [name for name in tensors if name not in own]
    missing = [name for name in own if name not in tensors and not partial]
    for name in missing + unknown:
        if not name.startswith(ATTENTION):
            has, has_not = (_named(network), "it") if name in missing else ("it", _named(network))
            raise _misfit(info, f"{has} has '{name}' and {has_not} has not")
    other = [name for name in tensors if name in own and tensors[name].shape != own[name].shape]
    heads = [name for name in other if _differs_in_classes(tensors[name], own[name], network.classes)]
    for name in other:
        if name not in heads:
            raise _misfit(info, f"its '{name}' is {_shape(tensors[name])}, expected {_shape(own[name])}")
    if not fresh_head:
        _check_head(network, info, [tensors[name] for name in heads])
        _check_attention(info, missing, unknown)
    loaded = tuple(name for name in tensors if name in own and name not in heads)
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(tensors[name])
    return loaded, (*heads, *unknown)


def _check_head(network: Segmenter, info: CheckpointInfo, heads: list[Tensor]) -> None:
    """Raise UsageError when the file's head has another class count than the network's."""
    if heads:
        raise UsageError(
            f"this is {info}: its head has {heads[0].shape[0]} classes, the network's {network.classes}",
            where=info.path,
            remedy="Use a label space with as many classes, or fresh_head: true to leave the head fresh.",
        )


def _check_attention(info: CheckpointInfo, missing: list[str], unknown: list[str]) -> None:
    """Raise UsageError when only one of file and network has attention."""
    if any(name.startswith(ATTENTION) for name in missing):
        raise UsageError(
            f"this is {info}: it has no attention, and the network has",
            where=info.path,
            remedy="Start from a checkpoint with attention, or use fresh_head: true to leave the attention fresh.",
        )
    if any(name.startswith(ATTENTION) for name in unknown):
        raise UsageError(
            f"this is {info}: it has attention, and the network has not",
            where=info.path,
            remedy="Start from a checkpoint without attention, or use fresh_head: true to leave its attention out.",
        )


def _differs_in_classes(theirs: Tensor, ours: Tensor, classes: int) -> bool:
    """Whether only the first dimension differs and ours counts the classes."""
    return theirs.dim() == ours.dim() > 0 and theirs.shape[1:] == ours.shape[1:] and ours.shape[0] == classes


def _named(network: Segmenter) -> str:
    title = "DeepLab VGG-16" if isinstance(network, DeepLabVGG16) else type(network).__name__
    attention = " and attention" if network.attention is not None else ""
    return f"{title} with {network.classes} classes{attention}"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _wrong_kind(info: CheckpointInfo, network: Segmenter) -> UsageError:
    ours = "a segadapt model or training checkpoint of it"
    if isinstance(network, DeepLabVGG16):
        ours += ", Caffe or ImageNet VGG-16 weights, or a published SEANet or VGG checkpoint"
    return UsageError(f"this is {info}; expected {_named(network)}", where=info.path, remedy=f"Start from {ours}.")


def _misfit(info: CheckpointInfo, what: str) -> UsageError:
    ours = info.kind in ("model", "training", "state_dict")
    remedy = (
        "Start from a file of the same network." if ours else "Use an unchanged file of this kind, or another start."
    )
    return UsageError(f"this is {info}, but {what}", where=info.path, remedy=remedy)

"""Initial weights into a network.

The file's origin gives its tensors our names (`adapt.py`); then every name and every shape is checked,
and only what an origin cannot have (the classifier of an ImageNet network, say) stays fresh.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segadapt.errors import UsageError
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.adapt import COUNTER, Network, adapt, adapt_by_position, misfit, wrong_kind
from segadapt.weights.checkpoint_files import Checkpoint, CheckpointInfo, identify, read_checkpoint
from segadapt.weights.origins import origins_of
from segadapt.weights.starts import find_start

__all__ = [
    "StartReport",
    "fill_module",
    "identify",
    "load_module",
    "load_start",
    "load_tensors",
]


ATTENTION = "attention."
"""What the names of all attention weights begin with, in every `Segmenter`."""


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
    """Put initial weights into `network`, and make it run as they were trained: pixel format and traits.

    `start` is a key of `starts.STARTS` or the path of a file: a segadapt model or training checkpoint, a state dict
    with the network's own names, or a file of one of the network's origins (`origins.ORIGINS`).

    - `positional` (quirk `positional_load`): into a network that has an origin for it (DeepLab VGG-16: Caffe's), a file
      of this origin, or of an unknown one, is loaded in the order of its tensors instead of by name.
    - `fresh_head`: instead of being refused, a head of another class count stays fresh, and so does attention that the
      file has not; attention that only the file has is left out.

    Raises UsageError when file and network do not go together, else as `read_checkpoint` and `find_start`.
    """
    found = find_start(start)
    checkpoint = read_checkpoint(found.path)
    info = checkpoint.info
    in_order = next((origin for origin in origins_of(network) if origin.positional is not None), None)
    if positional and in_order is not None and info.kind in (in_order.kind, "state_dict"):
        adapted = adapt_by_position(checkpoint, in_order)
    else:
        adapted = adapt(checkpoint, network)
    loaded, left_out = load_tensors(network, adapted.tensors, info, partial=adapted.partial, fresh_head=fresh_head)
    if adapted.pixels is not None:
        network.pixels = adapted.pixels
    network.take_traits(adapted.traits)
    fresh = tuple(name for name in network.state_dict() if name not in loaded and not name.endswith(COUNTER))
    return StartReport(found.path, found.sha256, info, loaded, fresh, (*adapted.skipped, *left_out), found.note)


def load_module(network: Network, path: Path) -> CheckpointInfo:
    """Put weights into a network that is no segmenter; give what the file is.

    From a published file, a style transfer network saved by `save_generator`, or a training checkpoint of segadapt that
    has one such network. Raises UsageError for other files and shapes, else as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    fill_module(network, checkpoint)
    return checkpoint.info


def fill_module(network: Network, checkpoint: Checkpoint) -> None:
    """As `load_module`, from a file that was read."""
    info = checkpoint.info
    kinds = {origin.kind for origin in origins_of(network)} | (
        {"generator"} if isinstance(network, StyleTransfer) else set()
    )
    if info.kind == "training":
        tensors = _only_module(checkpoint, network)
    elif info.kind in kinds:
        tensors = checkpoint.tensors
    else:
        raise wrong_kind(info, network)
    if isinstance(network, StyleTransfer) and info.kind != "training":
        _check_residual(network, checkpoint)
    load_tensors(network, tensors, info)


def _check_residual(network: StyleTransfer, checkpoint: Checkpoint) -> None:
    """Raise UsageError when the same weights would mean something else in this network."""
    residual = bool((checkpoint.header or {}).get("residual", False))
    if residual != network.residual:
        raise UsageError(
            f"this is {checkpoint.info} {'with' if residual else 'without'} the residual sum",
            where=checkpoint.info.path,
            remedy=f"Set residual: {str(residual).lower()} for the stage, or use another file.",
        )


def _only_module(checkpoint: Checkpoint, network: Network) -> dict[str, Tensor]:
    """The one state dict of a training checkpoint that has the network's names. Raises UsageError if there is none."""
    own, modules = set(network.state_dict()), checkpoint.modules or {}
    found = [name for name, tensors in modules.items() if set(tensors) == own]
    if len(found) > 1:
        raise UsageError(
            f"this is {checkpoint.info} with {len(found)} such networks ({', '.join(found)})",
            where=checkpoint.info.path,
            remedy="Save the one that you mean: torch.save(torch.load(PATH)['modules'][NAME], FILE).",
        )
    if not found:
        raise wrong_kind(checkpoint.info, network)
    return modules[found[0]]


def load_tensors(
    network: Network,
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
    counters = [name for name in own if name.endswith(COUNTER) and name not in tensors]
    unknown = [name for name in tensors if name not in own]
    missing = [name for name in own if name not in tensors and name not in counters and not partial]
    for name in missing + unknown:
        if not name.startswith(ATTENTION):
            has, has_not = (network.in_words(), "it") if name in missing else ("it", network.in_words())
            raise misfit(info, f"{has} has '{name}', which {has_not} does not have")
    other = [name for name in tensors if name in own and tensors[name].shape != own[name].shape]
    heads = []
    if isinstance(network, Segmenter):
        heads = [name for name in other if _differs_in_classes(tensors[name], own[name], network.classes)]
    for name in other:
        if name not in heads:
            raise misfit(info, f"its '{name}' is {_shape(tensors[name])}, expected {_shape(own[name])}")
    if isinstance(network, Segmenter) and not fresh_head:
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
            remedy="Use a label space with as many classes, or (a `start`) fresh_head: true to leave the head fresh.",
        )


def _check_attention(info: CheckpointInfo, missing: list[str], unknown: list[str]) -> None:
    """Raise UsageError when only one of file and network has attention."""
    if any(name.startswith(ATTENTION) for name in missing):
        raise UsageError(
            f"this is {info}: it has no attention, but the network does",
            where=info.path,
            remedy="Start from a checkpoint with attention, or use fresh_head: true to leave the attention fresh.",
        )
    if any(name.startswith(ATTENTION) for name in unknown):
        raise UsageError(
            f"this is {info}: it has attention, but the network does not",
            where=info.path,
            remedy="Start from a checkpoint without attention, or use fresh_head: true to leave its attention out.",
        )


def _differs_in_classes(theirs: Tensor, ours: Tensor, classes: int) -> bool:
    """Whether only the first dimension differs and ours counts the classes."""
    return theirs.dim() == ours.dim() > 0 and theirs.shape[1:] == ours.shape[1:] and ours.shape[0] == classes


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"

"""A file's tensors by our names, as its origin (`origins.py`) has it, and the errors about files that do not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segadapt.errors import UsageError
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import PIXEL_FORMATS, PixelFormat, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.checkpoint_files import Checkpoint, CheckpointInfo
from segadapt.weights.key_map import KeyMap, own_name, published_name
from segadapt.weights.origin import Origin
from segadapt.weights.origins import OWN_KINDS, origins_of

Network = Segmenter | StyleTransfer | Discriminator
"""What has files of weights."""
COUNTER = "num_batches_tracked"
"""A buffer of batch norm that changes nothing here, and that files from before PyTorch 0.4.1 have not."""


@dataclass(frozen=True)
class Adapted:
    """A file's tensors by our names, before any check against the network."""

    tensors: dict[str, Tensor]
    skipped: tuple[str, ...] = ()
    partial: bool = False  # such a file has not all of the network's weights
    pixels: PixelFormat | None = None  # that they were trained with; None: the network's own
    traits: Mapping[str, bool] = field(default_factory=dict)  # see `Segmenter.traits`


def adapt(checkpoint: Checkpoint, network: Segmenter) -> Adapted:
    """Our names for the file's tensors, by its kind. Raises UsageError for a kind that the network cannot take."""
    kind, tensors = checkpoint.info.kind, checkpoint.tensors
    origins = origins_of(network)
    for origin in origins:
        if origin.kind == kind and origin.keys is not None:
            return _by_origin(checkpoint, network, origin, origin.keys)
    if kind in ("model", "training"):
        header = checkpoint.header or {}
        pixels = PIXEL_FORMATS.get(str(header.get("pixels")))
        return Adapted(tensors, pixels=pixels, traits=traits_in(header, network))
    own = network.state_dict()
    if (kind == "state_dict" or not origins) and any(name in own for name in tensors):
        return Adapted(tensors)
    raise wrong_kind(checkpoint.info, network)


def traits_in(header: Mapping[str, object], network: Segmenter) -> dict[str, bool]:
    """The network's traits that the header of a model or a training checkpoint names.

    Models name them under `traits`, up to format 3 and training checkpoints beside all else.
    """
    under = header.get("traits")
    named = under if isinstance(under, dict) else header
    return {trait: bool(named[trait]) for trait in network.traits() if trait in named}


def _by_origin(checkpoint: Checkpoint, network: Segmenter, origin: Origin, keys: KeyMap) -> Adapted:
    theirs = checkpoint.tensors if origin.read is None else origin.read(checkpoint.tensors)
    parts: dict[str, list[str]] = {}  # our name -> those of the file that make it up
    for name in theirs:
        own = own_name(name, keys)
        if own is not None:
            parts.setdefault(own, []).append(name)
        elif not (origin.skipped and name.startswith(origin.skipped)):
            raise misfit(checkpoint.info, f"it has '{name}', which such a file does not have")
    tensors = {own: _joined(names, keys, theirs) for own, names in parts.items()}
    if origin.body is not None:
        modules = set(origin.body.values())
        for name in network.state_dict():
            if {name, name.rpartition(".")[0]} & modules and name not in tensors and not name.endswith(COUNTER):
                raise misfit(checkpoint.info, f"it lacks '{published_name(name, origin.body)}'")
    skipped = tuple(name for name in checkpoint.tensors if origin.skipped and name.startswith(origin.skipped))
    return Adapted(tensors, skipped, origin.body is not None, origin.pixels, origin.traits)


def _joined(names: list[str], keys: KeyMap, tensors: Mapping[str, Tensor]) -> Tensor:
    """The tensors of these names as one, in the order of the map."""
    if len(names) == 1:
        return tensors[names[0]]
    order = {theirs: i for i, theirs in enumerate(keys)}
    return torch.cat([tensors[name] for name in sorted(names, key=lambda name: order[name.rpartition(".")[0]])])


def adapt_by_position(checkpoint: Checkpoint, origin: Origin) -> Adapted:
    """Quirk `positional_load`: the file's n-th tensor is the n-th of the origin's, without the names that do not count.

    Raises UsageError for a file with another number of them.
    """
    assert origin.keys is not None and origin.positional is not None
    names = [f"{module}.{leaf}" for module in origin.keys.values() for leaf in ("weight", "bias")]
    skipped = tuple(name for name in checkpoint.tensors if name.startswith(origin.positional))
    tensors = [tensor for name, tensor in checkpoint.tensors.items() if name not in skipped]
    if len(tensors) != len(names):
        what = f"quirk positional_load needs {len(names)} tensors in order, and it has {len(tensors)}"
        raise misfit(checkpoint.info, what)
    return Adapted(dict(zip(names, tensors, strict=True)), skipped, True, origin.pixels)


def wrong_kind(info: CheckpointInfo, network: Network) -> UsageError:
    """The error for a file that is not for this network at all."""
    if isinstance(network, Segmenter):
        others = [origin.title for origin in origins_of(network) if origin.keys is not None]
        remedy = f"Start from {', '.join(['a segadapt model or training checkpoint of it', *others])}."
    else:
        remedy = "Use a published file of it, or a training checkpoint or model of segadapt that has it."
    return UsageError(f"this is {info}; expected {network.in_words()}", where=info.path, remedy=remedy)


def misfit(info: CheckpointInfo, what: str) -> UsageError:
    """The error for a file of the right kind that does not fit."""
    ours = info.kind in ("state_dict", *OWN_KINDS)
    remedy = (
        "Start from a file of the same network." if ours else "Use an unchanged file of this kind, or another start."
    )
    return UsageError(f"this is {info}, but {what}", where=info.path, remedy=remedy)

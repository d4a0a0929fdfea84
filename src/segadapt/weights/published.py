"""A network's weights into the files of the published programs, for those who exchange networks with them.

The names are those of the network's whole origin, in its order; what these programs would run otherwise is refused.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from segadapt.errors import UsageError
from segadapt.files import write_bytes
from segadapt.models.segmenter import PixelFormat, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.adapt import Network
from segadapt.weights.checkpoint_files import read_checkpoint
from segadapt.weights.key_map import published_name, published_tensors
from segadapt.weights.origin import Origin
from segadapt.weights.origins import ORIGINS, origins_of, recognise, whole_origin


def published_state(network: Network) -> dict[str, Tensor]:
    """The network's weights by the names of the published programs, in their order (not copied).

    Raises UsageError for a network that they do not have.
    """
    return _state(network, _origin(network))


def _origin(network: Network) -> Origin:
    origin = whole_origin(network)
    if origin is None or (isinstance(network, Segmenter) and network.attention is not None and not origin.attention):
        raise UsageError(
            f"{network.in_words()} is not a network of the published programs",
            where="network",
            remedy="Share model.safetensors.",
        )
    return origin


def _state(network: Network, origin: Origin) -> dict[str, Tensor]:
    own: dict[str, Tensor] = network.state_dict()
    keys = origin.keys
    if keys is None:
        return own
    order = {theirs: i for i, theirs in enumerate(keys)}
    names = {published_name(name, keys): name for name in own}
    return {theirs: own[names[theirs]] for theirs in sorted(names, key=lambda name: order[name.rpartition(".")[0]])}


def export_published(network: Network, path: Path, *, start_file: bool = False) -> None:
    """Write the network as the published programs save theirs: a plain state dict, `torch.save`.

    With `start_file` as the file that they start it from: each name begins with the prefix of these (`Scale.` for
    DeepLab ResNet-101, whose auxiliary head they then leave out). Raises UsageError for a network that they do not
    have, and for one that they would read but run otherwise.
    """
    origin = _origin(network)
    state = _state(network, origin)
    if isinstance(network, Segmenter):
        _need_the_same(network, origin, path)
    if isinstance(network, StyleTransfer) and network.residual:
        raise UsageError(
            "the published programs run this network without a residual sum",
            where=path,
            remedy="Train with residual: false to exchange generators with them, or share model.safetensors.",
        )
    if start_file:
        prefix = next((one.prefix for one in ORIGINS[type(network)] if one.prefix is not None), None)
        if prefix is None:
            raise UsageError(
                f"the published programs have no start file of {network.in_words()}",
                where=path,
                remedy="Leave --start-file (start_file) out.",
            )
        state = {prefix + name: tensor for name, tensor in state.items()}
    _write(path, state)


def encoder_state(network: Segmenter, kind: str) -> dict[str, Tensor]:
    """The weights of the network's encoder by the names of a kind of file that has only these, in its order.

    `kind` is that of an origin (`dinov2`, `dinov2_hub`, …). Raises UsageError for one that the network has not.
    """
    known = {origin.kind: origin for origin in origins_of(network) if origin.body is not None}
    if kind not in known:
        remedy = f"It has {', '.join(known)}." if known else "Share model.safetensors."
        raise UsageError(
            f"{network.in_words()} has no such kind of file: '{kind:.40}'", where="--encoder", remedy=remedy
        )
    origin = known[kind]
    assert origin.body is not None
    state = published_tensors(network.for_inference().state_dict(), origin.body)
    return state if origin.write is None else origin.write(state)


def export_encoder(network: Segmenter, path: Path, kind: str) -> None:
    """Write `encoder_state`, by `torch.save`. Raises as it does."""
    _write(path, encoder_state(network, kind))


def export_discriminator(checkpoint: Path, module: str, path: Path) -> None:
    """Write a discriminator of a training checkpoint as the published programs save theirs.

    Raises UsageError for another kind of file, a name that it does not have, and a module that is no discriminator.
    """
    read = read_checkpoint(checkpoint)
    modules = read.modules or {}
    origins = {name: recognise(tensors) for name, tensors in modules.items()}
    found = [name for name, origin in origins.items() if origin is not None and origin.kind == "discriminator"]
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


def _need_the_same(network: Segmenter, origin: Origin, path: Path) -> None:
    """Raise UsageError for a network that the published programs would feed or run otherwise."""
    for option, value in origin.options.items():
        own = getattr(network.options, option)
        if own != value:
            raise UsageError(
                f"the published programs would run this network with {option}: {value}, and it was trained with "
                f"{option}: {own}",
                where=path,
                remedy=f"Train with the option {option}: {value}, as official recipes do, to exchange networks with "
                "them, or share model.safetensors.",
            )
    traits = {name: origin.traits.get(name, False) for name in network.traits()}
    pixels = network.pixels if origin.pixels is None else origin.pixels
    if network.pixels != pixels or network.traits() != traits:
        raise UsageError(
            f"the weights of this network need {_wanted(network.pixels, network.traits())}, but the published programs "
            f"run it with {_wanted(pixels, traits)}",
            where=path,
            remedy="Start from weights such as theirs to exchange networks with them, or share model.safetensors.",
        )


def _wanted(pixels: PixelFormat, traits: Mapping[str, bool]) -> str:
    """How weights want to be run, in words: `pixels: imagenet, stride_in_3x3: true`."""
    return ", ".join([f"pixels: {pixels.name}", *(f"{name}: {str(value).lower()}" for name, value in traits.items())])

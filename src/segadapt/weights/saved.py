"""Models for use: safetensors with a JSON header that says all one needs to run them, and nothing that could run code.

The header of a segmenter holds the network and its options, the label space, the input size and the pixel format, and
where the model comes from; that of a style transfer network (a generator) says where it comes from and its size. For
training checkpoints see `segadapt.engine.checkpoints`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator
from safetensors.torch import save
from torch import nn

from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_bytes
from segadapt.models import networks
from segadapt.models.segmenter import PIXEL_FORMATS, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.plugin_loading import known
from segadapt.settings import Settings, Size
from segadapt.weights.adapt import adapt
from segadapt.weights.checkpoint_files import HEADER, MODEL_FORMAT, Checkpoint, read_checkpoint
from segadapt.weights.initial import fill_module, load_tensors
from segadapt.weights.origin import Origin
from segadapt.weights.origins import runnable

PUBLISHED_SPACES = {19: "cityscapes19", 16: "cityscapes16"}
"""The label spaces of published checkpoints, which do not say theirs, by their number of classes."""


class ModelHeader(Settings):
    """What a model file says about itself."""

    network: str = Field(description="name in `segadapt.models.networks`")
    options: dict[str, Any] = Field({}, description="the network's options, see `Segmenter.Options`")
    attention: bool = Field(description="whether it has SEAN's attention")
    pixels: str = Field(description="name of the pixel format")
    align_corners: bool | None = Field(None, description="its corner rule when logits are upsampled; null: its own")
    traits: dict[str, bool] = Field({}, description="what its weights decide, see `Segmenter.traits`")
    label_space: dict[str, Any] = Field(description="the label space, as `LabelSpace.as_dict` gives it")
    size: Size
    stage: str | None = Field(None, description="the stage of the recipe that trained it")
    method: str | None = Field(None, description="the method of that stage")
    step: int | None = Field(None, ge=0, description="updates done")
    selection: Literal["last", "best_target", "label_free"] | None = Field(None, description="why this step")
    used_target_labels: bool | None = Field(None, description="whether target labels were used; null: unknown")

    @model_validator(mode="before")
    @classmethod
    def _of_format_3(cls, values: Any) -> Any:
        """Up to format 3 the header had one key for one option, and one for one trait."""
        if not isinstance(values, dict):
            return values
        found = dict(values)
        if found.pop("published_aspp", False) is True:
            found["options"] = {"aspp": "published", **found.get("options", {})}
        if found.pop("stride_in_3x3", False) is True:
            found["traits"] = {"stride_in_3x3": True, **found.get("traits", {})}
        return found

    @property
    def space(self) -> LabelSpace:
        """The label space. Raises UsageError when the header's is wrong."""
        return LabelSpace.from_dict(self.label_space, "label space of the model")


@dataclass(frozen=True)
class SavedModel:
    """A network with its weights, in eval mode on the CPU, and its header."""

    network: Segmenter
    header: ModelHeader


def save_model(path: Path, network: Segmenter, header: ModelHeader) -> None:
    """Write `network` to `path`, whole or not at all; the same weights and header give the same bytes.

    The network's options and traits, and a corner rule that is not its usual one, need not be in `header`: they are
    taken from the network. Raises SegadaptError when the disk is full or the folder cannot be written.
    """
    assert header.pixels == network.pixels.name and header.attention == (network.attention is not None)
    assert len(header.label_space["classes"]) == network.classes
    changes: dict[str, Any] = {"options": network.options.model_dump(mode="json"), "traits": network.traits()}
    if header.align_corners is None and network.align_corners != type(network).align_corners:
        changes["align_corners"] = network.align_corners
    _write(path, network, header.model_copy(update=changes))


def _write(path: Path, network: nn.Module, header: Settings) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {HEADER: json.dumps({"format": MODEL_FORMAT, **header.model_dump(mode="json")}, sort_keys=True)}
    write_bytes(path, save(tensors, metadata))


def load_model(path: Path) -> SavedModel:
    """The model that `save_model` wrote to `path`.

    Raises UsageError for another kind of file, a newer format or an unknown network, SegadaptError for a damaged file.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.info.kind != "model":
        raise _not_a_model(checkpoint)
    return _own_model(checkpoint)


def load_any(path: Path, otherwise: LabelSpace | None = None) -> SavedModel:
    """A model of segadapt, or a published checkpoint: SEANet, DeepLab VGG-16 or ResNet-101, DAFormer, HRDA or MIC.

    A published one is run as its program ran it: the first two dilations of DeepLab's head, input 1024×512 (HRDA:
    2048×1024, details of 512×512), corners aligned with ResNet-101 only. Its label space is `cityscapes19` or
    `cityscapes16` by its number of classes; with any other number it is `otherwise`. Raises as `load_model` does.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.info.kind == "model":
        return _own_model(checkpoint)
    if (found := runnable(checkpoint.info.kind)) is not None:
        return _published_model(checkpoint, *found, otherwise)
    raise _not_a_model(checkpoint)


Header = TypeVar("Header", bound=Settings)


def _header(checkpoint: Checkpoint, kind: type[Header]) -> Header:
    content = {key: value for key, value in (checkpoint.header or {}).items() if key != "format"}
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        raise _wrong_header(checkpoint, f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error


def _wrong_header(checkpoint: Checkpoint, what: str) -> SegadaptError:
    return SegadaptError(
        f"its header is wrong ({what.rstrip('.')})",
        where=checkpoint.info.path,
        remedy="Copy it again, or write it again with segadapt.",
    )


def _own_model(checkpoint: Checkpoint) -> SavedModel:
    path = checkpoint.info.path
    header = _header(checkpoint, ModelHeader)
    try:
        classes = len(header.space)
    except UsageError as error:
        raise _wrong_header(checkpoint, str(error).splitlines()[0]) from error
    if header.network not in networks.NETWORKS:
        raise UsageError(
            f"this is {checkpoint.info}, which is unknown here",
            where=path,
            remedy=known(header.network, list(networks.NETWORKS)),
        )
    choice = {**header.options, "name": header.network}
    try:
        network = networks.build(choice, classes=classes, attention=header.attention)
    except UsageError as error:
        raise _wrong_header(checkpoint, error.what) from error
    if header.pixels != network.pixels.name:
        if header.pixels not in PIXEL_FORMATS:
            raise UsageError(
                f"its pixel format '{header.pixels}' is unknown here",
                where=path,
                remedy=f"The network '{header.network}' must set it as its `pixels`.",
            )
        network.pixels = PIXEL_FORMATS[header.pixels]
    if header.align_corners is not None:
        network.align_corners = header.align_corners
    network.take_traits(header.traits)
    load_tensors(network, checkpoint.tensors, checkpoint.info)
    return SavedModel(network.eval(), header)


def _published_model(checkpoint: Checkpoint, name: str, origin: Origin, otherwise: LabelSpace | None) -> SavedModel:
    info = checkpoint.info
    assert info.classes is not None
    known = PUBLISHED_SPACES.get(info.classes)
    space = otherwise if known is None else load_label_space(known)
    if space is None:
        raise UsageError(
            f"this is {info}, but the file does not name them",
            where=info.path,
            remedy="Give its label space: --label-space NAME.",
        )
    if len(space) != info.classes:
        raise UsageError(
            f"this is {info}, but label space '{space.name}' has {len(space)}",
            where=info.path,
            remedy="Give the label space that it was trained with.",
        )
    found = origin.read_options(checkpoint.tensors) if origin.read_options is not None else {}
    network = networks.build({"name": name, **origin.options, **found}, classes=info.classes, attention=info.attention)
    load_tensors(network, adapt(checkpoint, network).tensors, info)
    header = ModelHeader(
        network=name,
        options=network.options.model_dump(mode="json"),
        attention=info.attention,
        pixels=network.pixels.name,
        align_corners=network.align_corners,
        traits=network.traits(),
        label_space=space.as_dict(),
        size=origin.size,
    )
    return SavedModel(network.eval(), header)


def _not_a_model(checkpoint: Checkpoint) -> UsageError:
    remedy = "Choose a model.safetensors of a run, or a whole published checkpoint (docs/networks.md lists them)."
    if checkpoint.info.kind == "training":
        remedy = "It serves to resume a training; choose the model.safetensors of its stage."
    return UsageError(
        f"this is {checkpoint.info}, which cannot be used as a model", where=checkpoint.info.path, remedy=remedy
    )


class GeneratorHeader(Settings):
    """What the file of a style transfer network says about itself."""

    network: Literal["style_transfer"] = "style_transfer"
    residual: bool = Field(False, description="whether it adds to its input (`StyleTransfer.residual`)")
    size: Size | None = Field(None, description="size that it was trained with; null: not known")
    stage: str | None = Field(None, description="the stage of the recipe that trained it")
    method: str | None = Field(None, description="the method of that stage")
    step: int | None = Field(None, ge=0, description="updates done")
    used_target_labels: bool | None = Field(None, description="whether target labels were used; null: unknown")


@dataclass(frozen=True)
class SavedGenerator:
    """A style transfer network with its weights, in eval mode on the CPU, and its header."""

    network: StyleTransfer
    header: GeneratorHeader


def save_generator(path: Path, network: StyleTransfer, header: GeneratorHeader) -> None:
    """Write `network` to `path`, whole or not at all; the same weights and header give the same bytes.

    Raises SegadaptError when the disk is full or the folder cannot be written.
    """
    _write(path, network, header)


def load_generator(path: Path) -> SavedGenerator:
    """The style transfer network that `save_generator` wrote to `path`, or a published one (`transformer_net`).

    Raises UsageError for another kind of file or a newer format, SegadaptError for a damaged file.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.info.kind == "training":
        raise UsageError(
            f"this is {checkpoint.info}, which cannot be used as a style transfer network",
            where=path,
            remedy="It serves to resume a training; choose the model.safetensors of its stage.",
        )
    header = _header(checkpoint, GeneratorHeader) if checkpoint.info.kind == "generator" else GeneratorHeader()
    network = StyleTransfer(header.residual)
    fill_module(network, checkpoint)
    return SavedGenerator(network.eval(), header)

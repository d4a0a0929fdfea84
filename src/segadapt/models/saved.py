"""Models for use: safetensors with a JSON header that says all one needs to run them, and nothing that could run code.

The header of a segmenter holds the network and its options, the label space, the input size and the pixel format, and
where the model comes from; that of a style transfer network (a generator) says where it comes from and its size. For
training checkpoints see `segadapt.engine.checkpoints`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from safetensors.torch import save
from torch import nn

from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_bytes
from segadapt.models import networks
from segadapt.models.adapters import adapt
from segadapt.models.checkpoint_files import HEADER, MODEL_FORMAT, Checkpoint, read_checkpoint
from segadapt.models.deeplab_v2 import DeepLabResNet101
from segadapt.models.pretrained import fill_module, load_tensors
from segadapt.models.segmenter import PIXEL_FORMATS, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.settings import Settings, Size

PUBLISHED_NETWORKS = {"published_vgg": "deeplab_vgg16", "deeplab_resnet101": "deeplab_resnet101"}
"""Which of our networks a published checkpoint is, by its kind."""

PUBLISHED_SPACES = {19: "cityscapes19", 16: "cityscapes16"}
"""The label spaces of published checkpoints, which do not say theirs, by their number of classes."""


class ModelHeader(Settings):
    """What a model file says about itself."""

    network: str = Field(description="name in `segadapt.models.networks`")
    attention: bool = Field(description="whether it has SEAN's attention")
    published_aspp: bool = Field(description="quirk `aspp`: its head uses its first two dilations only")
    pixels: str = Field(description="name of the pixel format")
    align_corners: bool | None = Field(None, description="its corner rule when logits are upsampled; null: its own")
    stride_in_3x3: bool = Field(
        False, description="`deeplab_resnet101`: the stride is in the 3×3 convolutions, as in torchvision's weights"
    )
    label_space: dict[str, Any] = Field(description="the label space, as `LabelSpace.as_dict` gives it")
    size: Size
    stage: str | None = Field(None, description="the stage of the recipe that trained it")
    method: str | None = Field(None, description="the method of that stage")
    step: int | None = Field(None, ge=0, description="updates done")
    selection: Literal["last", "best_target", "label_free"] | None = Field(None, description="why this step")
    used_target_labels: bool | None = Field(
        None, description="whether labels of the target had a part in it; null: not known"
    )

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

    Where its stride sits, and a corner rule that is not the network's usual one, need not be in `header`: they are
    taken from the network. Raises SegadaptError when the disk is full or the folder cannot be written.
    """
    assert header.pixels == network.pixels.name and header.attention == (network.attention is not None)
    assert len(header.label_space["classes"]) == network.classes
    changes: dict[str, bool] = {}
    if header.align_corners is None and network.align_corners != type(network).align_corners:
        changes["align_corners"] = network.align_corners
    if isinstance(network, DeepLabResNet101):
        changes["stride_in_3x3"] = network.stride_in_3x3
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
    """A model of segadapt, or a published SEANet, DeepLab VGG-16 or two-head DeepLab ResNet-101 checkpoint.

    A published one is run as its program ran it: the first two dilations of the head, input 1024×512, corners aligned
    with ResNet-101 only. Its label space is `cityscapes19` or `cityscapes16` by its number of classes; with any other
    number it is `otherwise`. Raises as `load_model` does.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.info.kind == "model":
        return _own_model(checkpoint)
    if checkpoint.info.kind in PUBLISHED_NETWORKS:
        return _published_model(checkpoint, otherwise)
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
        remedy="Copy it again, or write it anew with segadapt.",
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
            f"this is {checkpoint.info}, which is not known here",
            where=path,
            remedy="Register the network first (segadapt.models.networks.register; see docs/networks.md).",
        )
    network = networks.build(
        header.network, classes=classes, attention=header.attention, published_aspp=header.published_aspp
    )
    if header.pixels != network.pixels.name:
        if header.pixels not in PIXEL_FORMATS:
            raise UsageError(
                f"its pixel format '{header.pixels}' is not known here",
                where=path,
                remedy=f"The network '{header.network}' must set it as its `pixels`.",
            )
        network.pixels = PIXEL_FORMATS[header.pixels]
    if header.align_corners is not None:
        network.align_corners = header.align_corners
    if isinstance(network, DeepLabResNet101):
        network.place_stride(header.stride_in_3x3)
    load_tensors(network, checkpoint.tensors, checkpoint.info)
    return SavedModel(network.eval(), header)


def _published_model(checkpoint: Checkpoint, otherwise: LabelSpace | None) -> SavedModel:
    info = checkpoint.info
    assert info.classes is not None
    known = PUBLISHED_SPACES.get(info.classes)
    space = otherwise if known is None else load_label_space(known)
    if space is None:
        raise UsageError(
            f"this is {info}, and does not say which",
            where=info.path,
            remedy="Give its label space: --label-space NAME.",
        )
    if len(space) != info.classes:
        raise UsageError(
            f"this is {info}, and label space '{space.name}' has {len(space)}",
            where=info.path,
            remedy="Give the label space that it was trained with.",
        )
    name = PUBLISHED_NETWORKS[info.kind]
    network = networks.build(name, classes=info.classes, attention=info.attention, published_aspp=True)
    load_tensors(network, adapt(checkpoint, network).tensors, info)
    header = ModelHeader(
        network=name,
        attention=info.attention,
        published_aspp=True,
        pixels=network.pixels.name,
        align_corners=network.align_corners,
        label_space=space.as_dict(),
        size=(1024, 512),
    )
    return SavedModel(network.eval(), header)


def _not_a_model(checkpoint: Checkpoint) -> UsageError:
    remedy = "Choose a model.safetensors of a run, or a published SEANet, DeepLab VGG-16 or ResNet-101 checkpoint."
    if checkpoint.info.kind == "training":
        remedy = "It is for resuming a training; choose the model.safetensors of its stage."
    return UsageError(f"this is {checkpoint.info}, not a model to use", where=checkpoint.info.path, remedy=remedy)


class GeneratorHeader(Settings):
    """What the file of a style transfer network says about itself."""

    network: Literal["style_transfer"] = "style_transfer"
    residual: bool = Field(False, description="whether it adds to its input (`StyleTransfer.residual`)")
    size: Size | None = Field(None, description="size that it was trained with; null: not known")
    stage: str | None = Field(None, description="the stage of the recipe that trained it")
    method: str | None = Field(None, description="the method of that stage")
    step: int | None = Field(None, ge=0, description="updates done")
    used_target_labels: bool | None = Field(
        None, description="whether labels of the target had a part in it; null: not known"
    )


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
            f"this is {checkpoint.info}, not a style transfer network to use",
            where=path,
            remedy="It is for resuming a training; choose the model.safetensors of its stage.",
        )
    header = _header(checkpoint, GeneratorHeader) if checkpoint.info.kind == "generator" else GeneratorHeader()
    network = StyleTransfer(header.residual)
    fill_module(network, checkpoint)
    return SavedGenerator(network.eval(), header)

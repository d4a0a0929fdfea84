"""Reading files of weights, without ever running what is in them, and saying what they are.

PyTorch files (both its formats, `weights_only`) and safetensors are read. The state dict may lie in them plain, under a
name (`state_dict`, …), or with names that begin with `module.` (saved from a data-parallel wrapper).
"""

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segadapt.errors import SegadaptError, UsageError
from segadapt.files import need_file
from segadapt.plain_data import parse_json
from segadapt.weights.origins import recognise

MODEL_FORMAT = 4
"""Version of the header of our own model files, raised when an older segadapt could not read a newer file."""
HEADER = "segadapt"
"""The one metadata entry of our own model files: JSON. (One, since safetensors writes several in any order.)"""
GENERATOR = "style_transfer"
"""What the header of a style transfer network says as its network; it has no label space."""

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "network")
RESULTS = ("teacher", "network", "student", "generator")
"""Which of a training checkpoint's modules is the network that the training is for: the first of these that it has."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file of weights is."""

    path: Path
    kind: str  # of an `Origin`, or "model", "generator", "training" or "state_dict"
    title: str
    classes: int | None = None
    attention: bool = False

    def __str__(self) -> str:
        """E.g. `a published DeepLab VGG-16 checkpoint with 19 classes and attention`."""
        parts = [f"{self.classes} classes"] if self.classes is not None else []
        parts += ["attention"] if self.attention else []
        return " with ".join([self.title, *([" and ".join(parts)] if parts else [])])


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, read."""

    info: CheckpointInfo
    tensors: dict[str, Tensor]  # by the names of the file, without `module.`
    header: dict[str, Any] | None = None  # of our own models; of training checkpoints what they say about themselves
    modules: dict[str, dict[str, Tensor]] | None = None  # of training checkpoints: all state dicts by name


def identify(path: Path) -> CheckpointInfo:
    """What the file is. Raises as `read_checkpoint` does."""
    return read_checkpoint(path).info


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the file's tensors to the CPU and recognise them.

    Raises UsageError for a missing file or one that is no file of weights, SegadaptError for a damaged one.
    """
    with need_file(path, "the checkpoint").open("rb") as file:
        magic = file.read(9)
    if magic[8:] == b"{":  # a safetensors file: eight bytes of length, then JSON
        return _read_safetensors(path)
    content = _read_torch(path, magic)
    if _is_training(content):
        return _training_checkpoint(path, content)
    return _recognised(path, _tensors_of(content))


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if HEADER not in metadata:
        return _recognised(path, tensors)
    try:
        header = parse_json(metadata[HEADER], path)
        version, network = int(header["format"]), str(header["network"])
        if network == GENERATOR:
            info = CheckpointInfo(path, "generator", "a segadapt style transfer network")
        else:
            classes, attention = len(header["label_space"]["classes"]), bool(header["attention"])
            title = f"a segadapt model of network '{network}'"
            info = CheckpointInfo(path, "model", title, classes, attention)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if version > MODEL_FORMAT:
        raise UsageError(
            f"written by a newer segadapt (model format {version}; this one reads up to {MODEL_FORMAT})",
            where=path,
            remedy="Upgrade segadapt.",
        )
    return Checkpoint(info, tensors, header)


MOST_INFLATED = 20
"""How many times its size a zip may unfold to: PyTorch writes its own unpacked, packed weights hold about as much."""


def load_torch(path: Path, mapped: bool = False) -> Any:
    """What `torch.load` reads in a file, on the CPU: tensors and plain data, nothing that runs.

    With `mapped` the tensors stay in the file until they are used.

    Raises ValueError for a zip that says it is very much larger than the file, before anything of it is unpacked, and
    whatever else the restricted unpickler is led to by damaged bytes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_INFLATED * path.stat().st_size:
            raise ValueError(f"a file of {path.stat().st_size:,} bytes would unfold to {size:,}")
    with warnings.catch_warnings():  # about forms that are refused
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _read_torch(path: Path, magic: bytes) -> object:
    """What a PyTorch file holds, read by its restricted unpickler."""
    try:
        return load_torch(path)
    except OSError as error:
        raise SegadaptError(
            f"cannot be read ({error.strerror or error})", where=path, remedy="Check the file and its permissions."
        ) from error
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        message = str(error)
        if code := re.search(r"GLOBAL (\S+)", message):
            raise UsageError(
                f"holds Python objects ({code[1]}), which segadapt does not load, since loading them can run code",
                where=path,
                remedy="Save only its weights with the program that made it: torch.save(net.state_dict(), PATH).",
            ) from error
        is_torch = magic[:2] in (b"PK", b"\x80\x02") or not magic
        if not is_torch or "TorchScript" in message:
            raise UsageError(
                "is not a file of weights (.pth, .pt or .safetensors)",
                where=path,
                remedy="Choose a checkpoint; a page of text under such a name means that a download failed.",
            ) from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SegadaptError:
    message = re.sub(r"^\[enforce fail[^]]*\] \. ", "", str(error).strip())
    reason = (message or "it ends too early").splitlines()[0].split(". ")[0]
    return SegadaptError(
        f"is damaged or incomplete ({reason})",
        where=path,
        remedy="Copy or download it again, or use another one.",
    )


def _is_training(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether this is what `segadapt.engine.checkpoints` saves."""
    return (
        isinstance(content, dict) and isinstance(content.get("modules"), dict) and isinstance(content.get("step"), int)
    )


def _training_checkpoint(path: Path, content: dict[str, Any]) -> Checkpoint:
    modules = {str(name): _tensors_of(module) for name, module in content["modules"].items()}
    result = next((modules[name] for name in RESULTS if name in modules), {})
    title = f"a segadapt training checkpoint of step {content['step']}"
    about = content.get("about")
    info = CheckpointInfo(path, "training", title)
    return Checkpoint(info, result, about if isinstance(about, dict) else None, modules)


def _tensors_of(content: object) -> dict[str, Tensor]:
    """The state dict in what a PyTorch file holds; empty when there is none."""
    if not isinstance(content, dict):
        return {}
    content = next((content[name] for name in NESTED_UNDER if isinstance(content.get(name), dict)), content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _recognised(path: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    if not tensors:
        raise UsageError(
            "holds no weights", where=path, remedy="Choose a file with a state dict: parameter names and their tensors."
        )
    origin = recognise(tensors)
    if origin is None:
        title = f"a state dict of unknown origin (its first tensor is '{next(iter(tensors))}')"
        return Checkpoint(CheckpointInfo(path, "state_dict", title), tensors)
    classes = next(iter(tensors[origin.classifier].shape), None) if origin.classifier is not None else None
    info = CheckpointInfo(path, origin.kind, origin.title, classes, origin.attention in tensors)
    return Checkpoint(info, tensors)

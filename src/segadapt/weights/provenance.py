"""Provenance travels in files: what a model, a checkpoint or a folder of made files says about where it comes from."""

from pathlib import Path
from typing import Any

from safetensors import safe_open

from segadapt.errors import SegadaptError, UsageError
from segadapt.plain_data import parse_json, read_json
from segadapt.weights.checkpoint_files import GENERATOR, HEADER, identify, load_torch

OTHER_TASKS = ("vgg16_caffe", "vgg16_imagenet", "resnet101", "resnet101_start", "efficientnet_lite0")
"""Kinds of files with weights of another task (ImageNet, COCO): labels of a target can have had no part in them."""

Answer = bool | None
"""Whether target labels had a part in something; None: not known."""


def either(*answers: Answer) -> Answer:
    """Of what is made from several things: yes if they had a part in one, not known if nothing is known of one."""
    return True if True in answers else None if None in answers else False


def used_target_labels(path: Path) -> Answer:
    """Whether labels of the target had a part in what is at `path`, as far as it says.

    A file: one of our models or training checkpoints, or weights that are known to be of another task. A folder of
    stylized images or pseudo-labels: by the result.json in it or beside it. Published segmenters, and files and
    folders from elsewhere, say nothing: None.
    """
    if path.is_dir():
        found = [_json(folder / "result.json").get("used_target_labels") for folder in (path, path.resolve().parent)]
        said = [answer for answer in found if isinstance(answer, bool)]
        return either(*said) if said else None
    own = facts(path)
    if own or not path.is_file():
        answer = own.get("used_target_labels")
        return answer if isinstance(answer, bool) else None
    try:
        return False if identify(path).kind in OTHER_TASKS else None
    except SegadaptError:  # whoever uses the file says what is wrong with it
        return None


def beside_earlier(folder: Path, answer: Answer) -> Answer:
    """The answer for files that are put into a folder, and for those of an earlier command that its result.json tells
    of: they stay there."""
    earlier = folder / "result.json"
    return either(answer, _json(earlier).get("used_target_labels")) if earlier.is_file() else answer


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

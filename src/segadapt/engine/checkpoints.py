"""Checkpoints: tensors and plain data only, written atomically, the newest few kept.

A checkpoint is for resuming a training. Finished models are `model.safetensors` (see `segadapt.weights.saved`).
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_with
from segadapt.methods.method import Method
from segadapt.models.segmenter import Segmenter
from segadapt.weights.checkpoint_files import load_torch

FORMAT = 1
IDENTITY = ("method", "network")
"""Facts that must match when another training continues from a checkpoint, besides those of `pixel_facts`."""
PATTERN = re.compile(r"step_(\d{8})\.pt")


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return folder / f"step_{step:08d}.pt"


def step_of(path: Path) -> int:
    """The inverse of `path_of`."""
    return int(path.stem.removeprefix("step_"))


class Checkpoints:
    """The checkpoints of one stage, in one folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def all(self) -> list[Path]:
        """Paths, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if PATTERN.fullmatch(path.name))

    def latest(self) -> Path | None:
        """The newest, or None."""
        return next(reversed(self.all()), None)

    def save(self, step: int, method: Method, about: dict[str, Any]) -> Path:
        """Write the state after `step` updates; `about` is plain data. Older ones beyond `keep` are then removed."""
        path = path_of(self.folder, step)
        content = {
            "format": FORMAT,
            "step": step,
            "modules": {name: module.state_dict() for name, module in method.modules.items()},
            "optimizers": {name: plain_rates(optimizer.state_dict()) for name, optimizer in method.optimizers.items()},
            "about": about,
        }
        write_with(path, lambda temporary: _save(content, temporary))
        self.prune()
        return path

    def prune(self) -> None:
        """Remove all but the newest `keep`: also at resume, since a kill may come between writing and removing."""
        for old in self.all()[: -self.keep]:
            old.unlink(missing_ok=True)


def _save(content: dict[str, Any], path: Path) -> None:
    # torch.save turns a full disk into a RuntimeError; the underlying OSError is what the user needs to see.
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def restore(
    content: dict[str, Any], method: Method, path: Path, facts: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Load the checkpoint `path` into `method`; returns the step and the `about` that was saved.

    Raises UsageError for a checkpoint of something else: another network or method, or one whose own `facts` of these
    names are others.
    """
    if not isinstance(content.get("about"), dict):
        raise _of_another(path, "of an unknown kind: it does not describe itself")
    identity = {name: value for name, value in (facts or {}).items() if name in IDENTITY}
    _need_the_same(path, content["about"], {**identity, **pixel_facts(method)})
    try:
        if set(content["modules"]) != set(method.modules) or set(content["optimizers"]) != set(method.optimizers):
            raise KeyError("other networks")
        for name, module in method.modules.items():
            module.load_state_dict(content["modules"][name])
        for name, optimizer in method.optimizers.items():
            optimizer.load_state_dict(_with_options_of(optimizer, content["optimizers"][name]))
        return int(content["step"]), dict(content["about"])
    except (LookupError, AttributeError, RuntimeError, ValueError, TypeError) as error:
        raise _of_another(path, "of a different network, method or optimizer") from error


def read(path: Path, mapped: bool = False) -> dict[str, Any]:
    """What `save` wrote. With `mapped`, tensors are not read, and so their checksums are not verified.

    Raises SegadaptError when it cannot be read, UsageError for anything else than a checkpoint.
    """
    try:
        if not zipfile.is_zipfile(path):  # PyTorch's own message is for programmers
            raise ValueError("truncated, or not a PyTorch file")
        content = load_torch(path, mapped)
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise SegadaptError(
            f"the checkpoint cannot be read ({reason})",
            where=path,
            remedy="Delete it; the same command then resumes from the previous one.",
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(
            "not a training checkpoint of this version", where=path, remedy="Delete it; the previous one is then used."
        )
    return content


def about(path: Path) -> tuple[int, dict[str, Any]]:
    """The step of a checkpoint, and what `save` was told about it, without its tensors. Raises as `read` does."""
    content = read(path, mapped=True)
    try:
        return int(content["step"]), dict(content["about"])
    except (KeyError, ValueError, TypeError) as error:
        raise _of_another(path, "of an unknown kind: it does not name its step") from error


def pixel_facts(method: Method) -> dict[str, Any]:
    """What the output of the method's result depends on besides its weights."""
    result = method.result
    return {"pixels": result.pixels.name, **(result.traits() if isinstance(result, Segmenter) else {})}


def not_finite(method: Method) -> str | None:
    """The first network or optimizer that holds a non-finite number. Makes the host wait for a GPU."""
    held: dict[str, list[Tensor]] = {
        name: list(module.state_dict().values()) for name, module in method.modules.items()
    }
    for name, optimizer in method.optimizers.items():
        held[f"the optimizer of {name}"] = [value for state in optimizer.state.values() for value in state.values()]
    for name, values in held.items():
        flags: dict[torch.device, list[Tensor]] = {}  # an optimizer counts its steps on the CPU
        for value in filter(_is_float, values):
            flags.setdefault(value.device, []).append(value.isfinite().all())
        if not all(bool(torch.stack(group).all()) for group in flags.values()):
            return name
    return None


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _need_the_same(path: Path, written: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UsageError when a fact recorded in the checkpoint differs from the expected one."""
    for name, value in wanted.items():
        if name in written and written[name] != value:
            what = f"of a different network or method: {name} {written[name]}, but the stage has {value}"
            raise _of_another(path, what)


def _of_another(path: Path, what: str) -> UsageError:
    return UsageError(
        f"the checkpoint is {what}",
        where=path,
        remedy=f"Use another --out, delete {path.parent} to start over, or give the file as `start` to begin with the "
        "weights that fit.",
    )


def plain_rates(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state, its learning rates as plain numbers wherever they are."""
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def _with_options_of(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's saved state with its current options, which may differ from those in the checkpoint.

    Raises ValueError for the state of another kind of optimizer: Adam's moments mean nothing to SGD.
    """
    saved, own = state["param_groups"], optimizer.state_dict()["param_groups"]
    if len(saved) != len(own) or any(("betas" in a) != ("betas" in b) for a, b in zip(saved, own, strict=True)):
        raise ValueError("the state of another optimizer")
    groups = [{**mine, "params": theirs["params"]} for mine, theirs in zip(own, saved, strict=True)]
    return {"state": state["state"], "param_groups": groups}

"""Checkpoints: tensors and plain data only, written whole, the newest few kept.

A checkpoint is for going on with a training. Models for use are `model.safetensors` (see `segadapt.models.saved`).
"""

import re
from pathlib import Path
from typing import Any

import torch

from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_with
from segadapt.methods.method import Method
from segadapt.models.checkpoint_files import load_torch

FORMAT = 1
PATTERN = re.compile(r"step_(\d{8})\.pt")


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
        """Write the state after `step` updates; `about` is plain data. Older ones beyond `keep` go afterwards."""
        path = self.folder / f"step_{step:08d}.pt"
        content = {
            "format": FORMAT,
            "step": step,
            "modules": {name: module.state_dict() for name, module in method.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in method.optimizers.items()},
            "about": about,
        }
        write_with(path, lambda temporary: _save(content, temporary))
        killed = self.folder.glob(".step_*.tmp")  # what a kill left of others
        for old in (*self.all()[: -self.keep], *killed):
            old.unlink(missing_ok=True)
        return path


def _save(content: dict[str, Any], path: Path) -> None:
    # torch.save turns a full disk into a RuntimeError; the OSError beneath it is what a person must be told about.
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path, method: Method) -> tuple[int, dict[str, Any]]:
    """Put a checkpoint into `method`; gives the step and what `save` was told about it.

    Raises SegadaptError for a file that cannot be read, UsageError for a checkpoint of something else.
    """
    try:
        content = load_torch(path)
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise SegadaptError(
            f"the checkpoint cannot be read ({reason})",
            where=path,
            remedy="Delete it: the same command then goes on from the one before.",
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(
            "not a training checkpoint of this version", where=path, remedy="Delete it: the one before is used then."
        )
    try:
        for name, module in method.modules.items():
            module.load_state_dict(content["modules"][name])
        for name, optimizer in method.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        return int(content["step"]), dict(content["about"])
    except (LookupError, AttributeError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            "the checkpoint is of another network or method",
            where=path,
            remedy=f"Delete {path.parent} to begin anew, or use another --out.",
        ) from error

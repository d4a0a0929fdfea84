"""What a stage is on disk: its folder, what made it, and whether it is done.

A stage's fingerprint is everything that its result depends on: its settings, the fingerprints of the stages it names,
the digests of its data and start files, and a version of its code; never times or package versions.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segadapt.errors import UsageError
from segadapt.files import digest, write_json

State = Literal["new", "unfinished", "done", "changed"]
Content = dict[str, Any]

RESULTS = ("checkpoints/step_*", "*.safetensors", "evaluation.json")
"""What a stage leaves that takes time to make."""

CODE_VERSIONS: dict[str, int] = {"source_only": 1, "target_trained": 1, "sean": 1, "evaluate": 1}
"""Raised when a method's result changes for the same settings."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run and its folder."""

    name: str
    folder: Path
    content: Content  # all that the fingerprint covers, flat: dotted key -> plain value
    result: str  # the file that a stage which is done must have

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content."""
        return digest(self.content)

    @property
    def file(self) -> Path:
        """Where content and state are written."""
        return self.folder / "stage.json"

    def before(self) -> Content | None:
        """What `stage.json` says; None when it is not there, empty when it cannot be read."""
        if not self.file.is_file():
            return None
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            return {"fingerprint": found["fingerprint"], "state": found["state"], "content": dict(found["content"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def state(self) -> State:
        """How the folder stands against the recipe."""
        before = self.before()
        if not before or before["fingerprint"] != self.fingerprint:
            return "changed" if self._holds_results() else "new"
        return "done" if before["state"] == "done" and (self.folder / self.result).is_file() else "unfinished"

    def changes(self) -> list[str]:
        """`key: old -> new` for all that differs from what the folder was made with."""
        found = self.before()
        if not found:
            return [f"{self.file.name} {'is not there' if found is None else 'cannot be read'}"]
        before = found["content"]
        keys = [key for key in {**before, **self.content} if before.get(key) != self.content.get(key)]
        return [f"{key}: {_short(before.get(key))} -> {_short(self.content.get(key))}" for key in keys]

    def _holds_results(self) -> bool:
        """Whether there is something to lose; a stage that failed before its first checkpoint may begin anew."""
        return any(next(self.folder.glob(pattern), None) for pattern in RESULTS)

    def mark(self, state: Literal["running", "done"]) -> None:
        """Write content and state."""
        write_json(self.file, {"fingerprint": self.fingerprint, "state": state, "content": self.content})

    def clear(self) -> None:
        """Remove what is there, to redo it."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def need_unchanged(stages: list[Stage]) -> None:
    """Raise UsageError when a stage's folder was made with other settings: one line that names them."""
    for stage in stages:
        if stage.state() == "changed":
            changes = stage.changes()
            more = f" and {len(changes) - 4} more" if len(changes) > 4 else ""
            raise UsageError(
                f"made with other settings ({'; '.join(changes[:4])}{more})",
                where=stage.folder,
                remedy="Use --yes to redo this stage and those after it that use it, or another --out to keep it.",
            )


def flat(tree: dict[str, Any], prefix: str = "") -> Content:
    """Nested mappings -> one mapping with dotted keys."""
    result: Content = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"

"""What a stage is on disk: its folder, what made it, and whether it is done.

A stage's fingerprint is everything that its result depends on: its settings, the fingerprints of the stages it names,
the digests of its data and of the files it names, and a version of its code; never times or package versions.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from segadapt.errors import UsageError
from segadapt.files import digest, write_json
from segadapt.pipeline import history
from segadapt.pipeline.history import Parts, switched_on
from segadapt.plain_data import read_json
from segadapt.stages.shipped import stage_kinds
from segadapt.stages.stage import Content

State = Literal["new", "unfinished", "done", "changed"]


OWN = (".*.tmp", "cost.json", "stage.json")
"""What a stage's folder holds whatever its kind, removed last: a kill in between leaves neither a stage that is said to
be done nor old results under new settings. Anything that no kind makes is not ours."""


@dataclass(frozen=True)
class StageFolder:
    """A stage of a run and its folder."""

    name: str
    folder: Path
    content: Content  # all that the fingerprint covers, flat: dotted key -> plain value
    result: str  # the file that is written last
    decided: Content = field(default_factory=dict)  # what follows from the recipe and is worth writing down
    parts: Parts = ()  # updates made with different settings, before it was continued with these
    plugins: dict[str, str] = field(default_factory=dict)  # that its code is from, and their versions; redoes nothing

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, and of the parts that were made with another one."""
        content = switched_on(self.content)
        return digest({**content, "continued": [part.digest for part in self.parts]} if self.parts else content)

    def after(self, parts: Parts) -> "StageFolder":
        """The same stage, continued from these parts."""
        return replace(self, parts=parts)

    def recorded(self) -> "StageFolder":
        """The same stage with the parts that its folder tells of, if the folder is of this content."""
        before = self.before()
        same = before and switched_on(before["content"]) == switched_on(self.content)
        return self.after(before["parts"]) if before and same else self

    @property
    def file(self) -> Path:
        """Where content and state are written."""
        return self.folder / "stage.json"

    def before(self) -> Content | None:
        """What `stage.json` says; None when it is not there, empty when it cannot be read."""
        if not self.file.is_file():
            return None
        try:
            found = read_json(self.file, "the record of the stage")
            state, content = str(found["state"]), dict(found["content"])
            parts, plugins = history.read(found.get("continued", [])), dict(found.get("plugins", {}))
            return {"state": state, "content": content, "parts": parts, "plugins": plugins}
        except (UsageError, ValueError, KeyError, TypeError):
            return {}

    def state(self) -> State:
        """How the folder stands against the recipe."""
        before = self.before()
        if not before or switched_on(before["content"]) != switched_on(self.content) or before["parts"] != self.parts:
            return "changed" if self._holds_results() else "new"
        return "done" if before["state"] == "done" and (self.folder / self.result).is_file() else "unfinished"

    def made_with(self, groups: Sequence[str]) -> "StageFolder":
        """The same with these groups of its content (`data`, `files.start`) as its folder was made with."""
        before = (self.before() or {}).get("content", {})
        # A file that is not there shows in the settings, by its path or a name.
        named = [f"settings.{group.removeprefix('files.')}" for group in groups if group.startswith("files.")]
        inside = tuple(f"{group}." for group in groups)

        def counts(key: str) -> bool:
            return key in groups or key in named or key.startswith(inside)

        content = {key: value for key, value in self.content.items() if not counts(key)}
        return replace(self, content=content | {key: value for key, value in before.items() if counts(key)})

    def changes(self) -> list[str]:
        """`key: old -> new` for all that differs from what the folder was made with."""
        found = self.before()
        if not found:
            return [f"{self.file.name} {'is missing' if found is None else 'cannot be read'}"]
        before, now = switched_on(found["content"]), switched_on(self.content)
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return [self._change(key, before.get(key), now.get(key)) for key in keys]

    def _change(self, key: str, before: object, now: object) -> str:
        group, _, name = key.partition(".")
        reference = str(self.content.get(f"settings.{name}"))
        if group == "stages" and reference.startswith("@") and now is not None:
            return f"{reference} ({name}) has changed"
        return f"{key}: {_short(before)} -> {_short(now)}"

    def changed_plugins(self) -> list[str]:
        """The plug-ins that are not, in this version, among those that the folder was made with."""
        before = (self.before() or {}).get("plugins", {})
        return [title for title, version in self.plugins.items() if before and version not in before.values()]

    def checkpoints(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return any(self.folder.glob("checkpoints/step_*.pt"))

    def _holds_results(self) -> bool:
        """Whether there is something to lose; a stage that failed before its first checkpoint may begin anew."""
        found = (path for pattern in _made() for path in self.folder.glob(pattern))
        return any(not path.is_dir() or next(path.glob("[!.]*"), None) is not None for path in found)

    def mark(self, state: Literal["running", "done"]) -> None:
        """Write content and state. The versions of plug-ins stay those that the stage was begun with."""
        about = {"fingerprint": self.fingerprint, "state": state, "decided": self.decided, "content": self.content}
        before = self.before()
        plugins = before["plugins"] if before else self.plugins
        more = {"continued": [part.plain() for part in self.parts], "plugins": plugins}
        write_json(self.file, about | {key: value for key, value in more.items() if value})

    def mark_unfinished(self) -> None:
        """Write that the stage is not done, and leave what it was made with."""
        if self.before():
            write_json(self.file, read_json(self.file, "the record of the stage") | {"state": "running"})

    def clear(self) -> None:
        """Remove what stages make, to redo it; other files stay. Raises UsageError where it lies behind a link."""
        written = [*_made(), *(trace for kind in stage_kinds().values() for trace in kind.traces), *OWN]
        made = list(dict.fromkeys(path for pattern in written for path in self.folder.glob(pattern)))
        if made and self.folder.is_symlink():
            raise UsageError(
                "is a link, and its target will not be deleted", where=self.folder, remedy="Remove the link yourself."
            )
        for path in made:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _made() -> list[str]:
    """What stages of all kinds leave that takes time to make, in the order in which it is removed: first what says that
    a stage is done. The folder may be of a stage of another kind by the same name."""
    kinds = stage_kinds().values()
    return list(dict.fromkeys([*(kind.result for kind in kinds), *(made for kind in kinds for made in kind.made)]))


def _short(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"

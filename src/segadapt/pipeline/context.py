"""What all stages of a run share."""

from dataclasses import dataclass
from pathlib import Path

from segadapt.config.recipe import Recipe
from segadapt.data.label_spaces import LabelSpace
from segadapt.engine.runtime import Runtime
from segadapt.engine.trainer import Watcher
from segadapt.files import user_path
from segadapt.pipeline.stages import kind_of


@dataclass(frozen=True)
class Run:
    """One run: its recipe, its folder, and where it runs."""

    recipe: Recipe
    folder: Path
    space: LabelSpace
    runtime: Runtime
    watcher: Watcher

    def stage_folder(self, name: str) -> Path:
        """Where a stage keeps its files."""
        return self.folder / name

    def file_of(self, reference: str | Path) -> Path:
        """`@stage` -> the model of that stage; else the path itself."""
        return self._given_by(str(reference))

    def folder_of(self, reference: str | Path) -> Path:
        """`@stage` -> the folder of its stylized images or pseudo-labels; else the path itself."""
        return self._given_by(str(reference))

    def _given_by(self, reference: str) -> Path:
        if not reference.startswith("@"):
            return user_path(reference)
        name = reference[1:]
        return self.stage_folder(name) / kind_of(self.recipe.stages[name].method).use

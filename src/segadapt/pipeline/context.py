"""What all stages of a run share."""

from dataclasses import dataclass
from pathlib import Path

from segadapt.config.recipe import Recipe
from segadapt.data.label_spaces import LabelSpace
from segadapt.engine.runtime import Runtime
from segadapt.engine.trainer import Watcher


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

    def file_of(self, reference: str) -> Path:
        """`@stage` -> the model of that stage; else the path itself."""
        if reference.startswith("@"):
            return self.stage_folder(reference[1:]) / "model.safetensors"
        return Path(reference).expanduser()

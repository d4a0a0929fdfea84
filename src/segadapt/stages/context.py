"""What all stages of a run share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from segadapt.data.label_spaces import LabelSpace
from segadapt.data.sides import DataSettings
from segadapt.engine.runtime import Runtime, RuntimeSettings
from segadapt.engine.trainer import Watcher
from segadapt.files import user_path
from segadapt.models.networks import Choice
from segadapt.quirks import QuirkySettings
from segadapt.weights.hub import hub_model, is_hub


class RecipeOfStages(Protocol):
    """What stages look at in a recipe."""

    @property
    def data(self) -> DataSettings: ...
    @property
    def stages(self) -> Mapping[str, QuirkySettings]: ...
    @property
    def seed(self) -> int: ...
    @property
    def runtime(self) -> RuntimeSettings: ...


class Giver(Protocol):
    """What other stages may ask about a stage that they name as `@stage`: its kind."""

    @property
    def use(self) -> str:
        """What `@stage` means, below the stage's folder."""

    def network(self, settings: Any) -> Choice | None:
        """The network that it gives; None where it gives none."""

    def network_size(self, settings: Any) -> tuple[int, int]:
        """The input size of that network, (width, height)."""


class Display(Watcher, Protocol):
    """Shows the progress of a stage to a person."""

    def images(self, done: int, count: int, note: str = "") -> None:
        """After each image of a pass."""

    def table(self, table: Table) -> None:
        """Numbers worth reading."""


@dataclass(frozen=True)
class Run:
    """One run: its recipe, its folder, and where it runs."""

    recipe: RecipeOfStages
    folder: Path
    space: LabelSpace
    runtime: Runtime
    watcher: Display
    kinds: Mapping[str, Giver]  # of its stages, by their names

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
        if is_hub(reference):
            return hub_model(reference)
        if not reference.startswith("@"):
            return user_path(reference)
        name = reference[1:]
        return self.stage_folder(name) / self.kinds[name].use

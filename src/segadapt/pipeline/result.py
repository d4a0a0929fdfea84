"""The results of a run for use in programs: stages, models, scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segadapt.config.recipe import Recipe
from segadapt.errors import UsageError
from segadapt.inference.model import MODEL, find_model
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.stage_folder import State
from segadapt.plain_data import read_json


@dataclass(frozen=True)
class StageResult:
    """A stage of a run, in the current state of its folder."""

    name: str
    method: str
    folder: Path
    state: State  # `done`, or `new`, `unfinished`, `changed` (made with different settings)
    model: Path | None  # model.safetensors: a segmenter or a generator
    images: Path | None  # the folder of stylized copies or pseudo-labels
    scores: dict[str, float]  # mIoU in percent by domain (`target`, `source`), from evaluation.json


@dataclass(frozen=True)
class RunResult:
    """A run: its folder and its stages, in order."""

    folder: Path
    stages: dict[str, StageResult]
    report: Path | None

    @property
    def model(self) -> Path:
        """The model that `segadapt.load` loads from the run. Raises UsageError if there is none yet."""
        return find_model(self.folder)

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """mIoU in percent by stage and domain, for all stages that have been scored."""
        return {name: stage.scores for name, stage in self.stages.items() if stage.scores}

    def plain(self) -> dict[str, Any]:
        """All of it as JSON has it: paths as text."""
        stages = [
            {key: str(value) if isinstance(value, Path) else value for key, value in vars(stage).items()}
            for stage in self.stages.values()
        ]
        return {"folder": str(self.folder), "report": self.report and str(self.report), "stages": stages}


def result_of(folder: Path, recipe: Recipe, planned: list[Planned]) -> RunResult:
    """The result of a run in the current state of its folder."""
    stages = {one.stage.name: _stage(one.now(), recipe) for one in planned}
    report = folder / "report.html"
    return RunResult(folder, stages, report if report.is_file() else None)


def _stage(one: Planned, recipe: Recipe) -> StageResult:
    stage, method = one.stage, recipe.stages[one.stage.name].method
    model, made = stage.folder / MODEL, stage.folder / one.kind.use
    return StageResult(
        stage.name,
        method,
        stage.folder,
        one.state,
        model if model.is_file() else None,
        made if one.kind.gives.folder and made.is_dir() else None,
        _scores(stage.folder / "evaluation.json"),
    )


def _scores(evaluation: Path) -> dict[str, float]:
    try:
        domains = read_json(evaluation, "the scores")["domains"]
        return {name: float(scores["miou"]) for name, scores in domains.items() if scores["miou"] is not None}
    except (UsageError, ValueError, KeyError, TypeError, AttributeError):
        return {}

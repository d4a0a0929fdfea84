"""Plans of tiny runs, for tests: a finished run of three stages, and what the next command would do."""

from pathlib import Path
from typing import Any

import pytest

from segadapt.config.load import load_recipe
from segadapt.data.label_spaces import load_label_space
from segadapt.engine import runtime
from segadapt.pipeline.plan import ALL, Choice, Planned, plan
from segadapt.pipeline.show import Display
from segadapt.stages.context import Run
from segadapt.stages.shipped import kinds_of
from tiny_runs import run, tree, write_data, write_recipe

STAGES: dict[str, dict[str, Any]] = {
    "source_only": {"method": "source_only", "steps": 2},
    "sean": {"method": "sean", "steps": 2, "start": "@source_only", "fresh_head": True},
    "views": {"method": "evaluate", "model": "@sean"},
}


def finish(folder: Path) -> Path:
    """Data, a recipe of STAGES, and a finished run of it without report; gives the folder."""
    recipe = write_recipe(folder / "recipe.yaml", tree(write_data(folder / "data"), **STAGES))
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        run(recipe, folder / "run")
    return folder


def without_report(patch: pytest.MonkeyPatch) -> None:
    """Runs write no report, for speed."""
    patch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)


def recipe_of(folder: Path, finished: Path, **stages: dict[str, Any]) -> Path:
    """A recipe on the data of `finish`."""
    return write_recipe(folder / "recipe.yaml", tree(finished / "data", **stages))


def planned(recipe: Path, out: Path, *overrides: str, choice: Choice = ALL) -> tuple[Run, dict[str, Planned]]:
    """What `segadapt run RECIPE OVERRIDES --out OUT` would do, by stage."""
    loaded = load_recipe(str(recipe), list(overrides))
    with runtime.start(loaded.runtime) as place:
        about = Run(loaded, out, load_label_space(loaded.label_space), place, Display(False), kinds_of(loaded.stages))
        return about, {one.stage.name: one for one in plan(about, choice)}


def actions(recipe: Path, out: Path, *overrides: str, choice: Choice = ALL) -> list[str]:
    """The actions of `planned` in the order of the stages."""
    return [one.action for one in planned(recipe, out, *overrides, choice=choice)[1].values()]

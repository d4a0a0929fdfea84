"""A pipeline of all kinds of stages, killed (-9) at three random places, ends bit for bit like an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest

from killing import differences, killed, places, progress
from segadapt.pipeline.lock import locked
from tiny_runs import run, tree, write_data, write_recipe

STAGES: dict[str, dict[str, Any]] = {
    "source_only": {"method": "source_only", "steps": 6},
    "style": {"method": "tgstn", "segmenter": "@source_only", "steps": 6},
    "stylize": {"method": "stylize", "generator": "@style"},
    "se_gan": {"method": "se_gan", "start": "@source_only", "extra_source": "@stylize", "steps": 8},
    "pseudo": {"method": "pseudo_labels", "model": "@se_gan", "scales": [1.0, 1.25]},
    "self_train": {"method": "self_training", "start": "@se_gan", "labels": "@pseudo", "steps": 6},
    "views": {"method": "evaluate", "model": "@self_train", "scales": [1.0, 0.75], "mirror": True},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    content = tree(write_data(folder / "data"), **STAGES)
    for settings in content["stages"].values():
        if "steps" in settings:
            settings.update(checkpoint_every=3, log_every=1)
    content["runtime"] = {"device": "cpu", "threads": 1}
    return write_recipe(folder / "recipe.yaml", content)


def test_a_pipeline_that_is_killed_three_times_ends_as_if_it_had_not_been(recipe: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe, whole)
    assert differences(whole, tmp_path / "nothing"), "the comparison must find what is missing"
    kills = killed(["run", str(recipe), "--out", str(parts)], parts, places(progress(whole), 3, seed=7))
    assert kills == 3
    assert differences(whole, parts) == []
    with locked(parts):
        pass

"""A whole run: stages in order, evaluation, report; done stages are skipped, changed ones refused or redone."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from segadapt.errors import UsageError
from segadapt.inference.predictor import Predictor
from segadapt.stages import evaluate, training
from segadapt.weights.saved import load_model
from tiny_runs import metrics, run, tree, write_data, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all three methods and an evaluation; recipe.yaml beside it."""
    folder = tmp_path_factory.mktemp("finished")
    content = tree(
        write_data(folder / "data"),
        source_only={"method": "source_only"},
        sean={"method": "sean", "select": "label_free"},
        target_trained={"method": "target_trained", "select": "best_target"},
        views={"method": "evaluate", "model": "@sean", "scales": [1.0, 0.75], "mirror": True, "source": True},
    )
    run(write_recipe(folder / "recipe.yaml", content), folder / "run")
    return folder


def test_every_stage_leaves_its_files(finished: Path) -> None:
    out = finished / "run"
    assert (out / "report.html").stat().st_size > 10_000
    assert json.loads((out / "environment.json").read_text())["threads"] == torch.get_num_threads()
    for name in ("source_only", "sean", "target_trained"):
        assert [line["step"] for line in metrics(out / name) if "loss/total" in line] == [1, 2, 3, 4]
        assert [line["step"] for line in metrics(out / name) if "val/target_miou" in line] == [2, 4]
        assert (out / name / "model.safetensors").is_file() and (out / name / "model_last.safetensors").is_file()
    scores = json.loads((out / "views/evaluation.json").read_text())
    assert scores["domains"]["target"]["scales"] == [1.0, 0.75] and scores["domains"]["source"]["images"] == 2


def test_models_say_how_they_were_chosen_and_whether_labels_had_a_part(finished: Path) -> None:
    out = finished / "run"
    headers = {
        name: load_model(out / name / "model.safetensors").header for name in ("source_only", "sean", "target_trained")
    }
    assert {name: (h.selection, h.used_target_labels) for name, h in headers.items()} == {
        "source_only": ("last", False),
        "sean": ("label_free", False),
        "target_trained": ("best_target", True),
    }
    assert load_model(out / "sean/model_best_target.safetensors").header.used_target_labels
    record = json.loads((out / "sean/evaluation.json").read_text())
    assert record["label_free"]["criterion"] == "infomax" and record["label_free"]["points"] == 2


@pytest.mark.parametrize("official", [True, False])
def test_official_scores_are_of_the_network_itself(
    official: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During training and after it; others are of its copy for inference."""
    made: list[bool] = []

    class Noted(Predictor):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self.plain)

    for module in (training, evaluate):
        monkeypatch.setattr(module, "Predictor", Noted)
    stage = {"method": "source_only", "official": official, "quirks": {"positional_load": False}, "steps": 2}
    run(write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), stage=stage)), tmp_path / "run")
    assert made == [official, official]


def test_a_finished_run_is_left_alone(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = finished / "run/sean/model.safetensors"
    before = model.stat().st_mtime_ns
    run(finished / "recipe.yaml", finished / "run")
    assert capfd.readouterr().err.count("done already, skipped") == 4
    assert model.stat().st_mtime_ns == before


def test_a_report_that_a_kill_has_prevented_is_made_up_for(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of before is there, and of other results; which is newer says nothing: clocks are set back."""
    written: list[Path] = []
    monkeypatch.setattr("segadapt.pipeline.run_page.write_report", lambda folder, *_, **__: written.append(folder))
    run(finished / "recipe.yaml", finished / "run")
    assert written == []
    file = finished / "run/views/evaluation.json"
    before = file.read_text()
    file.touch()
    run(finished / "recipe.yaml", finished / "run")
    assert written == []
    file.write_text(before + "\n")
    os.utime(file, (0, 0))
    run(finished / "recipe.yaml", finished / "run")
    assert written == [finished / "run"]
    file.write_text(before)


def test_a_changed_setting_is_refused_by_name_and_redone_when_asked(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, out = finished / "recipe.yaml", finished / "run"
    with pytest.raises(UsageError, match=r"settings\.consistency: 0\.3 -> 0\.7") as failure:
        run(recipe, out, "stages.sean.consistency=0.7")
    assert "--yes" in str(failure.value)
    run(recipe, out, "stages.sean.consistency=0.7", dry_run=True)
    planned = capfd.readouterr().out
    assert planned.count("done already, skipped") == 2
    assert planned.count("made with different settings, redone") == 2 and "@sean (model) has changed" in planned
    run(recipe, out, "stages.sean.consistency=0.7", yes=True)
    assert "sean: made with different settings, redone" in capfd.readouterr().err
    run(recipe, out, "stages.sean.consistency=0.7")
    assert capfd.readouterr().err.count("done already, skipped") == 4


def test_settings_that_do_not_change_the_result_may_differ(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tree(finished / "data", a={"method": "source_only", "steps": 1}))
    run(recipe, tmp_path / "run")
    run(recipe, tmp_path / "run", "stages.a.log_every=1", "stages.a.keep=5")
    assert "a: done already, skipped" in capfd.readouterr().err


def test_tensorboard_files_are_written_when_asked(finished: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "r.yaml", tree(finished / "data", a={"method": "source_only", "steps": 1, "tensorboard": True})
    )
    run(recipe, tmp_path / "run")
    (events,) = (tmp_path / "run/a/tensorboard").iterdir()
    assert b"loss/seg" in events.read_bytes()


def test_an_unlabelled_target_leaves_the_scores_of_the_source(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    content = tree(data, sean={"method": "sean"})
    content["data"]["target"] = {"layout": "folder", "root": str(data / "cityscapes/leftImg8bit"), "holdout": 2}
    run(write_recipe(tmp_path / "recipe.yaml", content), tmp_path / "run")
    record = json.loads((tmp_path / "run/sean/evaluation.json").read_text())
    assert list(record["domains"]) == ["source"] and record["domains"]["source"]["images"] == 2
    lines = [line for line in metrics(tmp_path / "run/sean") if "val/infomax" in line]
    assert lines and all("val/target_miou" not in line and "val/source_miou" in line for line in lines)
    assert "not there" not in (tmp_path / "run/report.html").read_text()

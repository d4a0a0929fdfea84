"""What `import segadapt` offers."""

from pathlib import Path

import pytest

import segadapt
from planning import STAGES, without_report
from segadapt.config.load import load_recipe
from tiny_runs import tree, write_data, write_recipe


def test_dir_shows_what_there_is() -> None:
    public = {
        "Choice",
        "Model",
        "Prediction",
        "RunResult",
        "StageResult",
        "load",
        "run_recipe",
        "adapt",
        "evaluate",
        "Scores",
    }
    public |= {"LabelledImage", "VideoFrame", "predict_frames", "predict_video"}
    public |= {"load_plugin", "register_layout", "register_method", "register_network"}
    errors = {"SegadaptError", "SegadaptErrors", "Stopped", "UsageError", "UsageErrors"}
    assert public | errors | {"__version__"} == set(segadapt.__all__) == set(dir(segadapt))
    for name in public | errors:
        assert getattr(segadapt, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        segadapt.lod  # noqa: B018


def test_a_run_gives_what_came_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    path = write_recipe(tmp_path / "mine.yaml", tree(write_data(tmp_path / "data"), **STAGES))
    monkeypatch.chdir(tmp_path)
    planned = segadapt.run_recipe(str(path), dry_run=True)
    assert planned.folder == Path("runs/mine") and not planned.folder.exists()
    assert [stage.state for stage in planned.stages.values()] == ["new"] * 3
    overrides = {"seed": 1, "stages.source_only.steps": 1, "runtime.device": "cpu"}
    first = segadapt.run_recipe(path, tmp_path / "run", overrides, choice=segadapt.Choice(only=("source_only",)))
    assert [(name, stage.state) for name, stage in first.stages.items()] == [
        ("source_only", "done"),
        ("sean", "new"),
        ("views", "new"),
    ]
    assert first.model == first.stages["source_only"].model == tmp_path / "run/source_only/model.safetensors"
    assert set(first.scores) == {"source_only"} and set(first.scores["source_only"]) == {"target", "source"}
    assert "seed: 1" in (tmp_path / "run/recipe.yaml").read_text()
    assert segadapt.load(first.folder, device="cpu").header.stage == "source_only"
    with pytest.raises(ValueError, match="cannot change a recipe that is loaded"):
        segadapt.run_recipe(load_recipe(str(path), []), tmp_path / "run", ["seed=2"])
    with pytest.raises(ValueError, match="the run folder is not given"):
        segadapt.run_recipe(load_recipe(str(path), []))
    with pytest.raises(ValueError, match="no recipe of this name"):
        segadapt.run_recipe("dmo")


def test_one_name_is_a_choice_without_a_tuple_around_it() -> None:
    choice = segadapt.Choice(only="sean", continued="sean=step_00000002.pt")
    assert choice == segadapt.Choice(only=["sean"], continued=("sean=step_00000002.pt",)) and hash(choice)
    assert choice.of(["source_only", "sean"]) == {"sean"} == set(choice.checkpoints())

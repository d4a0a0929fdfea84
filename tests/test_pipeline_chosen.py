"""`--only` and `--from` ask for what the chosen stages need, and for nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import assert_told, command
from planning import STAGES, actions, finish, without_report
from segadapt.config.load import load_recipe, need_closed
from segadapt.config.resolved import filled, recorded
from segadapt.errors import UsageError
from segadapt.pipeline.plan import ALL, Choice
from segadapt.pipeline.run import run_recipe
from segadapt.weights.starts import missing_download
from tiny_runs import tree, write_recipe

CapSys = pytest.CaptureFixture[str]
SEAN = Choice(only=("sean",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("finished"))


def recipe(folder: Path, finished: Path, **changes: dict[str, Any]) -> Path:
    """The recipe of the finished run with other settings."""
    stages = {name: STAGES[name] | changes.get(name, {}) for name in STAGES}
    return write_recipe(folder / "recipe.yaml", tree(finished / "data", **stages))


def opened(folder: Path, finished: Path, domain: str = "source", **changes: dict[str, Any]) -> Path:
    """The same, with a domain's root left to the user."""
    path = recipe(folder, finished, **changes)
    content = yaml.safe_load(path.read_text())
    content["data"][domain]["root"] = "???"
    return write_recipe(path, content)


def test_the_files_of_other_stages_need_not_be_there(finished: Path, tmp_path: Path) -> None:
    missing = recipe(tmp_path, finished, source_only={"start": str(tmp_path / "vgg16_caffe.pth")})
    with pytest.raises(UsageError, match="the start file does not exist"):
        actions(missing, tmp_path / "new")
    assert actions(missing, finished / "run", choice=SEAN) == ["leave", "skip", "leave"]
    with pytest.raises(UsageError, match="uses 'source_only', which is not begun"):
        actions(missing, tmp_path / "new", choice=SEAN)


def test_what_other_stages_leave_open_is_not_asked_for(finished: Path, tmp_path: Path, capsys: CapSys) -> None:
    path = recipe(tmp_path, finished, source_only={"start": "???"})
    out = tmp_path / "new"
    asked = command(capsys, "run", path, "--out", out, "--dry-run")
    assert_told(asked, 2, str(path), "stages.source_only.start must be given", "or set it in the file.")
    asked = command(capsys, "run", path, "--out", out, "--only", "source_only")
    assert_told(asked, 2, "recipe", "stages.source_only.start must be given", "or set it in the file.")
    done = command(capsys, "run", path, "--out", finished / "run", "--from", "sean", "--dry-run")
    assert done.code == 0 and "left alone" in done.out and not done.errors


def test_a_domain_that_is_not_read_need_not_be_given(
    finished: Path, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    labels = tmp_path / "labels"
    trained = {"method": "self_training", "labels": str(labels), "steps": 1, "evaluate_every": 0}
    content = tree(finished / "data", source_only=STAGES["source_only"], self_training=trained)
    content["data"]["source"]["root"] = "???"
    path = write_recipe(tmp_path / "recipe.yaml", content)
    model, images = finished / "run/source_only", finished / "data/cityscapes/leftImg8bit/train"
    assert command(capsys, "pseudo-label", model, images, "-o", tmp_path, "--scales", "1", "--no-mirror").code == 0
    done = command(capsys, "run", path, "--only", "self_training", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert (tmp_path / "run/self_training/model.safetensors").is_file()
    scored = command(capsys, "evaluate", tmp_path / "run", "--out", tmp_path / "scores.json")
    assert scored.code == 0 and "data.source.root not given, scored on the target alone" in scored.err
    assert set(json.loads((tmp_path / "scores.json").read_text())["domains"]) == {"target"}
    alone = command(capsys, "evaluate", tmp_path / "run/self_training", "--domain", "source")
    assert_told(alone, 2, str(tmp_path / "run/recipe.yaml"), "data.source.root is not given", "--layout and --root.")
    other = command(capsys, "run", path, "--only", "source_only", "--out", tmp_path / "run")
    assert_told(other, 2, "recipe", "data.source.root must be given", "or set it in the file.")


def test_what_is_open_is_known_from_the_run_itself(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a second command says less, and the run's own recipe loses nothing."""
    without_report(monkeypatch)
    path = opened(tmp_path, finished)
    for recipe, choice in ((load_recipe(str(path), [], keep_open=True), SEAN), (path, SEAN), (path, ALL)):
        result = run_recipe(recipe, finished / "run", choice=choice)
        assert result.folder == finished / "run" and {stage.state for stage in result.stages.values()} == {"done"}
        written = yaml.safe_load((finished / "run/recipe.yaml").read_text())
        assert written["data"]["source"]["root"] == str(finished / "data/gta5")
    with pytest.raises(UsageError, match=r"data\.source\.root must be given") as failure:
        run_recipe(path, tmp_path / "new")
    assert failure.value.where == str(path)


def test_what_the_run_says_must_fit_the_recipe(finished: Path, tmp_path: Path) -> None:
    """One value that does not, as the name of a stage that is left out now, hides no other."""
    loaded = load_recipe(
        str(opened(tmp_path, finished, sean={"start": "???"})), ["stages.source_only=null"], keep_open=True
    )
    known = filled(loaded, recorded(finished / "run/recipe.yaml"))
    assert str(known.data.domains("source")[0].root) == str(finished / "data/gta5")
    with pytest.raises(UsageError, match=r"recipe: stages\.sean\.start must be given"):
        need_closed(known, "recipe")


def test_a_choice_that_nothing_can_make_is_told_at_the_start(finished: Path, tmp_path: Path) -> None:
    chosen = {"sean": {"select": "label_free", "evaluate_every": 2}}
    content = tree(finished / "data", **{name: STAGES[name] | chosen.get(name, {}) for name in STAGES})
    camera = {"layout": "folder", "root": str(finished / "data/cityscapes/leftImg8bit/train")}
    content["data"]["target"] = camera
    del content["stages"]["views"]
    path = write_recipe(tmp_path / "recipe.yaml", content)
    with pytest.raises(UsageError, match="is label_free, but the target has no images to evaluate on") as failure:
        actions(path, tmp_path / "new")
    assert failure.value.where == "stages.sean.select"
    assert actions(path, tmp_path / "new", "data.target.holdout=1") == ["begin", "begin"]
    with pytest.raises(UsageError, match="is best_target, but the target's split val has no labels"):
        actions(path, tmp_path / "new", "data.target.holdout=1", "stages.sean.select=best_target")
    with pytest.raises(UsageError, match="evaluate_every is 0"):
        actions(path, tmp_path / "new", "data.target.holdout=1", "stages.sean.evaluate_every=0")


def test_weights_that_cannot_be_had_are_told_at_once(
    finished: Path, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[str | None] = []

    def asking(start: str | None) -> str | None:
        asked.append(start)
        return missing_download(start)

    monkeypatch.setattr("segadapt.pipeline.run.missing_download", asking)
    hub = {"start": "vgg16_hub"}
    both = recipe(tmp_path, finished, source_only=hub, sean=hub)
    assert command(capsys, "run", both, "--out", tmp_path / "new", "--dry-run").out.count("hub's cache") == 2
    assert asked.count("vgg16_hub") == 1  # offline, each question takes its seconds
    path = recipe(tmp_path, finished, sean=hub)
    said = "stages.sean.start: model.safetensors of https://huggingface.co/timm/vgg16.tv_in1k is not in the hub's cache"
    planned = command(capsys, "run", path, "--out", tmp_path / "new", "--dry-run")
    assert planned.code == 0 and said in planned.out
    begun = command(capsys, "run", path, "--out", tmp_path / "new")
    assert_told(begun, 1, "stages.sean.start", "is not in the hub's cache", "Give the path of a copy as `start`.")
    assert not (tmp_path / "new").exists()
    left = command(capsys, "run", path, "--out", tmp_path / "new", "--dry-run", "--only", "source_only")
    assert "hub's cache" not in left.out

"""What a stage is made from: files, other stages, options; and checkpoints that stand in for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from planning import actions, finish, planned, recipe_of, without_report
from segadapt.errors import UsageError
from segadapt.weights.saved import load_model
from tiny_runs import run, same, tree, write_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


# --- what a fingerprint covers ---


def test_a_file_counts_by_its_content_not_by_its_place(finished: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    start.write_bytes((finished / "run/source_only/model.safetensors").read_bytes())
    recipe = recipe_of(tmp_path, finished, a={"method": "source_only", "steps": 1, "start": str(start)})
    run(recipe, tmp_path / "run")
    moved = tmp_path / "moved.safetensors"
    start.rename(moved)
    assert actions(recipe, tmp_path / "run", f"stages.a.start={moved}") == ["skip"]
    content = moved.read_bytes()
    moved.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of a weight
    _, stages = planned(recipe, tmp_path / "run", f"stages.a.start={moved}")
    assert [change.split(":")[0] for change in stages["a"].stage.changes()] == ["files.start"]


def test_a_folder_counts_by_names_and_sizes(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stylized"
    folder.mkdir()
    for image in (finished / "data/gta5/images").iterdir():
        (folder / image.name).write_bytes(image.read_bytes())
    recipe = recipe_of(tmp_path, finished, a={"method": "source_only", "steps": 1, "extra_source": str(folder)})
    before = planned(recipe, tmp_path / "run")[1]["a"].stage.fingerprint
    assert planned(recipe, tmp_path / "run")[1]["a"].stage.fingerprint == before
    with image.open("rb") as file:
        (folder / image.name).write_bytes(file.read() + b" ")
    assert planned(recipe, tmp_path / "run")[1]["a"].stage.fingerprint != before


def test_an_option_that_is_off_may_be_missing_in_an_old_run(finished: Path) -> None:
    file = finished / "run/source_only/stage.json"
    content = json.loads(file.read_text())
    assert content["decided"]["steps"] == 2 and content["content"].pop("settings.clip_norm") is None
    before = file.read_text()
    file.write_text(json.dumps(content))
    assert actions(finished / "recipe.yaml", finished / "run") == ["skip", "skip", "skip"]
    file.write_text(before)


def test_epochs_are_written_down_as_steps(finished: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, finished, a={"method": "source_only", "steps": None, "epochs": 1})
    run(recipe, tmp_path / "run")
    decided = json.loads((tmp_path / "run/a/stage.json").read_text())["decided"]
    assert decided == {"steps": 3, "images.source": 6, "images.source_val": 2, "images.target_val": 2}


# --- references and stand-ins ---

CHAIN: dict[str, dict[str, Any]] = {
    "source_only": {"method": "source_only"},
    "style": {"method": "tgstn", "segmenter": "@source_only"},
    "stylize": {"method": "stylize", "generator": "@style"},
    "pseudo": {"method": "pseudo_labels", "model": "@source_only"},
    "self_train": {"method": "self_training", "labels": "@pseudo"},
}


def chain(finished: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    return tree(finished / "data", **{name: CHAIN[name] | changes.get(name, {}) for name in CHAIN})


def test_the_plan_of_all_kinds_of_stages_needs_no_files_of_them(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", chain(finished))
    run(recipe, tmp_path / "run", dry_run=True)
    said = capfd.readouterr().out
    for why in (r"stylize +stylize +to do +6 images", r"pseudo +pseudo_labels +to do +6 images"):
        assert re.search(why, said), said
    changed = planned(recipe, tmp_path / "run", "stages.style.lr=0.5")[1]
    before = planned(recipe, tmp_path / "run")[1]
    differ = [name for name in before if before[name].stage.fingerprint != changed[name].stage.fingerprint]
    assert differ == ["style", "stylize"]


@pytest.mark.parametrize(
    ("stage", "key", "reference", "said"),
    [
        (
            "stylize",
            "generator",
            "@source_only",
            "'@source_only' gives a segmenter, but the generator is expected here",
        ),
        ("self_train", "labels", "@stylize", "'@stylize' gives stylized images, but the folder of pseudo-labels"),
        ("self_train", "start", "@style", "'@style' gives a generator, but the start file is expected here"),
        ("pseudo", "model", "@style", "'@style' gives a generator, but the model is expected here"),
        ("style", "discriminator", "@source_only", "'@source_only' is a stage. Give the path of a file"),
    ],
)
def test_references_must_be_of_the_right_kind(
    finished: Path, tmp_path: Path, stage: str, key: str, reference: str, said: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", chain(finished, **{stage: {key: reference}}))
    with pytest.raises(UsageError, match=said) as failure:
        run(recipe, tmp_path / "run")
    assert failure.value.where == f"stages.{stage}.{key}" and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "key", "what"),
    [
        ("style", "segmenter", "the segmenter does not exist"),
        ("stylize", "generator", "the generator does not exist"),
        ("self_train", "labels", "the folder of pseudo-labels does not exist"),
        ("source_only", "stand_in", "the checkpoint that stands in does not exist"),
        ("pseudo", "mask", "the mask does not exist"),
    ],
)
def test_files_must_be_there(finished: Path, tmp_path: Path, stage: str, key: str, what: str) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", chain(finished, **{stage: {key: str(tmp_path / "nothing")}}))
    with pytest.raises(UsageError, match=what):
        run(recipe, tmp_path / "run", dry_run=True)


def test_a_checkpoint_stands_in_for_a_training(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = finished / "run/sean/model.safetensors"
    recipe = recipe_of(
        tmp_path,
        finished,
        a={"method": "sean", "stand_in": str(given)},
        b={"method": "target_trained", "stand_in": str(given.parents[1] / "source_only/model.safetensors")},
        views={"method": "evaluate", "model": "@a"},
    )
    run(recipe, tmp_path / "run")
    assert "a: not trained" in capfd.readouterr().err
    mine, theirs = load_model(tmp_path / "run/a/model.safetensors"), load_model(given)
    assert same(mine.network.state_dict(), theirs.network.state_dict())
    assert (mine.header.stage, mine.header.step, mine.header.selection) == ("a", 2, "last")
    assert not mine.header.used_target_labels and not (tmp_path / "run/a/metrics.jsonl").exists()
    scores = [json.loads((folder / "evaluation.json").read_text()) for folder in (given.parent, tmp_path / "run/a")]
    assert scores[0]["domains"] == scores[1]["domains"]
    assert load_model(tmp_path / "run/b/model.safetensors").header.used_target_labels
    assert actions(recipe, tmp_path / "run") == ["skip", "skip", "skip"]


def test_what_stands_in_must_be_a_whole_network(finished: Path, tmp_path: Path) -> None:
    """The VGG-16 of Caffe has no head."""
    names = [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    state: dict[str, torch.Tensor] = {}
    for name, before, after in zip(names, widths[:-1], widths[1:], strict=True):
        state |= {f"{name}.weight": torch.zeros(after, before, 3, 3), f"{name}.bias": torch.zeros(after)}
    torch.save(state, tmp_path / "vgg16.pth")
    recipe = recipe_of(
        tmp_path,
        finished,
        a={"method": "source_only", "network": "deeplab_vgg16", "stand_in": str(tmp_path / "vgg16.pth")},
    )
    with pytest.raises(UsageError, match=r"lacks .*must be a whole network; give it as `start`"):
        run(recipe, tmp_path / "run")

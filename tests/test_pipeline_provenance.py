"""Target labels that had a part in a model are told wherever it goes: by the files, whichever run they come from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from command import command
from made_pictures import write_generator
from planning import recipe_of, without_report
from segadapt.weights.provenance import Answer, either, used_target_labels
from segadapt.weights.saved import load_generator, load_model
from tiny_runs import run, tree, write_data, write_recipe


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose `chosen` was selected on target labels, `honest` was not, and what was made with the former."""
    folder = tmp_path_factory.mktemp("chosen")
    short = {"steps": 1, "evaluate_images": 1, "batch": 1}
    stages: dict[str, dict[str, Any]] = {
        "chosen": {"method": "source_only", "select": "best_target", **short, "evaluate_every": 1},
        "honest": {"method": "source_only", **short, "evaluate_every": 0},
        "style": {"method": "tgstn", "segmenter": "@chosen", "steps": 1, "batch": 1},
        "stylize": {"method": "stylize", "generator": "@style"},
        "pseudo": {"method": "pseudo_labels", "model": "@chosen"},
        "after": {"method": "source_only", "start": "@chosen", **short, "evaluate_every": 0},
    }
    recipe = write_recipe(folder / "recipe.yaml", tree(write_data(folder / "data"), **stages))
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        run(recipe, folder / "run")
    torch.save(load_model(folder / "run/honest/model.safetensors").network.state_dict(), folder / "run/bare.pth")
    shutil.copytree(folder / "run/stylize/images", folder / "run/copied")
    return folder


def test_each_kind_of_file_tells_it(chosen: Path) -> None:
    told = {
        "chosen/model.safetensors": True,
        "chosen/model_last.safetensors": False,
        "chosen/checkpoints/step_00000001.pt": False,
        "honest/model.safetensors": False,
        "after/model.safetensors": True,
        "after/checkpoints/step_00000001.pt": True,
        "style/model.safetensors": True,
        "stylize/images": True,
        "pseudo/labels": True,
        "honest/checkpoints": None,
        "nothing.pt": None,
        "bare.pth": None,
        "copied": None,
    }
    assert {name: used_target_labels(chosen / "run" / name) for name in told} == told
    assert load_generator(chosen / "run/style/model.safetensors").header.used_target_labels


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"method": "source_only", "start": "chosen/model.safetensors"}, True),
        ({"method": "source_only", "start": "honest/model.safetensors"}, False),
        ({"method": "source_only", "start": "after/checkpoints/step_00000001.pt"}, True),
        ({"method": "source_only", "stand_in": "chosen/model.safetensors"}, True),
        ({"method": "source_only", "stand_in": "after/checkpoints/step_00000001.pt"}, True),
        ({"method": "source_only", "stand_in": "honest/model.safetensors"}, False),
        ({"method": "source_only", "extra_source": "stylize/images"}, True),
        ({"method": "self_training", "labels": "pseudo/labels"}, True),
        ({"method": "source_only", "start": "bare.pth"}, None),
        ({"method": "source_only", "stand_in": "bare.pth"}, None),
        ({"method": "source_only", "start": "honest/model.safetensors", "extra_source": "copied"}, None),
        ({"method": "source_only", "start": "chosen/model.safetensors", "extra_source": "copied"}, True),
        ({"method": "target_trained", "start": "bare.pth"}, True),
    ],
)
def test_a_stage_of_another_run_tells_it_on(
    chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], used: bool | None
) -> None:
    without_report(monkeypatch)
    paths = {k: str(chosen / "run" / v) for k, v in settings.items() if k != "method"}
    recipe = recipe_of(tmp_path, chosen, a={**settings, **paths, "steps": 1, "batch": 1, "evaluate_every": 0})
    run(recipe, tmp_path / "run")
    assert load_model(tmp_path / "run/a/model.safetensors").header.used_target_labels is used
    assert json.loads((tmp_path / "run/a/evaluation.json").read_text())["used_target_labels"] is used


def test_of_files_that_say_nothing_or_are_damaged_it_is_not_known(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "published.pth")
    (tmp_path / "damaged.pt").write_bytes(b"PK" + bytes(40))
    (tmp_path / "damaged.safetensors").write_bytes(bytes(8) + b"{" + bytes(40))
    (tmp_path / "labels").mkdir()
    (tmp_path / "result.json").write_text("[" * 100_000)
    for name in ("published.pth", "damaged.pt", "damaged.safetensors", "labels"):
        assert used_target_labels(tmp_path / name) is None


def test_weights_of_another_task_have_seen_no_target(tmp_path: Path) -> None:
    torch.save({f"conv{n}.weight": torch.zeros(1) for n in ("1_1", "5_3")}, tmp_path / "vgg16.pth")
    assert used_target_labels(tmp_path / "vgg16.pth") is False


@pytest.mark.parametrize(
    ("answers", "together"),
    [((), False), ((False, False), False), ((False, None), None), ((None, True), True), ((True, False), True)],
)
def test_what_is_made_of_several_things(answers: tuple[Answer, ...], together: Answer) -> None:
    assert either(*answers) is together


def test_stylized_copies_of_the_verb_tell_it(chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that lies in the folder: copies of another generator stay there."""
    out, images = tmp_path / "out", chosen / "data/gta5/images"
    unknown = write_generator(tmp_path / "g.safetensors")
    for generator, used in ((unknown, None), (chosen / "run/style", True), (unknown, True)):
        assert command(capsys, "stylize", generator, images, "-o", out, "--size", "16x8").code == 0
        assert used_target_labels(out) is used

"""Target labels that had a part in a model are told wherever it goes: by the files, whichever run they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from planning import recipe_of, without_report
from segadapt.weights.provenance import used_target_labels
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
        "honest/checkpoints": False,
        "nothing.pt": False,
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
    ],
)
def test_a_stage_of_another_run_tells_it_on(
    chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], used: bool
) -> None:
    without_report(monkeypatch)
    paths = {k: str(chosen / "run" / v) for k, v in settings.items() if k != "method"}
    recipe = recipe_of(tmp_path, chosen, a={**settings, **paths, "steps": 1, "batch": 1, "evaluate_every": 0})
    run(recipe, tmp_path / "run")
    assert load_model(tmp_path / "run/a/model.safetensors").header.used_target_labels == used
    assert json.loads((tmp_path / "run/a/evaluation.json").read_text())["used_target_labels"] == used


def test_files_that_say_nothing_or_are_damaged_say_no(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "published.pth")
    (tmp_path / "damaged.pt").write_bytes(b"PK" + bytes(40))
    (tmp_path / "damaged.safetensors").write_bytes(bytes(8) + b"{" + bytes(40))
    (tmp_path / "labels").mkdir()
    (tmp_path / "result.json").write_text("[" * 100_000)
    for name in ("published.pth", "damaged.pt", "damaged.safetensors", "labels"):
        assert not used_target_labels(tmp_path / name)

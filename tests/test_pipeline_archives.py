"""A run on packed data: bit for bit the run on the same data unpacked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import command
from layouts import pack
from planning import actions, planned, without_report
from segadapt.report.page import write_report
from tiny_runs import last_checkpoint, metrics, run, same, tree, write_data, write_recipe

STAGES: dict[str, dict[str, Any]] = {
    "source_only": {"method": "source_only", "steps": 2, "evaluate_every": 2, "sampler": "rare_classes"},
    "labels": {"method": "pseudo_labels", "model": "@source_only"},
    "self_training": {
        "method": "self_training",
        "start": "@source_only",
        "labels": "@labels",
        "steps": 1,
        "evaluate_every": 0,
    },
}


def test_a_run_on_zip_files_is_the_run_on_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With class statistics, evaluation, pseudo-labels and report; and what one has finished the other may resume."""
    without_report(monkeypatch)
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    data = write_data(tmp_path / "data")
    content = tree(data, **STAGES)
    content["data"]["target"] |= {"labelled": 2}
    content["stages"]["source_only"]["rare_classes"] = {"min_pixels": 10}
    recipe = write_recipe(tmp_path / "recipe.yaml", content)
    run(recipe, tmp_path / "unpacked")
    for layout in ("gta5", "cityscapes"):
        pack(data / layout, layout)
    assert not list(data.glob("*/*/"))
    shutil.rmtree(tmp_path / "cache")
    run(recipe, tmp_path / "packed")
    for stage in ("source_only", "self_training"):
        ours, theirs = (tmp_path / name / stage for name in ("packed", "unpacked"))
        assert metrics(ours) == metrics(theirs)
        assert same(last_checkpoint(ours)["modules"], last_checkpoint(theirs)["modules"])
        scores = [json.loads((folder / "evaluation.json").read_text())["domains"] for folder in (ours, theirs)]
        assert scores[0] == scores[1] and scores[0]["target"]["images"] == 2
    assert actions(recipe, tmp_path / "unpacked") == ["skip"] * len(STAGES)
    write_report(tmp_path / "packed", images=1, device="cpu")

    root = data / "cityscapes"
    found = command(capsys, "data", "check", "cityscapes", root, "--split", "val", "--out", tmp_path / "x")
    assert found.code == 0 and (tmp_path / "x").is_dir()
    images = root / "leftImg8bit_trainvaltest.zip/leftImg8bit/val"
    made = command(capsys, "predict", tmp_path / "packed/source_only", images, "--out", tmp_path / "predicted")
    assert made.code == 0, made.err
    assert len(list((tmp_path / "predicted").rglob("*.png"))) >= 2
    scored = command(
        capsys, "evaluate", tmp_path / "packed/source_only", "--layout", "gta5", "--root", data / "gta5", "--split",
        "train",
    )  # fmt: skip
    assert scored.code == 0, scored.err
    prepared = command(capsys, "data", "prepare", recipe, "--size", "96x48", "--workers", 1)
    assert prepared.code == 0, prepared.err
    _, stages = planned(recipe, tmp_path / "new")
    source = stages["source_only"].data.source
    assert source is not None and all(leaf.image_copies is not None for leaf in source.leaves)
    sample = source.read(0)
    assert np.asarray(Image.fromarray(sample.image)).shape == (48, 96, 3)

"""Runs on several sources and targets, and with a few labelled target images."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import command
from planning import actions, planned, without_report
from segadapt.config.load import load_recipe
from segadapt.data.loader import Sampled, Steps
from segadapt.errors import UsageError, UsageErrors
from segadapt.report.page import write_report
from segadapt.stages.domains import learned
from segadapt.stages.training import sampler_of
from segadapt.weights.saved import load_model
from tiny_runs import run, tree, write_data, write_recipe

FEW = {"labelled": 2, "labelled_share": 0.5}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_report(monkeypatch)
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    return write_data(tmp_path / "data")


def recipe(folder: Path, data: Path, target: dict[str, Any], **stages: dict[str, Any]) -> Path:
    content = tree(data, **{name: {"steps": 2, "evaluate_every": 0, **stage} for name, stage in stages.items()})
    content["data"]["target"] |= target
    return write_recipe(folder / "recipe.yaml", content)


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def steps_of(about: Any, one: Any, rank: int, ranks: int) -> Any:
    """The batches of a stage as one of several ranks draws them."""
    domains = learned(one.settings, one.data)

    def sampled(data: Any, side: Any) -> Sampled | None:
        return None if data is None else Sampled(data, sampler_of(about, one.settings, data, side))

    sides = sampled(domains.source, "source"), sampled(domains.target, "target")
    return Steps(about.recipe.seed, one.settings.batch, *sides, rank=rank, ranks=ranks)


def names_of(about: Any, one: Any, steps: int = 20) -> list[str]:
    """The source images of a stage's first steps."""
    source = learned(one.settings, one.data).source
    assert source is not None
    items = Steps(
        about.recipe.seed, one.settings.batch, Sampled(source, sampler_of(about, one.settings, source, "source")), None
    )
    return [name for step in range(steps) for name in items[step].source.names]  # type: ignore[union-attr]


def test_a_few_labelled_target_images_are_learned_from_and_it_is_said_everywhere(tmp_path: Path, data: Path) -> None:
    stages: dict[str, dict[str, Any]] = {
        "source_only": {"method": "source_only"},
        "sean": {"method": "sean", "start": "@source_only", "fresh_head": True},
        "upper": {"method": "target_trained"},
    }
    path, out = recipe(tmp_path, data, FEW, **stages), tmp_path / "run"
    about, before = planned(path, out)
    assert [one.stage.decided.get("images.labelled") for one in before.values()] == [2, 2, None]
    assert before["upper"].stage.decided["images.target"] == 2
    seen = names_of(about, before["source_only"])
    few = {name for name in seen if name.endswith("_leftImg8bit.png")}
    assert len(few) == 2 and sum(name in few for name in seen) == len(seen) // 2
    run(path, out)
    for name in stages:
        assert set((out / name / "labelled.txt").read_text().split()) == few
        assert evaluation(out / name)["used_target_labels"] is True
        assert load_model(out / name / "model.safetensors").header.used_target_labels is True
    write_report(out, images=0, device="cpu")
    assert (out / "report.html").read_text().count("used target labels") >= 3
    # An image list is the same as a number that has drawn those, and so is the stage.
    (tmp_path / "few.txt").write_text((out / "sean" / "labelled.txt").read_text())
    assert actions(path, out, f"data.target.labelled={tmp_path / 'few.txt'}") == ["skip"] * 3
    assert actions(path, out, "data.target.labelled_share=0.4") == ["redo", "redo", "skip"]
    none = ("data.target.labelled=null", "data.target.labelled_share=null")
    assert actions(path, out, *none) == ["redo"] * 3
    assert actions(path, out, "data.target.labelled=3") == ["redo"] * 3


def test_a_stage_may_ignore_the_few_labels(tmp_path: Path, data: Path) -> None:
    """Then it is what it would be without them: what was trained before they were set stays, and is not marked."""
    stages: dict[str, dict[str, Any]] = {
        "sean": {"method": "sean"},
        "all_labels": {"method": "target_trained"},
        "few": {"method": "target_trained"},
    }
    without = {name: settings | {"ignore_labelled": name != "few"} for name, settings in stages.items()}
    out = tmp_path / "run"
    run(recipe(tmp_path, data, {}, **{name: stages[name] for name in ("sean", "all_labels")}), out)
    assert actions(recipe(tmp_path, data, FEW, **stages), out) == ["redo", "redo", "begin"]
    path = recipe(tmp_path, data, FEW, **without)
    assert actions(path, out) == ["skip", "skip", "begin"]
    about, found = planned(path, tmp_path / "other")
    images = {name: len(one.data.target or ()) for name, one in found.items()}
    assert images["few"] == 2 < images["sean"] == images["all_labels"]
    marked = {name: one.kind.sees_target_labels(one.settings, about.recipe.data) for name, one in found.items()}
    assert marked == {"sean": False, "all_labels": True, "few": True}
    run(path, out)
    assert [name for name in without if (out / name / "labelled.txt").exists()] == ["few"]
    assert evaluation(out / "sean")["used_target_labels"] is False


def test_ranks_share_the_batches_with_a_few_labels_among_them(tmp_path: Path, data: Path) -> None:
    """Beside source images, beside target images with pseudo-labels, and alone."""
    for image in (data / "cityscapes/leftImg8bit/train").rglob("*.png"):
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.new("L", (16, 8), 1).save(tmp_path / "labels" / image.name)
    rare = {"sampler": "rare_classes", "target_sampler": "rare_classes", "rare_classes": {"min_pixels": 20}}
    stages: dict[str, dict[str, Any]] = {
        "beside_source": {"method": "dacs", **rare, "target_sampler": "shuffled"},
        "beside_target": {"method": "self_training", "labels": str(tmp_path / "labels")},
        "alone": {"method": "target_trained", **rare, "sampler": "shuffled"},
    }
    about, found = planned(recipe(tmp_path, data, FEW, **stages), tmp_path / "run")
    for name, one in found.items():
        whole, *halves = (steps_of(about, one, rank, ranks) for rank, ranks in ((0, 1), (0, 2), (1, 2)))
        seen = set[str]()
        for step in range(10):
            batch, first, second = whole[step], halves[0][step], halves[1][step]
            assert batch.seeds == first.seeds + second.seeds and batch.step_seed == second.step_seed
            for side in ("source", "target"):
                expected, *parts = (getattr(each, side) for each in (batch, first, second))
                if expected is None:
                    continue
                assert expected.names == parts[0].names + parts[1].names
                assert torch.equal(expected.images, torch.cat([part.images for part in parts]))
                if expected.labels is not None:
                    assert torch.equal(expected.labels, torch.cat([part.labels for part in parts]))
                    seen |= set(expected.names)
        data_of: Any = one.data
        few = {pair.name for leaf in (data_of.labelled or data_of.target).leaves for pair in leaf.pairs}
        assert len(few) == 2 and few <= seen and (few == seen) == (name == "alone")


def test_style_transfer_and_stand_ins_know_no_target_label(tmp_path: Path, data: Path) -> None:
    run(recipe(tmp_path, data, {}, source_only={"method": "source_only"}), tmp_path / "run")
    model = str(tmp_path / "run/source_only/model.safetensors")
    style = {"method": "tgstn", "segmenter": model}
    content = tree(data, style=style, again={"method": "source_only", "stand_in": model})
    content["data"]["target"] |= FEW
    about, found = planned(write_recipe(tmp_path / "few.yaml", content), tmp_path / "few")
    for one in found.values():
        assert one.data.labelled is None and not one.kind.sees_target_labels(one.settings, about.recipe.data)


def several(data: Path, **stages: dict[str, Any]) -> dict[str, Any]:
    content = tree(data, **stages)
    gta5, cityscapes = content["data"]["source"], content["data"]["target"]
    again = shutil.copytree(data / "gta5", data / "again", dirs_exist_ok=True)
    content["data"] = {
        "source": [{**gta5, "share": 3}, {**gta5, "name": "again", "root": str(again), "share": 1}],
        "target": [cityscapes, {**gta5, "name": "rendered", "labelled": 1}],
    }
    return content


def test_several_sources_and_targets_go_through_a_whole_chain(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short: dict[str, Any] = {"steps": 2, "evaluate_every": 0}
    content = several(
        data,
        source_only={"method": "source_only", **short},
        style={"method": "tgstn", "segmenter": "@source_only", "steps": 1},
        stylized={"method": "stylize", "generator": "@style"},
        mixed={"method": "source_only", "start": "@source_only", "extra_source": "@stylized", **short},
        labels={"method": "pseudo_labels", "model": "@mixed"},
        self_training={"method": "self_training", "start": "@mixed", "labels": "@labels", **short, "evaluate_every": 2},
    )
    path, out = write_recipe(tmp_path / "recipe.yaml", content), tmp_path / "run"
    about, found = planned(path, out)
    seen = names_of(about, found["source_only"], 40)
    count = {
        part: sum(name.startswith(f"{part}/") for name in seen) / len(seen) for part in ("gta5", "again", "rendered")
    }
    assert count == pytest.approx({"gta5": 0.5625, "again": 0.1875, "rendered": 0.25}, abs=0.04)
    run(path, out)
    assert (out / "stylized/images/again").is_dir() and (out / "labels/labels/rendered").is_dir()
    assert len(list((out / "stylized/images").rglob("*.png"))) == 12
    assert (out / "self_training/labelled.txt").read_text().startswith("rendered/")
    domains = evaluation(out / "self_training")["domains"]
    assert list(domains) == ["target", "target.cityscapes", "target.rendered", "source", "source.gta5", "source.again"]
    parts = [np.array(domains[name]["confusion"]) for name in ("target.cityscapes", "target.rendered")]
    assert np.array_equal(domains["target"]["confusion"], parts[0] + parts[1]) and domains["target"]["images"] == 4
    assert domains["source.gta5"]["miou"] == domains["source.again"]["miou"]
    write_report(out, images=1, device="cpu")
    page = (out / "report.html").read_text()
    images = domains["target"]["per_image"]["names"]
    assert len(images) == len(set(images)) == domains["target"]["images"]
    assert {name.split("/")[0] for name in images} == {"cityscapes", "rendered"} and "rendered/rendered" not in str(
        images
    )
    pixels = [sum(domains[name]["calibration"]["pixels"]) for name in ("target.cityscapes", "target.rendered")]
    assert sum(domains["target"]["calibration"]["pixels"]) == sum(pixels) > 0
    assert "mIoU target.rendered" in page and "gta5 + gta5 → cityscapes + gta5" in page
    capsys.readouterr()
    scored = command(capsys, "evaluate", out / "mixed", "--domain", "target", "--out", tmp_path / "s.json")
    assert scored.code == 0 and "target.rendered val" in scored.out
    again = json.loads((tmp_path / "s.json").read_text())["domains"]
    assert {name: scores["miou"] for name, scores in again.items()} == {
        name: scores["miou"]
        for name, scores in evaluation(out / "mixed")["domains"].items()
        if name.startswith("target")
    }


def test_overrides_reach_into_a_list_of_domains(tmp_path: Path, data: Path) -> None:
    content = several(data, a={"method": "source_only"})
    content["data"]["source"][1]["root"] = "???"
    path = str(write_recipe(tmp_path / "recipe.yaml", content))
    with pytest.raises(UsageError, match=r"data\.source\.1\.root must be given"):
        load_recipe(path, [])
    loaded = load_recipe(path, ["data.source.1.root=here", "data.target.0.exif=raw"])
    assert str(loaded.data.domains("source")[1].root) == "here" and loaded.data.domains("target")[0].exif == "raw"
    for wrong, told in (
        ("data.source.2.root=x", "'2' of 'data.source.2.root' is not in the list"),
        ("data.source.1=x", "'1' of 'data.source.1' is one of a list"),
        ("data.source.1.rot=x", r"unknown key 'data\.source\.1\.rot'.*Did you mean 'root'"),
    ):
        with pytest.raises((UsageError, UsageErrors), match=told):
            load_recipe(path, ["data.source.1.root=here", wrong])


def test_the_data_of_a_recipe_is_checked_and_prepared_by_its_name(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = several(data, a={"method": "source_only", "steps": 1})
    shutil.rmtree(data / "cityscapes/gtFine/train")  # as in Dark Zurich: a target need not have labels
    path = write_recipe(tmp_path / "recipe.yaml", content)
    looked = command(capsys, "data", "check", path, "--workers", 1, "--out", tmp_path / "look")
    assert looked.code == 0
    for line in ("source.gta5: layout gta5", "source.again", "target.cityscapes: layout cityscapes", "target.rendered"):
        assert line in looked.out
    assert "split train: 6 images, labels not checked" in looked.out
    assert {file.name for file in (tmp_path / "look").iterdir()} >= {
        "source.gta5.train.png",
        "target.cityscapes.val.png",
    }
    made = command(capsys, "data", "prepare", path, "--size", "96x48", "--workers", 1)
    assert made.code == 0
    del content["data"]["target"][1]["labelled"]
    _, found = planned(write_recipe(path, content), tmp_path / "run")
    source = found["a"].data.source
    assert source is not None and all(leaf.image_copies is not None for leaf in source.leaves)
    assert source.read(0).name == "gta5/" + source.leaves[0].pairs[0].name.removeprefix("gta5/")
    for arguments, told in (
        (("gta5",), "ROOT: the folder of the data set is missing. Give it after 'gta5'"),
        ((path, "--holdout", 3), "--holdout: applies to a single data set"),
        (("gta55",), "no recipe of this name, and no file"),
    ):
        refused = command(capsys, "data", "check", *arguments)
        assert refused.code == 2 and told in refused.err

"""The contract of a kind of stage: one of one's own goes through all that a run does; no fingerprint has changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from planning import planned, without_report
from segadapt.config.load import load_recipe
from segadapt.data.catalog import Layout, Pair
from segadapt.data.label_spaces import load_label_space
from segadapt.data.sides import open_side
from segadapt.data.splits import select
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_json
from segadapt.models.networks import build
from segadapt.models.segmenter import IMAGENET
from segadapt.pipeline.costs import costs
from segadapt.pipeline.history import switched_on
from segadapt.pipeline.plan_table import why
from segadapt.pipeline.run import run_recipe
from segadapt.quirks import QuirkySettings
from segadapt.references import SEGMENTER, Names, Product
from segadapt.report.page import write_report
from segadapt.report.records import read_run
from segadapt.report.stages import overview
from segadapt.stages.context import Run
from segadapt.stages.domains import ANY, Domains
from segadapt.stages.estimate import Estimator
from segadapt.stages.registry import KINDS, register_stage
from segadapt.stages.stage import Cost, StageKind, Work
from segadapt.weights.saved import ModelHeader, SavedModel, load_any, load_model, save_model
from tiny_runs import tree, write_data, write_recipe

RECORDED = Path(__file__).parent / "recorded" / "stage_contents.json"
NUMBER = Product("a number")


class CountSettings(QuirkySettings):
    """Settings of `count`."""

    method: Literal["count"] = "count"
    split: str = Field("train", description="the source images to count")
    before: Annotated[str | None, Names("the number", NUMBER)] = Field(None, description="a number to add to")
    model: Annotated[str | None, Names("the model", SEGMENTER)] = Field(None, description="a model")


class Count(StageKind):
    """How many source images there are, as result.json."""

    settings_type = CountSettings
    gives = NUMBER
    result, use, role = "result.json", "result.json", "helper"
    broken = False

    def domains(self, settings: CountSettings) -> set[str]:
        return {"source"}

    def data(self, run: Run, settings: CountSettings) -> Domains:
        source = open_side(run.recipe.data.named("source"), run.space, settings.split, ANY, labels=False)
        return Domains(source, None, None, None)

    def cost(self, work: Work, estimator: Estimator) -> Cost:
        return Cost(seeing=60.0, images=work.decided["images.source"], bytes=1000)

    def progress(self, work: Work) -> str:
        return "counting again" if work.resumed else "counting"

    def do(self, work: Work) -> None:
        if self.broken:
            raise SegadaptError("out of fingers", where=work.name, remedy="")
        before, images = work.settings.before, len(work.data.source or ())
        if before is not None:
            images += json.loads(work.run.file_of(before).read_text())["images"]
        if work.run.runtime.is_main:
            write_json(work.folder / self.result, {"images": images})

    def outcome(self, result: dict[str, Any]) -> str:
        return f"{result['images']} images counted" if "images" in result else ""


@pytest.fixture
def count() -> Iterator[Count]:
    """The kind, registered for the test."""
    kind = Count()
    register_stage(kind)
    yield kind
    KINDS.pop("count")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    stages: dict[str, dict[str, Any]] = {
        "train": {"method": "count"},
        "all": {"method": "count", "split": "val", "before": "@train"},
    }
    content = tree(write_data(tmp_path / "data"), **{name: {"method": "evaluate", **s} for name, s in stages.items()})
    content["stages"] = stages
    return write_recipe(tmp_path / "recipe.yaml", content)


def test_a_kind_of_ones_own_goes_through_all_that_a_run_does(
    count: Count, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segadapt.stages.estimate.conv_rate", lambda _: 1e10)
    out = tmp_path / "run"
    about, stages = planned(recipe, out)
    assert [one.action for one in stages.values()] == ["begin", "begin"]
    assert costs(about, list(stages.values()))["all"] == Cost(seeing=60.0, images=2, bytes=1000)
    run_recipe(recipe, out, dry_run=True)
    assert "counting" in capfd.readouterr().out and not out.exists()

    monkeypatch.setattr(count, "broken", True)
    with pytest.raises(SegadaptError, match="out of fingers"):
        run_recipe(recipe, out)
    about, stages = planned(recipe, out)
    assert stages["train"].action == "resume" and why(about, stages["train"]) == "counting again"
    monkeypatch.setattr(count, "broken", False)
    done = run_recipe(recipe, out)
    assert {name: stage.state for name, stage in done.stages.items()} == {"train": "done", "all": "done"}
    assert json.loads((out / "all/result.json").read_text()) == {"images": 8}
    record = read_run(out)
    assert [stage.state for stage in record.stages] == ["done", "done"] and "8 images counted" in overview(record)
    assert "8 images counted" in (out / "report.html").read_text()

    _, stages = planned(recipe, out, "stages.train.split=val")
    assert [one.action for one in stages.values()] == ["redo", "redo"]
    run_recipe(recipe, out, {"stages.train.split": "val"}, yes=True)
    assert json.loads((out / "all/result.json").read_text()) == {"images": 4}


def test_what_it_names_must_be_of_its_kind(count: Count, recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'@train' gives a number, but the model is expected here") as failure:
        planned(recipe, tmp_path / "run", "stages.all.before=null", "stages.all.model=@train")
    assert failure.value.where == "stages.all.model"


def test_a_report_is_made_of_a_kind_that_is_not_there_now(recipe: Path, tmp_path: Path) -> None:
    """Such as that of a plug-in; a recipe with it is refused by name."""
    with pytest.raises(UsageError, match="'count', which is not a method"):
        load_recipe(str(recipe), [])
    register_stage(Count())
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        run_recipe(recipe, tmp_path / "run")
    KINDS.pop("count")
    record = read_run(tmp_path / "run")
    assert [(stage.role, stage.state) for stage in record.stages] == [("helper", "done"), ("helper", "done")]
    assert "count" in write_report(tmp_path / "run", images=0).read_text()


def test_a_taken_name_is_refused(count: Count) -> None:
    with pytest.raises(ValueError, match="already exists"):
        register_stage(count)


def test_fingerprints_are_those_of_the_runs_that_are_there(tmp_path: Path) -> None:
    """As recorded before kinds of stages were objects: all keys that are on, and all values that are no digests."""
    recorded = json.loads(RECORDED.read_text())
    (tmp_path / "file").write_bytes(b"x")
    stages = {
        name: {key: str(tmp_path / "file") if value == "FILE" else value for key, value in one["stage"].items()}
        for name, one in recorded.items()
    }
    content = tree(write_data(tmp_path / "data"), source_only={"method": "source_only"})
    recipe = write_recipe(tmp_path / "recipe.yaml", {**content, "stages": stages})
    _, now = planned(recipe, tmp_path / "run")
    for name, one in recorded.items():
        found = switched_on(now[name].stage.content)
        assert {key: value if one["content"].get(key) is not None else None for key, value in found.items()} == one[
            "content"
        ], name
        assert now[name].stage.decided == one["decided"], name


def test_the_work_opens_no_data_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plan has opened for a stage is what it is done with, with what other stages have made beside it."""
    without_report(monkeypatch)
    listed: list[str] = []

    def noted(layout: Layout, root: Path, split: str, *rest: Any) -> list[Pair]:
        listed.append(split)
        return select(layout, root, split, *rest)

    monkeypatch.setattr("segadapt.data.settings.select", noted)
    stages: dict[str, dict[str, Any]] = {
        "source_only": {"method": "source_only", "steps": 1},
        "pseudo": {"method": "pseudo_labels", "model": "@source_only", "scales": [1.0], "mirror": False},
        "self_train": {"method": "self_training", "labels": "@pseudo", "steps": 1},
        "views": {"method": "evaluate", "model": "@self_train"},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), **stages))
    planned(recipe, tmp_path / "run")
    before = list(listed)
    assert before.count("train") == 3
    listed.clear()
    run_recipe(recipe, tmp_path / "run")
    assert listed == before


def test_a_trained_model_is_scored_as_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not read again. Pixels, corner rule and attention are those that its file says."""
    without_report(monkeypatch)
    read: list[Path] = []

    def noted(path: Path, *rest: Any) -> SavedModel:
        read.append(path)
        return load_any(path, *rest)

    monkeypatch.setattr("segadapt.stages.train.load_any", noted)
    network = build("deeplab_small", classes=19, attention=True)
    network.pixels = IMAGENET
    about = {"network": "deeplab_small", "attention": True, "published_aspp": False, "pixels": IMAGENET.name}
    space = load_label_space("cityscapes19").as_dict()
    save_model(tmp_path / "start.safetensors", network, ModelHeader(**about, label_space=space, size=(96, 48)))
    start = {"method": "sean", "start": str(tmp_path / "start.safetensors"), "align_corners": True, "steps": 2}
    stages: dict[str, dict[str, Any]] = {
        "sean": start,
        "chosen": {**start, "evaluate_every": 1, "select": "label_free"},
        "views": {"method": "evaluate", "model": "@sean", "source": True},
    }
    run_recipe(write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), **stages)), tmp_path / "run")
    assert read == [tmp_path / "run/chosen/model.safetensors"]  # the network in memory is another one
    assert load_model(tmp_path / "run/sean/model.safetensors").header.pixels == IMAGENET.name
    found = [json.loads((tmp_path / f"run/{name}/evaluation.json").read_text()) for name in ("sean", "views")]
    assert found[0] == found[1]

"""Runs side by side: seeds together, differences within a seed, and what cannot be compared is told."""

import csv
import io
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from command import assert_told, command
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import UsageError
from segadapt.evaluation.confusion import Confusion
from segadapt.evaluation.evaluate import scores_of
from segadapt.files import write_json
from segadapt.plain_data import Json
from segadapt.report.compare import Comparison, compare
from segadapt.report.compare_markdown import as_markdown
from segadapt.report.records import read_run
from segadapt.report.seeds import Spread, student_quantile

SPACE = load_label_space("cityscapes19")
METHODS = {"plain": "source_only", "adapt": "sean", "bound": "target_trained"}
MIOU = {"plain": (30.0, 32.0, 31.0), "adapt": (40.0, 43.0, 42.0), "bound": (50.0, 52.0, 51.0)}
CONDITIONS = {
    "layout": "cityscapes", "root": "/data", "split": "val", "list": None, "images": 4, "data_digest": "abcdef0123",
    "size": [64, 32], "scales": [1.0], "mirror": False, "window": None, "rules": [], "precision": "fp32",
}  # fmt: skip


def write(run: Path, seed: int, miou: dict[str, float], lr: float = 1e-3, **conditions: Any) -> Path:
    """A run of three scored stages; road has the stage's mIoU as its IoU."""
    stages = {name: {"method": method, "lr": lr} for name, method in METHODS.items()}
    sides = {side: {"layout": "cityscapes", "root": f"/disk{seed}"} for side in ("source", "target")}
    run.mkdir(parents=True)
    recipe = {"label_space": SPACE.name, "data": sides, "stages": stages, "seed": seed, "runtime": {"threads": seed}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    counts = np.eye(len(SPACE), dtype=np.int64) * 30
    counts[0, 1] = 10
    for name, score in miou.items():
        scores = scores_of(Confusion(SPACE.classes, counts=counts), SPACE) | CONDITIONS | conditions | {"miou": score}
        scores["per_class"]["road"] = score
        (run / name).mkdir()
        (run / name / "model.safetensors").touch()
        about = {"stage": name, "method": METHODS[name], "step": 9, "used_target_labels": name == "bound"}
        write_json(
            run / name / "evaluation.json",
            about | {"label_space": SPACE.name, "classes": list(SPACE.classes), "domains": {"target": scores}},
        )
    return run


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    """Three runs of one recipe."""
    return [write(tmp_path / f"sean/seed{seed}", seed, {name: MIOU[name][seed] for name in MIOU}) for seed in range(3)]


def compared(runs: list[Path], **options: Any) -> Comparison:
    return compare([read_run(run) for run in runs], **options)


def change(run: Path, stage: str, **new: Any) -> None:
    """Other scores of a stage on its target."""
    path = run / stage / "evaluation.json"
    content: Json = json.loads(path.read_text())
    content["domains"]["target"] |= new
    write_json(path, content)


def test_quantiles_of_student_are_those_of_the_tables() -> None:
    """Any table of the two-sided 95 % and 99 % points."""
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}
    for freedom, value in table.items():
        assert student_quantile(0.975, freedom) == pytest.approx(value, abs=6e-5)
    assert student_quantile(0.995, 4) == pytest.approx(4.6041, abs=6e-5)
    assert student_quantile(0.5, 3) == pytest.approx(0, abs=1e-9)


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    assert (Spread((3.0,)).sd, Spread((3.0,)).interval, Spread((3.0,)).text()) == (None, None, "3.00")
    assert Spread((1.0, 3.0)).interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_seeds_of_a_recipe_are_one_row_with_differences_within_each(seeds: list[Path]) -> None:
    found = compared(seeds)
    assert list(found.groups) == ["sean"] and [row.stage for row in found.rows] == list(MIOU)
    plain, adapt, bound = found.rows
    miou = adapt.scores["miou"]
    assert miou is not None and miou.values == MIOU["adapt"] and adapt.seeds == (0, 1, 2)
    assert miou.sd == pytest.approx(statistics.stdev(MIOU["adapt"]))
    assert adapt.difference is not None and adapt.difference.values == (10, 11, 11)
    half = 4.30265 * statistics.stdev((10, 11, 11)) / 3**0.5
    assert adapt.difference.interval == pytest.approx((32 / 3 - half, 32 / 3 + half), abs=1e-4)
    assert adapt.gap is not None and adapt.gap.values == pytest.approx((50, 55, 55))
    assert plain.difference is plain.gap is bound.gap is None
    assert bound.difference is not None and bound.difference.mean == 20
    assert (adapt.used_target_labels, bound.used_target_labels) == (False, True)
    dice = adapt.scores["dice"]
    assert dice is not None and dice.sd == 0 and dice.mean == pytest.approx(100 * (17 + 6 / 7 + 6 / 7) / 19)
    assert found.notes == ()


def test_seeds_that_start_from_seeds_of_another_recipe_are_one_row(tmp_path: Path) -> None:
    """A start file in the run of the same seed, as after a pretraining in a run of its own."""
    starts = [write(tmp_path / f"first/seed{seed}", seed, {"plain": 30.0}) for seed in range(3)]
    runs = [write(tmp_path / f"then{seed}", seed, {name: MIOU[name][seed] for name in MIOU}) for seed in range(3)]
    for of_seeds, groups in (((0, 1, 2), ["then"]), ((2, 1, 0), ["then0", "then1", "then2"])):
        for run, seed in zip(runs, of_seeds, strict=True):
            content = yaml.safe_load((run / "recipe.yaml").read_text())
            content["stages"]["adapt"]["start"] = str(starts[seed] / "plain" / "model.safetensors")
            (run / "recipe.yaml").write_text(yaml.safe_dump(content))
        assert list(compared(runs).groups) == groups


def test_runs_that_name_files_of_their_own_or_of_each_other_come_to_an_end(seeds: list[Path]) -> None:
    for run, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
        content = yaml.safe_load((run / "recipe.yaml").read_text()) | {"seed": 0}
        files = [str(place / "plain" / "model.safetensors") for place in (run, other)]
        content["stages"] |= {f"later{i}": {"method": "sean", "start": files[i % 2]} for i in range(20)}
        (run / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    found = compared(seeds)
    assert len(found.groups) == 3 and [note for note in found.notes if "kept apart" in note]


def test_other_recipes_and_the_same_seed_again_stand_beside(seeds: list[Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other", 0, {name: scores[0] + 1 for name, scores in MIOU.items()}, lr=1e-2)
    again = Path(shutil.copytree(seeds[1], tmp_path / "again"))
    found = compared([*seeds, other, again])
    assert {name: len(runs) for name, runs in found.groups.items()} == {"sean": 3, "other": 1, "again": 1}
    assert [row.group for row in found.rows] == ["sean"] * 3 + ["other"] * 3 + ["again"] * 3
    assert [note for note in found.notes if note.startswith("again: recipe and seed of seed0")]


def test_what_is_not_done_is_said_and_the_rest_is_there(seeds: list[Path]) -> None:
    shutil.rmtree(seeds[2] / "bound")
    found = compared(seeds)
    assert found.rows[1].gap is not None and found.rows[1].gap.n == 2
    difference = found.rows[1].difference
    assert difference is not None and difference.n == 3
    assert "seed2: not started: bound" in found.notes
    assert "sean: bound has scores of 2 of 3 seeds" in found.notes


def test_many_stages_that_are_not_done_make_a_short_note(seeds: list[Path]) -> None:
    recipe = seeds[2] / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["stages"] |= {f"later{number}": content["stages"]["adapt"] for number in range(8)}
    recipe.write_text(yaml.safe_dump(content))
    found = compared(seeds)
    assert "seed2: not started: later0, later1, later2, later3, later4, later5 and 2 more" in found.notes


def test_other_views_give_no_difference_and_other_images_are_left_out(seeds: list[Path]) -> None:
    change(seeds[0], "adapt", mirror=True)
    assert compared(seeds[:1]).rows[1].difference is None
    change(seeds[0], "adapt", images=9)
    found = compared(seeds[:1])
    assert [row.stage for row in found.rows] == ["plain", "bound"]
    assert any("seed0/adapt: scored on 9 of val" in note for note in found.notes)


def test_files_of_earlier_versions_have_all_scores_that_their_counts_give(seeds: list[Path]) -> None:
    path = seeds[0] / "adapt" / "evaluation.json"
    content = json.loads(path.read_text())
    new = ("dice", "pixel_accuracy", "mean_accuracy", "per_class_dice", "per_class_accuracy")
    for key in new:
        del content["domains"]["target"][key]
    write_json(path, content)
    before, after = (compared([run], stages=["adapt"]).rows[0].scores for run in (seeds[1], seeds[0]))
    for key in new[:3]:
        one, two = before[key], after[key]
        assert one is not None and two is not None and one.mean == two.mean


def test_any_score_may_be_the_one_that_differences_are_about(seeds: list[Path]) -> None:
    found = compared(seeds, metric="road", stages=["adapt"])
    assert found.metric == "iou road" and found.metric_title == "IoU of road"
    assert found.rows[0].difference is not None and found.rows[0].difference.values == (10, 11, 11)
    assert compared(seeds, metric="cityscapes13").metric_title == "mIoU cityscapes13"
    accuracy = compared(seeds, metric="pixel_accuracy").rows[1].difference
    assert accuracy is not None and accuracy.mean == 0


def test_runs_that_cannot_be_compared(seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = seeds[0]
    split = write(tmp_path / "split", 0, {"plain": 1.0}, split="test", images=9)
    size = write(tmp_path / "size", 0, {"plain": 1.0}, size=[128, 64])
    fewer = load_label_space("cityscapes16")
    space = write(tmp_path / "space", 0, {"plain": 1.0}, per_class=dict.fromkeys(fewer.classes, 1.0), confusion=None)
    empty = write(tmp_path / "empty", 0, {})
    for run, what, remedy in (
        (split, "is scored on other images than seed0/plain: 9 of test", "scores a model on any."),
        (size, "is scored in another way than seed0/plain: input 128×64", "--mixed to compare them anyway."),
        (space, "is scored in another label space than seed0/plain", "scores a model in another one."),
    ):
        outcome = command(capsys, "compare", one, run)
        assert_told(outcome, 2, str(run / "plain"), what, remedy)
    assert_told(
        command(capsys, "compare", empty), 2, str(empty), "no stage has scores on target yet", "without labels."
    )
    assert len(compared([one, size], mixed=True).groups) == 2
    outcome = command(capsys, "compare", one, "--metric", "beauty")
    assert outcome.code == 2 and "'beauty' is not a score of these runs" in outcome.err and "dice" in outcome.err
    outcome = command(capsys, "compare", one, "--stages", "adapt,none")
    assert_told(outcome, 2, "--stages", "no run has a stage 'none'", "There are plain, adapt, bound.")
    assert command(capsys, "compare", one, "--per-class").code == 2
    assert command(capsys, "compare", one, "--json", "--out", "-").code == 2


def test_json_csv_and_figures(seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = command(capsys, "compare", *seeds, "--json", "--out", tmp_path / "scores.csv")
    printed = json.loads(outcome.out)
    assert outcome.code == 0 and printed == compared(seeds).plain()
    adapt = printed["rows"][1]
    assert adapt["scores"]["miou"]["n"] == 3 and adapt["gap"]["values"] == pytest.approx([50, 55, 55])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    assert [row["stage"] for row in rows] == list(MIOU)
    assert float(rows[1]["miou sd"]) == adapt["scores"]["miou"]["sd"] and rows[1]["seeds"] == "0 1 2"
    assert float(rows[1]["gap closed low"]) == adapt["gap"]["interval"][0] and rows[0]["gap closed"] == ""
    assert float(rows[2]["iou road"]) == 51
    assert list(csv.DictReader(io.StringIO(command(capsys, "compare", *seeds, "--out", "-").out))) == rows
    for options in (["figure.svg"], ["figure.png"], ["classes.pdf", "--per-class"]):
        outcome = command(capsys, "compare", *seeds[:2], "--out", tmp_path / options[0], *options[1:])
        assert outcome.code == 0 and (tmp_path / options[0]).stat().st_size > 1000
    assert (tmp_path / "figure.svg").read_text().lstrip().startswith("<?xml")


def test_a_markdown_table(seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scores.md"

    def cells(*runs: Path) -> list[list[str]]:
        assert command(capsys, "compare", *runs, "--out", file).code == 0
        lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    head, rule, *rows = cells(*seeds)
    assert head[:5] == ["stage", "seeds 0, 1, 2", "mean ± sd", "of the gap", "road"]
    assert len(head) == len(rule) == 4 + len(SPACE) and {len(row) for row in rows} == {len(head)}
    assert [row[:5] for row in rows] == [
        ["plain", "30.0, 32.0, 31.0", "31.0 ± 1.0", "0 %", "31.0"],
        ["adapt", "40.0, 43.0, 42.0", "41.7 ± 1.5", "53 %", "41.7"],
        ["bound\\*", "50.0, 52.0, 51.0", "51.0 ± 1.0", "100 %", "51.0"],
    ]
    other = write(tmp_path / "other", 4, {"plain": 20.0}, lr=1e-2)
    head, _, *rows = cells(*seeds, other)
    assert head[:3] == ["recipe", "stage", "per seed"]
    assert rows[-1][1:5] == ["plain", "20.0 (seed 4)", "20.0", "–"]


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_second_network_of_the_source_has_no_share_of_the_gap(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-GAN's pretraining is one, before or after source-only, whose score is where the gap begins."""
    own = {"pretrain": "source_only"}
    monkeypatch.setattr(sys.modules[__name__], "METHODS", own | METHODS if place == "first" else METHODS | own)
    run = write(tmp_path / "run", 0, {"plain": 30.0, "adapt": 40.0, "bound": 50.0, "pretrain": 20.0})
    shorter = run / "pretrain/evaluation.json"
    shorter.write_text(shorter.read_text().replace('"step": 9', '"step": 5'))
    rows = [line.split(" | ") for line in as_markdown(compare([read_run(run)])).splitlines() if line.startswith("| ")]
    shares = {row[0].strip("| \\*"): row[3] for row in rows[1:]}
    assert shares == {"plain": "0 %", "adapt": "50 %", "bound": "100 %", "pretrain": "–"}


def test_the_table_shows_intervals_of_several_seeds_alone(
    seeds: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    several, one = (command(capsys, "compare", *runs).out for runs in (seeds, seeds[:1]))
    assert "41.7 ± 1.5" in several and "+10.67 [" in several and "53 % [" in several
    assert "±" not in one and "[" not in one and "one seed" in one and "+10.00" in one and "50 %" in one


def add_evaluation(run: Path, name: str, model: str, **scores: Any) -> None:
    """An `evaluate` stage on test, with the model's scores but for these."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["stages"][name] = {"method": "evaluate", "model": f"@{model}", "split": "test"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    content = json.loads((run / model / "evaluation.json").read_text())
    content["domains"]["target"] |= {"split": "test", "images": 7, **scores}
    (run / name).mkdir()
    write_json(run / name / "evaluation.json", content)


def test_a_second_evaluation_of_a_model_is_a_row_of_its_own(seeds: list[Path]) -> None:
    for name in METHODS:
        add_evaluation(seeds[0], f"test_{name}", name)
    add_evaluation(seeds[0], "views", "adapt", mirror=True, miou=44.0)
    rows = {row.stage: row for row in compared(seeds[:1], split="test").rows}
    assert list(rows) == [*METHODS, "views"]
    assert middle(rows["adapt"].scores["miou"]) == 40 and middle(rows["views"].scores["miou"]) == 44
    assert rows["views"].difference is None  # other views


def middle(spread: Spread | None) -> float:
    assert spread is not None
    return spread.mean


def test_evaluations_on_another_split_are_scores_of_the_models_that_they_scored(seeds: list[Path]) -> None:
    """With differences and gap, as on the split that the stages were scored on themselves."""
    for run in seeds:
        for name in METHODS:
            before = json.loads((run / name / "evaluation.json").read_text())["domains"]["target"]["miou"]
            add_evaluation(run, f"test_{name}", name, miou=before / 2)
    test, val = compared(seeds, split="test"), compared(seeds, split="val")
    assert [row.stage for row in test.rows] == [row.stage for row in val.rows] == list(METHODS)
    assert test.scored_on["split"] == "test" and val.scored_on["split"] == "val"
    for ours, theirs in zip(test.rows, val.rows, strict=True):
        assert middle(ours.scores["miou"]) == pytest.approx(middle(theirs.scores["miou"]) / 2)
    assert middle(test.rows[1].difference) == pytest.approx(middle(val.rows[1].difference) / 2)
    assert middle(test.rows[1].gap) == pytest.approx(middle(val.rows[1].gap))
    with pytest.raises(UsageError, match=r"no stage has scores on target train\. Scored: test, val\."):
        compared(seeds, split="train")

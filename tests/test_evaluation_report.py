"""The report page: self-contained, right in its numbers, and there whatever is missing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from scored_runs import blocks, paint, registered, write_run
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import UsageError
from segadapt.evaluation.label_free import label_free_agreement
from segadapt.evaluation.pictures import as_svg, draw_confusion
from segadapt.report.gains import gain
from segadapt.report.page import Underway, is_underway, settle, write_report
from segadapt.report.records import read_run
from segadapt.report.tables import class_table, summary_table
from web_page import Page

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    paint(tmp_path / "data", SPACE, "val", [blocks(SPACE, seed) for seed in range(6)])
    write_run(tmp_path / "run", SPACE, tmp_path / "data")
    return tmp_path / "run"


def test_a_whole_run(run: Path) -> None:
    path = write_report(run, images=2)
    assert path == run / "report.html"
    page = Page(path)
    assert len(page.source) < 10_000_000
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|<script|<link", page.source)
    assert len(page.ids) == len(set(page.ids))
    # Two images, each with label, three predictions and the attention of one stage; the two worst and the two best.
    assert page.tags.count("img") == 2 * (2 + 3 + 1) + (2 + 2) * 4
    # Three trainings: two losses and their sum, target mIoU, InfoMax, one over the other, learning rate; calibration.
    assert page.tags.count("svg") == 3 * 7 + 3
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    for word in ("baseline", "adapt", "bound", "30.00", "45.00", "60.00", "50 %", "used target labels", "cityscapes13"):
        assert word in page.text, word
    assert page.text.count("used target labels") == 2  # in the overview and in the scores
    assert "a <b>test</b> & more" in page.text
    assert "segadapt run this --out that" in page.text
    assert f"segadapt report {run}" in page.text
    assert "0.80" in page.text  # Spearman's ρ of four evaluations with one swap
    assert "final: not started" in page.text


def test_a_run_at_work_says_so_and_its_page_loads_itself_until_it_is_at_its_end(run: Path) -> None:
    page = write_report(run, images=1, underway=Underway("bound & co", 3, 4, "about 2 min left"))
    shown = Page(page)
    assert is_underway(page) and 'http-equiv="refresh"' in shown.source
    assert "Stage 3 of 4, bound & co , is running; about 2 min left." in shown.text
    assert "45.00" in shown.text and "not started" in shown.text  # in the table of stages
    assert "What is missing here" not in shown.text
    settle(page)
    settled = Page(page)
    assert not is_underway(page) and "In progress" not in settled.text and "refresh" not in settled.source
    assert settled.tags.count("img") == shown.tags.count("img") and "45.00" in settled.text


def test_no_data_on_this_machine(run: Path) -> None:
    (run.parent / "data").rename(run.parent / "gone")
    page = Page(write_report(run))
    assert "the target data is not on this machine" in page.text
    assert page.tags.count("img") == 0
    assert "45.00" in page.text


def test_images_without_labels_are_shown(run: Path) -> None:
    for label in (run.parent / "data").rglob("*_labelIds.png"):
        label.unlink()
    assert Page(write_report(run, images=1)).tags.count("img") == 1 + 3 + 1


def test_parts_missing_or_broken(run: Path, tmp_path: Path) -> None:
    """A stage without scores, a stage that was never begun, files cut short: the rest is still there."""
    (run / "bound" / "evaluation.json").unlink()
    (run / "baseline" / "model.safetensors").write_bytes(b"cut")
    (run / "environment.json").write_text("{")
    metrics = run / "adapt" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 21, "loss/')
    for leftover in (run / "bound").iterdir():
        leftover.unlink()
    (run / "bound").rmdir()
    page = Page(write_report(run, tmp_path / "elsewhere" / "page.html", images=1))
    assert "bound: not started" in page.text
    assert "baseline: no predictions" in page.text
    assert "environment.json: cannot be read" in page.text
    assert "45.00" in page.text
    assert "of the gap" not in page.text
    assert page.tags.count("svg") == 2 * 7 + 2


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"miou": "high"}, "domains.target.miou"),
        ({"miou": 1e9}, "domains.target.miou"),
        ({"pixel_accuracy": []}, "domains.target.pixel_accuracy"),
        ({"dice": "good"}, "domains.target.dice"),
        ({"per_class_dice": {"road": []}}, "domains.target.per_class_dice.road"),
        ({"subsets": [1]}, "domains.target.subsets"),
        ({"per_class": {"road": "good"}}, "domains.target.per_class.road"),
        ({"confusion": [[1, 2], [3]]}, "the confusion matrix is not"),
        ({"scales": ["1"]}, "domains.target.scales"),
    ],
)
def test_scores_that_somebody_altered(run: Path, change: dict[str, object], wrong: str) -> None:
    """They are noted and left out, and all else is there."""
    path = run / "adapt" / "evaluation.json"
    content = json.loads(path.read_text())
    content["domains"]["target"] |= change
    path.write_text(json.dumps(content))
    record = read_run(run)
    [said] = [line for line in record.missing if "adapt/evaluation.json" in line]
    assert "does not have the expected form" in said and wrong in said
    baseline, adapt, *_ = record.stages
    assert adapt.evaluation is None and baseline.miou() == 30
    assert "mIoU" in summary_table(record) and class_table(record, None)


@pytest.mark.parametrize("text", ['{"domains": NaN}', "[" * 5000, '{"a": 1, "a": 2}', "[]", '{"step": 1e400}'])
def test_files_that_are_not_plain_data(run: Path, text: str) -> None:
    for name in ("evaluation.json", "stage.json", "result.json"):
        (run / "adapt" / name).write_text(text)
    (run / "recipe.yaml").write_text("stages: &a {b: *a}")
    record = read_run(run)
    assert [stage.name for stage in record.stages] == ["adapt", "baseline", "bound"]
    assert len([line for line in record.missing if "cannot be read" in line or "holds something else" in line]) == 4


def test_only_a_recipe(run: Path, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    page = Page(write_report(tmp_path / "fresh", images=0))
    assert "adapt: not started" in page.text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        write_report(tmp_path / "nowhere")


def test_gain_needs_the_same_conditions(run: Path) -> None:
    record = read_run(run)
    baseline, adapt, bound, _ = record.stages
    assert gain(record, adapt) == pytest.approx(50)
    assert gain(record, baseline) is None
    assert gain(record, bound) is None
    evaluation = run / "adapt" / "evaluation.json"
    evaluation.write_text(evaluation.read_text().replace('"mirror": false', '"mirror": true'))
    assert gain(read_run(run), read_run(run).stages[1]) is None


def test_agreement_is_read_from_the_metrics(run: Path) -> None:
    found = label_free_agreement(run / "adapt")
    alone = {"criteria": {"infomax": pytest.approx(0.8)}}  # a run of an earlier version has no other
    assert found == {"criterion": "infomax", "spearman": pytest.approx(0.8), "points": 4, **alone}
    assert label_free_agreement(run / "final") is None
    metrics = run / "adapt" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"val/infomax"', '"val/snd": 1.0, "val/bnm"'))
    (run / "adapt" / "stage.json").write_text('{"content": {"settings.criterion": "bnm"}}')
    found = label_free_agreement(run / "adapt")
    assert found is not None and found["criterion"] == "bnm" and found["criteria"] == {"bnm": pytest.approx(0.8)}


def test_the_longest_of_several_baselines_counts(run: Path) -> None:
    (run / "zz_longer").mkdir()
    content = (run / "baseline" / "evaluation.json").read_text().replace('"step": 20', '"step": 40')
    (run / "zz_longer" / "evaluation.json").write_text(content)
    first = read_run(run).first("baseline")
    assert first is not None
    assert first.name == "zz_longer"


def test_a_baseline_that_continues_another_counts_the_steps_of_both(run: Path) -> None:
    """Of 40 steps of pretraining and 20 more from there, the 60 are source-only, not the 40."""
    content = (run / "baseline" / "evaluation.json").read_text()
    for name, steps in (("pretrain", 40), ("continued", 20)):
        (run / name).mkdir()
        (run / name / "evaluation.json").write_text(content.replace('"step": 20', f'"step": {steps}'))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["stages"]["pretrain"] = {"method": "source_only", "start": "@continued"}  # later: not where it began
    recipe["stages"]["continued"] = {"method": "source_only", "start": "@pretrain"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    first = read_run(run).first("baseline")
    assert first is not None
    assert first.name == "continued"


def test_a_chart_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib's `savefig` draws a figure twice, which takes a third of the page's time."""
    drawn, draw = [], Figure.draw

    def counted(figure: Figure, *given: Any) -> None:
        drawn.append(figure)
        draw(figure, *given)

    monkeypatch.setattr(Figure, "draw", counted)
    svg = as_svg("once", draw_confusion([[9, 1], [0, 4]], ["road", "car"], ["road", "car"], "title"))
    assert len(drawn) == 1 and svg.startswith("<svg") and "currentColor" in svg

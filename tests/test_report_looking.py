"""What a page shows of mistakes, of a target without labels, of costs, and of other seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from command import command
from scored_runs import Labels, colour_network, paint, registered, write_run
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import Stopped
from segadapt.files import write_json
from segadapt.inference.predictor import Predictor
from segadapt.pipeline import spent
from segadapt.report import unlabelled
from segadapt.report.extremes import marked, worst_and_best
from segadapt.report.images import Budget
from segadapt.report.looking import Looking, look
from segadapt.report.mistakes import confused_pairs, difference_table
from segadapt.report.page import write_report
from segadapt.report.records import RunRecord, read_run
from segadapt.report.reliability import diagrams
from web_page import Page

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
ROAD, SKY, CAR = (SPACE.classes.index(name) for name in ("road", "sky", "car"))
pytestmark = pytest.mark.usefixtures("registered")


def swapped(labels: Labels, old: int, new: int, rows: int) -> Labels:
    """Some rows seen as another class."""
    seen = labels.copy()
    seen[:rows][seen[:rows] == old] = new
    return seen


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four images of sky over road; image k has 2k rows of its sky seen as car."""
    labels = np.full((16, 32), ROAD, np.uint8)
    labels[:8] = SKY
    seen = [swapped(labels, SKY, CAR, 2 * k) for k in range(4)]
    paint(tmp_path / "data", SPACE, "val", [labels] * 4, seen)
    write_run(tmp_path / "run", SPACE, tmp_path / "data")
    for stage in ("baseline", "adapt", "bound"):
        (tmp_path / "run" / stage / "metrics.jsonl").unlink()
    return tmp_path / "run"


def looked(run: Path) -> tuple[RunRecord, Looking]:
    record = read_run(run)
    looking = look(record, "cpu", [])
    assert looking is not None
    return record, looking


def altered(run: Path, stage: str, **scores: Any) -> None:
    """Other scores on the target."""
    path = run / stage / "evaluation.json"
    content = json.loads(path.read_text())
    content["domains"]["target"] |= scores
    write_json(path, content)


def test_the_worst_images_come_first_with_their_mistakes(run: Path) -> None:
    record, looking = looked(run)
    baseline, adapt, *_ = record.stages
    worst, best = worst_and_best(looking, adapt, baseline, 2, Budget(), [])
    assert [row.name.split("_left")[0][-1] for row in (*worst, *best)] == ["3", "2", "0", "1"]
    # Six of eight rows of sky are car: IoU 25 of sky, 0 of car, 100 of road; 6 of 16 rows are wrong.
    assert "IoU 41.7, source only 41.7" in worst[0].name and "IoU 100.0" in best[0].name
    assert [shown.caption for shown in worst[0].pictures] == ["image", "label", "adapt", "mistakes: 38 % of the pixels"]
    altered(run, "adapt", per_image=None)  # a file of an earlier version
    record, looking = looked(run)
    assert worst_and_best(looking, record.stages[1], None, 2, Budget(), []) == ([], [])


def test_mistakes_are_red_on_the_pale_image_and_ignored_pixels_black() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    wrong, ignored = np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)
    wrong[0] = ignored[0, 1] = True
    pixels = np.asarray(marked(image, wrong, ignored))
    assert pixels.shape == (2, 2, 3) and pixels[0].tolist() == [[224, 58, 46], [0, 0, 0]]
    assert (pixels[1] == pixels[1, 0, 0]).all() and pixels[1, 0, 0] > 150


def test_the_most_confused_pair_and_the_class_that_gained_most(run: Path) -> None:
    altered(run, "baseline", per_class={**dict.fromkeys(SPACE.classes), "sky": 50.0, "road": 90.0, "car": 10.0})
    record = read_run(run)
    [row] = confused_pairs(record, record.stages[1], SPACE).split("<tr")[2:]  # there is no other
    assert row.index("sky") < row.index("car")
    # Half of the sky, in 12 of 32 rows, and all mistakes; the same of source-only.
    assert ">100.0<" in row and row.count(">37.5<") == 2
    table = difference_table(record, record.stages[1], SPACE)
    assert [table.index(f"</span>{name}") for name in ("sky", "road", "car")] == sorted(
        table.index(f"</span>{name}") for name in ("sky", "road", "car")
    )
    assert "<b>+12.5</b>" in table and "<b>−10.0</b>" in table
    assert difference_table(record, record.stages[0], SPACE) == ""


def test_calibration_is_shown_where_it_was_counted(run: Path) -> None:
    assert diagrams(read_run(run)).count("<svg") == 3
    altered(run, "adapt", calibration=None, ece=None)
    assert diagrams(read_run(run)).count("<svg") == 2


def test_a_target_without_labels_still_says_something(run: Path) -> None:
    """adapt never sees car: it differs from the others in its rows."""
    for label in (run.parent / "data").rglob("*_labelIds.png"):
        label.unlink()
    record, looking = looked(run)
    assert not looking.labelled
    network = colour_network(SPACE)
    assert network.conv.bias is not None
    network.conv.bias.data[CAR] = -1e6  # car is never the nearest
    predictors = looking.predictors | {"adapt": (Predictor(network, (32, 16)), SPACE)}
    looking = Looking(looking.space, looking.domain, looking.dataset, predictors)
    seen = unlabelled.see(looking, 24)
    assert seen is not None and (seen.images, seen.of) == (4, 4)
    assert seen.differ["baseline", "adapt"] == pytest.approx((0 + 2 + 4 + 6) / 4 / 16, abs=5e-3)  # enlarged
    assert seen.differ["baseline", "bound"] == 0
    assert [index for _, index in seen.by_image] == [3, 2, 1, 0]
    shares = seen.said["baseline"].shares
    assert shares[CAR] == pytest.approx(3 / 16, abs=5e-3) and shares.sum() == pytest.approx(1)
    assert shares[ROAD] > shares[SKY] > shares[CAR]
    assert seen.said["adapt"].shares[CAR] == 0 and seen.said["adapt"].confidence > 0.99
    # Another colour takes the place of car: as many classes, each as sure.
    assert seen.said["baseline"].criteria["bnm"] == pytest.approx(seen.said["adapt"].criteria["bnm"], abs=1e-3)
    rows = unlabelled.worst_agreed(looking, seen, 9, Budget(), [])
    assert len(rows) == 3 and len(rows[0].pictures) == 1 + 3 + 1  # of the first image all say the same
    share = seen.differ["baseline", "adapt"]
    assert f">{100 * share:.1f} %<" in unlabelled.summary_table(record, seen)
    assert f"<small>-{100 * seen.said['baseline'].shares[CAR]:.2f}<" in unlabelled.shares_table(looking, record, seen)
    assert f">{100 * share:.0f}<" in unlabelled.disagreement_table(seen)


def test_the_page_without_labels_and_without_a_look(run: Path) -> None:
    for label in (run.parent / "data").rglob("*_labelIds.png"):
        label.unlink()
    page = Page(write_report(run, images=1))
    assert "so nothing is scored" in page.text and "Class shares" in page.text and "Worst" not in page.text
    page = Page(write_report(run, images=1, sample=0))
    assert "so nothing is scored" not in page.text


def test_the_page_shows_other_seeds_with_their_interval(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(run, run.parent / "seed1"))
    recipe = yaml.safe_load((other / "recipe.yaml").read_text()) | {"seed": 1}
    (other / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    altered(other, "adapt", miou=47.0)
    outcome = command(capsys, "report", run, "--images", 0, "--sample", 0, "--beside", other)
    assert outcome.code == 0
    text = Page(run / "report.html").text
    assert "46.0 ± 1.4" in text and "+16.0 +3.3 … +28.7" in text  # 15 and 17: t = 12.706, sd = √2
    alone = Page(write_report(run, images=0, sample=0)).text
    assert "Beside other runs" not in alone and "±" not in alone.replace("mean ±", "")


def test_what_a_stage_took_adds_up_and_a_failure_records_nothing(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    with spent.recorded(tmp_path, cpu, writes=True):
        held = np.ones(4_000_000)  # 32 MB
        del held
    first = json.loads((tmp_path / "cost.json").read_text())
    assert first["seconds"] > 0 and first["device_memory"] is None
    assert first["memory"] is None or first["memory"] > 32_000_000
    with pytest.raises(Stopped), spent.recorded(tmp_path, cpu, writes=True):
        raise Stopped("stopped", signal_number=15, where=tmp_path, remedy="")
    second = json.loads((tmp_path / "cost.json").read_text())
    assert second["seconds"] > first["seconds"]
    with pytest.raises(ValueError), spent.recorded(tmp_path, cpu, writes=True):
        raise ValueError
    with spent.recorded(tmp_path, cpu, writes=False):
        pass
    assert json.loads((tmp_path / "cost.json").read_text()) == second

"""The report stage by stage: what trainings, stylized images and pseudo-labels look like on the page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from scored_runs import blocks, paint, registered, write_run
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.files import write_json
from segadapt.report.curves import training_panels
from segadapt.report.images import Budget, Picture
from segadapt.report.page import write_report
from segadapt.report.records import StageRecord, read_run
from segadapt.report.stages import overview, stage_by_stage
from web_page import Page

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
pytestmark = pytest.mark.usefixtures("registered")
LOSSES = ("total", "seg", "consistency", "adversarial1", "adversarial2", "discriminator1", "discriminator2")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """baseline, adapt, bound and final of `write_run`, then style, stylize, pseudo and an unfinished se_gan."""
    run, target, source = tmp_path / "run", tmp_path / "data", tmp_path / "source"
    for root in (target, source):
        paint(root, SPACE, "train", [blocks(SPACE, seed) for seed in range(4)])
    paint(target, SPACE, "val", [blocks(SPACE, seed) for seed in range(2)])
    write_run(run, SPACE, target)
    for stage in ("baseline", "bound"):
        (run / stage / "metrics.jsonl").unlink()  # fewer curves to draw
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"]["source"] = {"layout": "cityscapes", "root": str(source)}
    recipe["stages"] |= {name: {"method": name} for name in ("tgstn", "stylize", "pseudo_labels", "se_gan")}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    write_json(run / "baseline" / "cost.json", {"seconds": 119.6, "memory": 3 * 2**29, "device_memory": 2**31})
    train(run / "tgstn", ("total", "semantic"), steps=3, planned=3, state="done")
    (run / "tgstn" / "model.safetensors").write_bytes(b"a generator, which predicts nothing")
    train(run / "se_gan", LOSSES, steps=3, planned=8, state="running")
    for number in range(4):
        name = f"brno/brno_000000_{number:06d}_leftImg8bit.png"
        png(run / "stylize" / "images" / name, np.full((16, 32, 3), 90, np.uint8))
        labels = np.full((16, 32), IGNORE, np.uint8)
        labels[:4] = 1
        png(run / "pseudo_labels" / "labels" / name, labels)
        png(run / "pseudo_labels" / "confidence" / name, np.full((16, 32), 200, np.uint8))
    for stage in ("stylize", "pseudo_labels"):
        png(run / stage / "contact_sheet.png", np.full((30, 60, 3), 255, np.uint8))
        write_json(run / stage / "stage.json", {"state": "done", "content": {}})
    write_json(run / "stylize" / "result.json", {"images": 4})
    kept: dict[str, Any] = {"road": None, "sidewalk": 0.516}
    shares = {"share": {"road": 0.0, "sidewalk": 0.25}, "thresholds": {"road": None, "sidewalk": 0.77}}
    write_json(run / "pseudo_labels" / "result.json", {"images": 4, "labelled": 0.25, "kept": kept, **shares})
    return run


def png(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def train(stage: Path, losses: tuple[str, ...], steps: int, planned: int, state: str) -> None:
    stage.mkdir()
    lines = [
        {"step": step, **{f"loss/{name}": 1 / step for name in losses}, "lr/a": 0.1, "lr/b": 0.1, "time/step": 2.0}
        for step in range(1, steps + 1)
    ]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(stage / "stage.json", {"state": state, "decided": {"steps": planned}, "content": {}})


def stage_of(run: Path, name: str) -> StageRecord:
    return next(stage for stage in read_run(run).stages if stage.name == name)


def test_the_overview_says_state_steps_time_and_result_in_the_order_of_the_recipe(run: Path) -> None:
    page = overview(read_run(run))
    rows = [row.split("</tr>")[0] for row in page.split("<tr")[2:]]
    said = dict(zip(read_run(run).recipe["stages"], rows, strict=True))
    assert all(f"</span>{name}<" in row for name, row in said.items())
    for name, texts in {
        "adapt": ("done", ">20<", "10 s", "<b>45.00</b> target mIoU"),
        "baseline": (">120 s<", ">0.0167<", "1.5 GB + 2.0 GB GPU"),
        "bound": ("<b>60.00</b> target mIoU", "used target labels"),
        "final": ("not started",),
        "tgstn": ("done", ">3<", "6 s", "a generator"),
        "stylize": ("done", "4 images stylized"),
        "pseudo_labels": ("25.0 % of the pixels labelled, 4 images",),
        "se_gan": ("unfinished", "3 of 8"),
    }.items():
        for text in texts:
            assert text in said[name], (name, text)
    assert "used target labels" not in said["adapt"]


def test_each_loss_has_a_plot_and_the_two_heads_share_one(run: Path) -> None:
    panels = {panel.title: panel.legend for panel in training_panels(stage_of(run, "se_gan"))}
    assert list(panels) == [
        "Weighted sum of the losses",
        *(f"Loss: {stem}" for stem in ("seg", "consistency", "adversarial", "discriminator")),
        "Learning rate",
    ]
    assert [name for name, _ in panels["Loss: discriminator"]] == ["discriminator1", "discriminator2"]
    assert panels["Loss: seg"] == ()
    assert panels["Learning rate"] == ()  # a and b are one curve
    assert "Weighted sum of the losses" not in [panel.title for panel in training_panels(stage_of(run, "tgstn"))][1:]


def test_stages_that_make_files_show_rows_of_three(run: Path) -> None:
    page = stage_by_stage(read_run(run), SPACE, 2, Budget())
    assert page.count("<img") == 2 * 3 + 2 * 3
    # Each image a row of its own, which stays together where the page is narrow.
    assert page.count('class="pictures" style="--across: 3"') == page.count("<h4>brno/") == 2 + 2
    assert page.count("<figcaption>original<") == page.count("<figcaption>stylized<") == 2
    assert page.count(">pseudo-label: 25 % of the pixels") == page.count(">confidence: black 0, white 1") == 2
    table = page[page.index("from confidence") :]
    for text in ("51.6<span", "0.77", "25.00"):
        assert text in table, text
    assert "contact sheet" not in page


def test_without_the_data_the_contact_sheets_are_shown(run: Path) -> None:
    for folder in ("data", "source"):
        (run.parent / folder).rename(run.parent / f"no_{folder}")
    page = stage_by_stage(read_run(run), SPACE, 2, Budget())
    assert page.count("<img") == page.count("<figcaption>contact sheet<") == 2
    (run / "stylize" / "contact_sheet.png").write_bytes(b"cut")
    assert stage_by_stage(read_run(run), SPACE, 2, Budget()).count("<img") == 1
    assert "51.6" in stage_by_stage(read_run(run), None, 0, Budget())


def test_files_that_cannot_be_read_or_are_still_to_come(run: Path) -> None:
    images = sorted((run / "stylize" / "images").rglob("*.png"))
    for image in images[1:]:
        image.unlink()
    assert stage_by_stage(read_run(run), SPACE, 3, Budget()).count("original<") == 1
    images[0].write_bytes(b"cut")
    assert "original<" not in stage_by_stage(read_run(run), SPACE, 3, Budget())


def test_the_page_is_whole(run: Path) -> None:
    page = Page(write_report(run, images=2))
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_a_stand_in_was_not_trained(run: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["stages"]["baseline"] |= {"stand_in": "elsewhere.pth", "steps": 77}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    page = overview(read_run(run))
    assert page.count("a stand-in") == 1
    assert "77" not in page


def test_a_generator_is_not_asked_for_predictions(run: Path) -> None:
    page = write_report(run, images=1).read_text()
    assert "tgstn: no predictions" not in page
    assert "stylize/evaluation.json" not in page
    assert "se_gan: not finished" in page
    assert page.count("<figcaption>baseline<") == page.count("<figcaption>bound<") == 1
    assert page.count("<figcaption>adapt<") == 3  # as the worst and the best image, too


def test_the_classes_are_compared_with_the_gain_below(run: Path) -> None:
    page = write_report(run, images=0).read_text()
    table = page[page.index("<h2>IoU per class") :]
    head = table[: table.index("</tr>")]
    assert head.index("baseline<") < head.index("adapt<") < head.index("bound<small>target labels")
    last = table[table.index("gain: share of the gap closed") :]
    assert "50 %" in last[: last.index("</tr>")]


def test_the_budget_refuses_what_would_be_too_much() -> None:
    budget, picture = Budget(left=10), Picture("a", "1234")
    assert budget.takes([picture, picture])
    assert not budget.takes([picture])
    assert budget.left == 2


def test_a_model_that_target_labels_chose_is_marked_and_not_the_best(run: Path) -> None:
    evaluation = run / "adapt" / "evaluation.json"
    content = evaluation.read_text()
    (run / "se_gan" / "evaluation.json").write_text(content.replace('"miou": 45.0', '"miou": 40.0'))
    evaluation.write_text(content.replace('"used_target_labels": false', '"used_target_labels": true'))
    page = write_report(run, images=0).read_text()
    table = page[page.index("<h2>IoU per class") :]
    assert "adapt<small>target labels" in table
    mean = table[table.index("<td>mean</td>") :]
    assert re.findall(r"<b>(.*?)</b>", mean[: mean.index("</tr>")]) == ["40.0"]


def test_a_stage_at_work_is_unfinished_even_with_a_result_of_before(run: Path) -> None:
    write_json(run / "stylize" / "stage.json", {"state": "running", "content": {}})
    assert stage_of(run, "stylize").state == "unfinished"


def test_the_last_adapted_stage_is_the_answer(run: Path) -> None:
    content = (run / "adapt" / "evaluation.json").read_text().replace('"step": 20', '"step": 5')
    (run / "se_gan" / "evaluation.json").write_text(content)
    assert "target mIoU, adapted: se_gan<" in write_report(run, images=0).read_text()


def test_what_used_a_few_target_labels_stands_beside_what_used_none(run: Path) -> None:
    """And is never mistaken for it: the share of the gap says so, too."""
    text = (run / "adapt" / "evaluation.json").read_text()
    scores = json.loads(text)
    assert scores["used_target_labels"] is False
    write_json(run / "se_gan" / "evaluation.json", scores | {"used_target_labels": True})
    cards = re.findall(r'<div class="card \w+"><b>.*?</b><span>(.*?)</span>', write_report(run, images=0).read_text())
    adapted = [f"target mIoU, adapted: {name}" for name in ("adapt", "se_gan, with target labels")]
    assert [card for card in cards if "adapted" in card] == adapted
    assert [card.partition("by this one seed")[2] for card in cards if "closed" in card] == [
        ": adapt",
        ": se_gan, with target labels",
    ]
    baseline = json.loads((run / "baseline" / "evaluation.json").read_text())
    write_json(run / "baseline" / "evaluation.json", baseline | {"used_target_labels": True})
    assert "source only: baseline, with target labels" in write_report(run, images=0).read_text()

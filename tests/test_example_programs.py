"""The example programs and the notebook run, on generated data and in seconds."""

import ast
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import segadapt
from pages import ROOT
from planning import without_report
from segadapt.data.label_spaces import load_label_space
from test_setup_init import blocks, write_grey, write_photos, write_target

EXAMPLES = ROOT / "examples"
SHORTER = {
    "STEPS = 60": "STEPS = 1",
    "train=60, val=12": "train=3, val=1",
    "(240, 120)": "(128, 64)",
    "(160, 80)": "(32, 16)",
}
"""Numbers of the notebook, and others that take seconds."""


def program(name: str) -> Any:
    """The `main` of an example."""
    return runpy.run_path(str(EXAMPLES / name))["main"]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which examples/adapt_folders.py has run: source/, target/, run/."""
    folder = tmp_path_factory.mktemp("adapted")
    write_photos(folder / "source" / "images", ["0.jpg", "1.jpg"])
    for k in range(2):
        write_grey(folder / "source" / "labels" / f"{k}.png", blocks([0, 1]))
    write_target(folder / "target")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segadapt.setup.recipe_text.LITE_PACKAGE", "no_such_package")
        without_report(patch)
        program("adapt_folders.py")(folder / "source", folder / "target", str(folder / "run"), "water,quay", "1")
    return folder


def test_two_folders_become_predictions(adapted: Path) -> None:
    overlays = sorted((adapted / "run_predictions").iterdir())
    assert len(overlays) == 4 and Image.open(overlays[0]).size == (64, 48)
    assert segadapt.load(adapted / "run", device="cpu").label_space.classes == ("water", "quay")


def test_a_loader_of_ones_own_is_scored(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program("evaluate_own_loader.py")(str(adapted / "run"), adapted / "source/images", adapted / "source/labels")
    said = capsys.readouterr().out
    assert "mIoU of 2 images" in said and "worst images: number" in said


def test_stages_are_compared_without_labels(
    adapted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = [str(adapted / "run" / stage) for stage in ("source_only", "adapt")]
    program("compare_without_labels.py")(*stages, str(adapted / "target"))
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    for column in (0, 1):
        assert sum(float(rows[name][column].rstrip("%")) for name in ("water", "quay")) == pytest.approx(100, abs=0.2)
    assert len(list((tmp_path / "compared").iterdir())) == 4


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """What a notebook shows below a cell: the value of its last expression."""
    body = ast.parse(source).body
    last = body[-1] if isinstance(body[-1], ast.Expr) else None
    body = body[:-1] if last is not None else body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: a kernel of its own would spend ten seconds on imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segadapt.setup.recipe_text.LITE_PACKAGE", "no_such_package")
    cells = json.loads((EXAMPLES / "first_hour.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for long, short in SHORTER.items():
        assert sum(long in source for source in sources) == 1, long
        sources = [source.replace(long, short) for source in sources]
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in sources]
    assert (
        sum(isinstance(one, Image.Image) for one in shown) == 2 and shown[2] == load_label_space("cityscapes19").classes
    )
    said = capsys.readouterr().out
    assert said.count("confidence ") == 2 and said.count("mIoU ") == 2
    assert Path("first_hour_run/report.html").is_file()


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads((EXAMPLES / "first_hour.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])

"""`segadapt.adapt`: a model from two folders or data sets, in one call."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segadapt
from planning import without_report
from segadapt.setup.adapt import _write
from test_setup_init import blocks, write_grey, write_photos, write_target

TINY: dict[str, Any] = {"steps": 1, "size": (32, 24), "device": "cpu", "method": "sean"}
TINY["changes"] = {"stages.source_only.batch": 1, "stages.adapt.batch": 1}


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of pretrained weights, the network is a small one."""
    monkeypatch.setattr("segadapt.setup.recipe_text.LITE_PACKAGE", "no_such_package")
    without_report(monkeypatch)


def write_folders(folder: Path) -> tuple[Path, Path]:
    write_photos(folder / "source" / "images", [f"{k}.jpg" for k in range(3)])
    for k in range(3):
        write_grey(folder / "source" / "labels" / f"{k}.png", blocks([0, 4, 7]))
    return folder / "source", write_target(folder / "target")


def test_two_folders(tmp_path: Path) -> None:
    source, target = write_folders(tmp_path)
    model = segadapt.adapt(source, target, ["water", "quay", "ship"], out=tmp_path / "run", **TINY)
    assert isinstance(model, segadapt.Model) and model.header.stage == "adapt"
    assert model.label_space.classes == ("water", "quay", "ship") and model.predictor.size == (32, 24)
    assert model.predict(np.zeros((40, 50, 3), np.uint8)).labels.shape == (40, 50)
    assert segadapt.evaluate(model, [(source / "images/0.jpg", source / "labels/0.png")], encoding="own").images == 1


def test_the_same_call_loads_what_is_there(tmp_path: Path) -> None:
    source, target = write_folders(tmp_path)
    first = segadapt.adapt(source, target, out=tmp_path / "run", **TINY)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model.safetensors")}
    second = segadapt.adapt(source, target, out=tmp_path / "run", **TINY)
    assert first.path == second.path and len(times) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    with pytest.raises(segadapt.UsageError, match="made with different settings"):
        segadapt.adapt(source, target, out=tmp_path / "run", **TINY | {"size": (24, 24)})


class Pairs(torch.utils.data.Dataset[tuple[Any, Any]]):
    """A data set of a program's own; it has a length and no end."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.full((3, 48, 64), 0.25 * (index + 1)), self.labels[index]


def test_data_sets_in_memory(tmp_path: Path) -> None:
    ids = blocks([0, 1, 255])
    source = Pairs([torch.from_numpy(ids), ids.astype(np.int64), Image.fromarray(ids.astype(np.uint8))])
    target = (np.full((48, 64, 3), 9 * k, np.uint8) for k in range(3))
    model = segadapt.adapt(source, target, {0: "sea", 1: "land"}, out=tmp_path / "run", **TINY)
    assert model.label_space.classes == ("sea", "land")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "run_data").rglob("*.png"))
    assert len(written) == 9 and written[0] == "run_data/source/images/000000.png"
    assert np.asarray(Image.open(tmp_path / written[0]))[0, 0].tolist() == [64, 64, 64]
    assert (np.asarray(Image.open(tmp_path / "run_data/source/labels/000001.png")) == ids).all()
    recorded = json.loads((tmp_path / "run/adapt/evaluation.json").read_text())
    assert set(recorded["domains"]) == {"source"}  # the target has no labels


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"source": {"folder": "x"}}, "unknown key 'folder'"),
        ({"source": {"images": "x"}}, "'root' is missing"),
        ({"source": 3}, "is a int"),
        ({"source": []}, "holds no images"),
        ({"source": [np.zeros((8, 8, 3), np.uint8)]}, "1 of 1 images have no labels"),
        ({"source": [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)))]}, "labels are float64"),
        ({"source": [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), int) - 1)]}, "write -100 and the like as 255"),
        ({"target": "gone"}, "the data folder does not exist"),
        ({"classes": "a,b,c,d"}, "has 4 names"),
        ({"method": "unet"}, "'unet' is not a method"),
    ],
)
def test_misuse_is_told(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    source, target = write_folders(tmp_path)
    with pytest.raises(segadapt.UsageError) as raised:
        segadapt.adapt(**{"source": source, "target": target, "out": tmp_path / "run"} | TINY | changed)
    assert told in str(raised.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", ["gone.png", "broken.png", "."])
def test_a_label_file_that_cannot_be_read_is_named(labels: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    pairs = [(np.zeros((8, 8, 3), np.uint8), tmp_path / labels)]
    with pytest.raises(segadapt.SegadaptError) as raised:
        segadapt.adapt(pairs, [np.zeros((8, 8, 3), np.uint8)], "a,b", out=tmp_path / "run", **TINY)
    assert str(raised.value).startswith(f"{tmp_path / labels}: ")


def test_of_a_larger_data_set_before_nothing_is_left(tmp_path: Path) -> None:
    """Else a training would read it."""
    items = [(np.full((8, 8, 3), k, np.uint8), np.full((8, 8), k, np.uint8)) for k in range(3)]
    root = tmp_path / "target"
    assert _write(items, root, "target")
    kept = (root / "images/000000.png").stat().st_mtime_ns
    (root / "images/000001.png").write_text("cut short")
    assert not _write([image for image, _ in items[:2]], root, "target")
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png")) == [
        "images/000000.png",
        "images/000001.png",
    ]
    assert (root / "images/000000.png").stat().st_mtime_ns == kept
    assert np.asarray(Image.open(root / "images/000001.png"))[0, 0, 0] == 1

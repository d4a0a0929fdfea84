"""Photographs as cameras store them and labels as painting programs write them, through every verb."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import command
from made_pictures import write_generator
from planning import without_report
from segadapt.weights.saved import load_any
from tagged_photos import STORED, UPRIGHT, write_photo
from tiny_runs import run, write_recipe

SPACE = "classes: [{name: ground, ids: {mask: 0}}, {name: road, ids: {mask: 255}}]"
MASK = np.repeat(np.array([[0], [255]], np.uint8), 64, axis=1).repeat(24, axis=0)
TRAINING = {"method": "source_only", "network": "deeplab_small", "size": [32, 24], "batch": 2, "steps": 2}


def write_domain(root: Path, orientations: list[int | None]) -> None:
    """The same photograph, stored in so many ways, with upright masks."""
    (root / "labels").mkdir(parents=True)
    for number, orientation in enumerate(orientations):
        write_photo(root / "images" / f"{number}.png", STORED[orientation or 1], orientation)
        Image.fromarray(MASK).save(root / "labels" / f"{number}.png")


def recipe(folder: Path, root: str, space: str = SPACE, **stage: Any) -> Path:
    (folder / "space.yaml").write_text(space)
    domain: dict[str, Any] = {"layout": "folder", "root": str(folder / root), "images": "images", "labels": "labels"}
    domain |= {"holdout": 1, "prepared": False}
    content = {
        "label_space": str(folder / "space.yaml"),
        "data": {"source": domain, "target": domain},
        "stages": {"source_only": TRAINING | stage},
    }
    return write_recipe(folder / f"{root}.yaml", content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on photographs of a turned camera, and one on the same photographs made upright before."""
    folder = tmp_path_factory.mktemp("trained")
    write_domain(folder / "turned", [6, 3, 8])
    write_domain(folder / "upright", [None, None, None])
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        for root in ("turned", "upright"):
            run(recipe(folder, root), folder / f"run_{root}")
    return folder


def test_training_sees_turned_photographs_upright(trained: Path) -> None:
    one, other = (load_any(trained / f"run_{root}/source_only/model.safetensors") for root in ("turned", "upright"))
    expected = other.network.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in one.network.state_dict().items())


@pytest.mark.parametrize("exif", ["turn", "raw"])
def test_every_verb_reads_them_so(exif: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, photos = trained / "run_turned", tmp_path / "photos"
    write_photo(photos / "turned.png", STORED[6], 6)
    write_photo(photos / "plain.png", UPRIGHT if exif == "turn" else STORED[6], None)
    generator = write_generator(tmp_path / "g.safetensors")
    verbs = {
        "predict": (model, photos, "--format", "overlay"),
        "stylize": (generator, photos, "--size", "16x8"),
        "pseudo-label": (model, photos, "--scales", "1", "--size", "24x32"),
    }
    for verb, arguments in verbs.items():
        told = command(capsys, verb, *arguments, "-o", tmp_path / verb, "--exif", exif)
        assert told.code == 0, told.err
        folder = tmp_path / verb / "labels" if verb == "pseudo-label" else tmp_path / verb
        turned, plain = (Image.open(folder / f"{name}.png") for name in ("turned", "plain"))
        assert np.array_equal(np.asarray(turned), np.asarray(plain)) and 0x0112 not in turned.getexif()
        if verb != "pseudo-label":
            assert turned.size == ((64, 48) if exif == "turn" else (48, 64))
    assert command(capsys, "predict", *verbs["predict"], "-o", tmp_path, "--exif", "left").code == 2


def test_evaluate_turns_or_says_what_would_fit(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = trained / "run_turned", ("--layout", "folder", "--images", "images", "--labels", "labels")
    told = {root: command(capsys, "evaluate", model, *data, "--root", trained / root) for root in ("turned", "upright")}
    assert told["turned"].code == 0 and told["turned"].out == told["upright"].out
    assert "warning" not in told["turned"].err
    raw = command(capsys, "evaluate", model, *data, "--root", trained / "turned", "--exif", "raw")
    assert raw.code == 1 and "with exif: turn they fit" in raw.errors[0]
    assert command(capsys, "evaluate", model, *data, "--root", trained / "turned", "--exif", "left").code == 2


def test_masks_read_as_train_ids_are_told_by_training_and_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    write_domain(tmp_path / "own", [None] * 3)
    run(recipe(tmp_path, "own", "[ground, road]"), tmp_path / "run")
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: in the first 2 steps all labelled pixels are 'ground', none of any other class." in told
    assert "warning: target val: all labelled pixels are 'ground'" in told
    data = ("--layout", "folder", "--root", tmp_path / "own", "--images", "images", "--labels", "labels")
    scored = command(capsys, "evaluate", tmp_path / "run", *data)
    assert scored.code == 0 and "warning: target train: all labelled pixels are 'ground'" in scored.err

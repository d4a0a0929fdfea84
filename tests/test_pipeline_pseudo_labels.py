"""The stage and the verb `pseudo_labels`: which pixels, which files, resuming; what a mask and a border leave out."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from command import assert_told, command
from forking import Forks
from made_pictures import SIZE, files, write_model, write_stages
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.data.made import with_labels
from segadapt.data.reading import read_rgb
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.errors import Stopped
from segadapt.inference.predictor import OutputSizes, Predictor, ViewRules
from segadapt.refinement import refined
from segadapt.weights.saved import load_model
from tiny_runs import run

CITY19 = load_label_space("cityscapes19")
Labels = NDArray[np.uint8]


def maps(stage: Path) -> dict[str, tuple[Labels, Labels, Labels]]:
    """Place -> labels, arg-max and confidence, each (H, W)."""
    places = sorted(path.relative_to(stage / "labels").as_posix() for path in (stage / "labels").rglob("*.png"))
    kinds = ("labels", "argmax", "confidence")
    return {place: tuple(np.asarray(Image.open(stage / k / place)) for k in kinds) for place in places}  # type: ignore[misc]


def stacked(stage: Path) -> tuple[Labels, Labels, Labels]:
    """The same of all images, (N, H, W)."""
    labels, argmax, confidence = (np.stack(kind) for kind in zip(*maps(stage).values(), strict=True))
    return labels, argmax, confidence


def result(stage: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((stage / "result.json").read_text())
    return content


def test_the_most_confident_pixels_of_each_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(write_stages(tmp_path, pseudo_labels={"keep": 0.3, "certain": 0.8}), tmp_path / "run")
    stage = tmp_path / "run/pseudo_labels"
    labels, argmax, confidence = stacked(stage)
    assert labels.shape == (6, SIZE[1], SIZE[0]) and labels.dtype == np.uint8
    found, classes = result(stage), np.unique(argmax).tolist()
    assert len(classes) > 2
    for number, name in enumerate(CITY19.classes):
        if number not in classes:
            assert found["kept"][name] is None and found["thresholds"][name] is None and found["share"][name] == 0
            continue
        of_class = confidence[argmax == number]
        least = min(np.sort(of_class)[::-1][int(np.ceil(0.3 * of_class.size)) - 1], 204)  # 0.8 · 255
        kept = labels[argmax == number] == number
        np.testing.assert_array_equal(kept, of_class >= least)
        assert found["kept"][name] == pytest.approx(kept.mean()) and kept.mean() >= 0.3
        assert found["share"][name] == pytest.approx((labels == number).mean())
        assert found["thresholds"][name] == pytest.approx(least / 255)
    assert set(np.unique(labels[labels != argmax])) == {IGNORE}
    assert found["labelled"] == pytest.approx((labels != IGNORE).mean())
    assert (found["images"], found["used_target_labels"]) == (6, None)
    sheet = Image.open(stage / "contact_sheet.png")
    assert sheet.width > 3 * 480 and sheet.height > 4 * 240
    said = capfd.readouterr().err
    assert "6 images through the network, 0 were already done" in said and "% of the class kept" in said


@pytest.mark.numeric
def test_files_hold_what_the_predictor_says(tmp_path: Path) -> None:
    run(write_stages(tmp_path, pseudo_labels={"mirror": False}), tmp_path / "run")
    network = load_model(tmp_path / "model.safetensors").network
    predictor = Predictor(network, SIZE, scales=(1, 1.5))
    for place, (_, argmax, confidence) in maps(tmp_path / "run/pseudo_labels").items():
        image = Image.open(tmp_path / "data/cityscapes/leftImg8bit/train" / place)
        assert image.size != SIZE
        probabilities = predictor.probabilities(np.asarray(image), SIZE)
        np.testing.assert_array_equal(argmax, probabilities.argmax(0))
        np.testing.assert_allclose(confidence / 255, probabilities.max(0), atol=0.5 / 255 + 1e-6)
        coloured = Image.open(tmp_path / "run/pseudo_labels/labels" / place)
        assert coloured.mode == "P"
        assert coloured.getpalette()[: 3 * 19] == CITY19.colors.ravel().tolist()  # type: ignore[index]


@pytest.mark.numeric
def test_refined_labels(tmp_path: Path) -> None:
    """What the predictor says, refined along the edges of the image that the network saw."""
    run(write_stages(tmp_path, pseudo_labels={"scales": [1], "mirror": False, "refine": 3}), tmp_path / "run")
    predictor = Predictor(load_model(tmp_path / "model.safetensors").network, SIZE)
    differ = 0
    for place, (_, argmax, confidence) in maps(tmp_path / "run/pseudo_labels").items():
        seen = np.array(read_rgb(tmp_path / "data/cityscapes/leftImg8bit/train" / place, SIZE))
        plain = torch.from_numpy(predictor.probabilities(seen, SIZE))[None]
        expected = refined(torch.from_numpy(seen).permute(2, 0, 1)[None], plain, 3)[0]
        np.testing.assert_array_equal(argmax, expected.argmax(0))
        np.testing.assert_allclose(confidence / 255, expected.amax(0), atol=0.5 / 255 + 1e-6)
        differ += int((plain[0].argmax(0).numpy() != argmax).sum())
    assert differ > 0


@pytest.mark.numeric
def test_official_keeps_every_pixel_of_the_published_views(tmp_path: Path) -> None:
    run(write_stages(tmp_path, pseudo_labels={"official": True}), tmp_path / "run")
    labels, argmax, _ = stacked(tmp_path / "run/pseudo_labels")
    np.testing.assert_array_equal(labels, argmax)
    found = result(tmp_path / "run/pseudo_labels")
    assert found["settings"]["select"] == "all" and found["labelled"] == 1
    assert found["settings"]["quirks"] == {"quadrants": True, "softmax_order": True}
    network = load_model(tmp_path / "model.safetensors").network
    rules = ViewRules(quadrants=True, softmax_order=True)
    predictor = Predictor(network, SIZE, scales=(1, 1.5), mirror=True, rules=rules)
    first = sorted((tmp_path / "data/cityscapes/leftImg8bit/train").rglob("*.png"))[0]
    np.testing.assert_array_equal(argmax[0], predictor.labels(np.asarray(Image.open(first)), SIZE))
    plain = Predictor(network, SIZE, scales=(1, 1.5), mirror=True)
    assert (plain.labels(np.asarray(Image.open(first)), SIZE) != argmax[0]).any()


def test_a_mask_and_a_border_are_left_out_and_do_not_count(tmp_path: Path) -> None:
    mask = np.full((24, 48, 3), 255, np.uint8)  # half of SIZE: stretched
    mask[18:] = 0
    Image.fromarray(mask).save(tmp_path / "ego.png")
    settings = {"mask": str(tmp_path / "ego.png"), "border": 5, "certain": 1.0}
    run(write_stages(tmp_path, pseudo_labels=settings), tmp_path / "run")
    labels, argmax, confidence = stacked(tmp_path / "run/pseudo_labels")
    inside = np.zeros(labels.shape[1:], np.bool_)
    inside[5:36, 5:-5] = True
    assert (labels[:, ~inside] == IGNORE).all()
    found = result(tmp_path / "run/pseudo_labels")
    for number in np.unique(argmax[:, inside]).tolist():
        of_class = confidence[:, inside][argmax[:, inside] == number]
        least = np.sort(of_class)[::-1][int(np.ceil(0.5 * of_class.size)) - 1]
        assert found["thresholds"][CITY19.classes[number]] == pytest.approx(least / 255)
    assert found["labelled"] == pytest.approx((labels != IGNORE).mean())


def test_a_killed_stage_resumes_exactly(forks: Forks, tmp_path: Path) -> None:
    settings = {"scales": [1, 2, 3], "size": [192, 96]}
    recipe, out = write_stages(tmp_path, pseudo_labels=settings), tmp_path / "killed"
    begun = "pseudo_labels/confidence/*/*.png"
    arguments = ["run", str(recipe), "--threads", "1", "--out", str(out)]
    forks.kill_when(lambda: list(out.glob(begun)), arguments, tmp_path / "said")
    assert not list(out.glob("pseudo_labels/labels/*/*.png"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("pseudo_labels/confidence/*/*.png")}
    run(recipe, out, "runtime.threads=1")
    run(recipe, tmp_path / "whole", "runtime.threads=1")
    assert files(out / "pseudo_labels") == files(tmp_path / "whole/pseudo_labels")
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_a_signal_ends_the_image_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, seen = write_stages(tmp_path, pseudo_labels={}), []
    call = Predictor.confident_label_maps

    def interrupted(self: Predictor, images: Sequence[Labels], sizes: OutputSizes) -> object:
        seen.append(len(images))
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, images, sizes)

    monkeypatch.setattr(Predictor, "confident_label_maps", interrupted)
    with pytest.raises(Stopped, match="4 of 6 images left to do"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run/pseudo_labels/labels").exists()
    run(recipe, tmp_path / "run")
    assert seen == [1] * 6
    assert (tmp_path / "run/pseudo_labels/result.json").exists()


def test_a_model_of_other_classes_labels_those_that_it_shares(tmp_path: Path) -> None:
    """A 16-class model on a 19-class target: the same names; a class that the target has not is left out."""
    recipe = write_stages(tmp_path, pseudo_labels={"official": True})
    write_model(tmp_path / "model.safetensors", load_label_space("cityscapes16"))
    run(recipe, tmp_path / "nineteen")
    model = load_model(tmp_path / "model.safetensors")
    rules = ViewRules(quadrants=True, softmax_order=True)
    predictor = Predictor(model.network, SIZE, scales=(1, 1.5), mirror=True, rules=rules)
    first = sorted((tmp_path / "data/cityscapes/leftImg8bit/train").rglob("*.png"))[0]
    own = predictor.labels(np.asarray(Image.open(first)), SIZE)
    labels = stacked(tmp_path / "nineteen/pseudo_labels")[0][0]
    for number, name in enumerate(model.header.space.classes):
        assert set(np.unique(labels[own == number])) <= {CITY19.classes.index(name)}

    run(recipe, tmp_path / "camvid", "label_space=camvid11", "data.source.unknown_ids=ignore")
    assert result(tmp_path / "camvid/pseudo_labels")["label_space"] == "camvid11"
    assert np.unique(stacked(tmp_path / "camvid/pseudo_labels")[0]).tolist()[-1] in {*range(11), IGNORE}


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_stages(tmp_path, pseudo_labels={"scales": [1, 0.75, 1.25, 1.5]})
    run(recipe, tmp_path / "run")
    model, images = tmp_path / "model.safetensors", tmp_path / "data/cityscapes/leftImg8bit/train"
    arguments = ("pseudo-label", model, images, "-o", tmp_path / "out")
    told = command(capsys, *arguments, "--device", "cpu")
    assert told.code == 0 and told.out.endswith(f"6 images labelled: {tmp_path / 'out'}\n")
    assert "% of the class kept" in told.out
    for kind in ("labels", "argmax", "confidence"):
        assert files(tmp_path / "out" / kind) == files(tmp_path / "run/pseudo_labels" / kind)
    assert (tmp_path / "out/contact_sheet.png").is_file()

    told = command(capsys, *arguments, "--select", "all", "--border", "4")  # the network is not asked again
    assert "0 images through the network, 6 were already done" in told.err
    labels, argmax, _ = stacked(tmp_path / "out")
    np.testing.assert_array_equal(labels[:, 4:-4, 4:-4], argmax[:, 4:-4, 4:-4])
    assert (labels[:, :4] == IGNORE).all()

    for option, value, what in (
        ("--keep", "1.5", "should be less than or equal to 1"),
        ("--select", "some", "should be 'class_confidence' or 'all'"),
        ("--border", "-1", "should be greater than or equal to 0"),
        ("--refine", "0", "should be greater than or equal to 1"),
    ):
        assert_told(command(capsys, *arguments, option, value), 2, option, what, "in --help.")
    missing = command(capsys, *arguments, "--mask", tmp_path / "no.png")
    assert_told(missing, 2, str(tmp_path / "no.png"), "the mask does not exist", "Check the path.")


def test_flat_labels_are_what_the_published_self_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Grey train ids, side by side, as NAME_PseudoLabel.png; our own self-training reads them too."""
    write_stages(tmp_path)
    images = tmp_path / "data/cityscapes/leftImg8bit/train"
    arguments = ["pseudo-label", tmp_path / "model.safetensors", images, "--scales", "1", "--no-mirror", "-o"]
    assert command(capsys, *arguments, tmp_path / "nested").code == 0
    assert command(capsys, *arguments, tmp_path / "flat", "--flat").code == 0
    nested = {path.stem: path for path in (tmp_path / "nested/labels").rglob("*.png")}
    flat = sorted((tmp_path / "flat/labels").iterdir())
    assert [path.name for path in flat] == sorted(f"{stem}_PseudoLabel.png" for stem in nested)
    for path in flat:
        with Image.open(path) as labels, Image.open(nested[path.stem.removesuffix("_PseudoLabel")]) as same:
            assert labels.mode == "L"
            np.testing.assert_array_equal(np.asarray(labels), np.asarray(same))
    settings = DomainSettings(layout="cityscapes", root=tmp_path / "data/cityscapes")
    target = open_domain(settings, CITY19, "train", SIZE, labels=False)
    assert [pair.label for pair in with_labels(target, tmp_path / "flat/labels", CITY19).pairs] == [
        tmp_path / "flat/labels" / f"{pair.image.stem}_PseudoLabel.png" for pair in target.pairs
    ]
    twin = tmp_path / "twice/a" / flat[0].name.replace("_PseudoLabel", "")
    for folder in (twin.parent, twin.parents[1] / "b"):
        folder.mkdir(parents=True)
        Image.new("RGB", SIZE).save(folder / twin.name)
    arguments[2] = twin.parents[1]
    assert_told(
        command(capsys, *arguments, tmp_path / "two", "--flat"),
        2,
        str(twin.parents[1] / "b" / twin.name),
        "has the same name as",
        "or label one folder after the other.",
    )


def test_a_flat_stage_feeds_self_training(tmp_path: Path) -> None:
    trained = {"method": "self_training", "labels": "@pseudo_labels", "steps": 1, "evaluate_every": 0}
    recipe = write_stages(tmp_path, pseudo_labels={"flat": True, "scales": [1]}, trained=trained)
    run(recipe, tmp_path / "run")
    assert all(path.stem.endswith("_PseudoLabel") for path in (tmp_path / "run/pseudo_labels/labels").iterdir())
    assert (tmp_path / "run/trained/model.safetensors").is_file()

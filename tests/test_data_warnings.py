"""What `data check` warns of, case by case: each data set can be trained on, and should not be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from layouts import picture
from segadapt.cli.data import app
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import DomainSettings
from segadapt.data.statistics import one_class_only
from segadapt.data.tools.check import Findings, check_split
from segadapt.data.tools.check_warnings import warnings_about, warnings_between

SPACE = LabelSpace.from_dict({"name": "two", "classes": ["ground", "crack"]})
BOTH = np.repeat(np.array([[0], [1]], np.uint8), 4, axis=1).repeat(4, axis=0)


def write(root: Path, labels: dict[str, np.ndarray | None]) -> None:
    """Images of a name each, of their own content, with these label maps."""
    for number, (name, label) in enumerate(labels.items()):
        image, stem = root / "images" / name, name.rpartition(".")[0]
        image.parent.mkdir(parents=True, exist_ok=True)
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(picture(np.random.default_rng(number), (4, 8))).save(image)
        if label is not None:
            Image.fromarray(label).save(root / "labels" / f"{stem}.png")


def settings(root: Path, **more: object) -> DomainSettings:
    given = {"layout": "folder", "root": root, "images": "images", "labels": "labels", **more}
    return DomainSettings.model_validate(given)


def check(root: Path, split: str = "train", space: LabelSpace = SPACE, **more: Any) -> Findings:
    return check_split(settings(root, **more), space, split)


def only(root: Path, **more: Any) -> str:
    """The one warning about a split that is sound otherwise."""
    findings = check(root, **more)
    (warning,) = warnings_about(findings)
    assert findings.sound
    return warning


def test_what_is_well_has_no_warning(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH, "b.png": BOTH})
    assert warnings_about(check(tmp_path)) == []


def test_masks_of_0_and_255_are_told_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH * 255, "b.png": BOTH * 255})
    assert "masks of 0 and 255" in only(tmp_path) and "ids: {mask: 255}" in only(tmp_path)
    classes = ["ground", {"name": "crack", "ids": {"mask": 255}}]
    half = LabelSpace.from_dict({"name": "two", "classes": classes, "ignored_ids": {"mask": [0]}})
    assert "all labelled pixels are 'crack'" in only(tmp_path, space=half)
    classes[0] = {"name": "ground", "ids": {"mask": 0}}
    assert warnings_about(check(tmp_path, space=LabelSpace.from_dict({"name": "two", "classes": classes}))) == []


@pytest.mark.parametrize(("value", "told"), [(255, "no labelled pixel"), (0, "all labelled pixels are 'ground'")])
def test_one_class_or_none(value: int, told: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": np.full((8, 4), value, np.uint8)})
    assert told in only(tmp_path)


def test_all_ignored_by_an_encoding_of_ones_own(tmp_path: Path) -> None:
    classes = [{"name": "ground", "ids": {"own": 1}}, {"name": "crack", "ids": {"own": 2}}]
    space = LabelSpace.from_dict({"name": "own", "classes": classes, "ignored_ids": {"own": [7]}})
    write(tmp_path, {"a.png": np.full((8, 4), 7, np.uint8)})
    assert only(tmp_path, space=space).startswith("no labelled pixel has a class: all are ignored")


def test_classes_that_do_not_occur(tmp_path: Path) -> None:
    three = LabelSpace.from_dict({"name": "three", "classes": ["ground", "crack", "patch"]})
    write(tmp_path, {"a.png": BOTH})
    assert only(tmp_path, space=three) == "no pixel of patch (1 of 3 classes)"


def test_labels_with_nothing_in_them_and_shares(tmp_path: Path) -> None:
    empty = np.full_like(BOTH, 255)
    write(tmp_path, {"a.png": BOTH, "b.png": empty, "c.png": empty})
    assert warnings_about(check(tmp_path)) == [
        "2 labels have no pixel with a class (b.png, c.png)",
        "66.7 % of the pixels are ignored",
    ]


def test_unknown_ids_that_are_ignored(tmp_path: Path) -> None:
    strange = BOTH.copy()
    strange[0, 0] = 77
    write(tmp_path, {"a.png": strange})
    assert only(tmp_path, unknown_ids="ignore").startswith("3.1 % of the pixels have ids that the encoding does not")
    assert not check(tmp_path).sound


def test_equal_images_shared_labels_orphans_and_doubles(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH, "b.png": BOTH, "c.png": BOTH, "0.png": BOTH, "0.bmp": BOTH})
    Image.open(tmp_path / "images" / "a.png").save(tmp_path / "images" / "b.png", compress_level=0)  # other bytes
    Image.fromarray(BOTH).save(tmp_path / "labels" / "z.png")
    Image.fromarray(BOTH).save(tmp_path / "labels" / "c.tif")
    assert warnings_about(check(tmp_path)) == [
        "images that are equal in every pixel: a.png = b.png",
        "images that share one label: 0.bmp and 0.png",
        "two labels for one image, of which the first is read: c.png and c.tif",
        "1 label belongs to no image (z.png)",
    ]


def test_images_listed_twice_and_val_within_train(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH, "b.png": BOTH, "c.png": BOTH})
    Image.open(tmp_path / "images" / "a.png").save(tmp_path / "images" / "copy.png")
    Image.fromarray(BOTH).save(tmp_path / "labels" / "copy.png")
    (tmp_path / "val.txt").write_text("b.png\ncopy.png\nb.png\n")
    (tmp_path / "train.txt").write_text("a.png\nc.png\n")
    val = check(tmp_path, "val", val_list=tmp_path / "val.txt")
    assert warnings_about(val) == ["1 image is listed more than once (b.png)"]
    assert warnings_between([check(tmp_path), val]) == [
        "2 images of val, 3 in all, can be found in train too (b.png, copy.png)"
    ]
    apart = check(tmp_path, train_list=tmp_path / "train.txt")
    assert warnings_between([apart, val]) == [
        "1 image of val, 3 in all, can be found in train too (copy.png, which is a.png of train)"
    ]


def test_the_command_says_so_and_ends_well(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH * 255, "b.png": BOTH * 255})
    (tmp_path / "two.yaml").write_text("[ground, crack]")
    (tmp_path / "val.txt").write_text("b.png\n")
    options = f"--label-space {tmp_path}/two.yaml --images images --labels labels --val-list {tmp_path}/val.txt"
    result = CliRunner().invoke(app, ["check", "folder", str(tmp_path), *options.split(), "--workers", "1"])
    assert result.exit_code == 0 and "all sound" not in result.output
    assert result.output.count("  warning: the labels are masks of 0 and 255") == 2
    assert "\nwarning: 1 image of val, 1 in all, can be found in train too (b.png)" in result.output


def test_the_verdict_is_last_and_counts_what_splits_share(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in (1, 2, 3, 10)]
    write(tmp_path, dict.fromkeys(names, BOTH))
    (tmp_path / "two.yaml").write_text("[ground, crack]")
    (tmp_path / "val.txt").write_text("2.png\n")
    options = f"--label-space {tmp_path}/two.yaml --images images --labels labels --val-list {tmp_path}/val.txt"
    arguments = ["check", "folder", str(tmp_path), *options.split(), "--workers", "1"]
    lines = CliRunner().invoke(app, arguments).output.splitlines()
    warnings = [line for line in lines if "warning: " in line]
    assert "can be found in train too" in warnings[-1]
    assert lines[-1] == f"usable, {len(warnings)} warning{'s' * (len(warnings) > 1)}"
    for name in ("10.png", "2.png"):
        (tmp_path / "images" / name).write_text("no picture")
    lines = CliRunner().invoke(app, [*arguments, "--split", "train"]).output.splitlines()
    broken = [line for line in lines if "broken: " in line]
    assert ["/2.png" in line for line in broken] == [True, False] and lines[-1].startswith("2 broken, 0 unknown labels")


def test_shares_of_images_where_sizes_differ(tmp_path: Path) -> None:
    """They were of the images that are not broken, counted over all: 133 %."""
    write(tmp_path, {f"{k}.png": BOTH for k in range(4)})
    Image.fromarray(BOTH.repeat(2, axis=0)).save(tmp_path / "labels" / "0.png")
    findings = check(tmp_path)
    assert list(findings.broken) == ["0.png"]
    assert [images for _, _, images in findings.shares()] == [100, 100, 0, 0]


def test_a_stretched_label_that_fits_before_the_turn(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": BOTH})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(np.random.default_rng(0), (4, 8))).save(tmp_path / "images" / "a.png", exif=exif)
    warning = only(tmp_path, size_mismatch="stretch")
    assert warning == "1 label has the size of the image only with exif: raw (a.png)"
    assert warnings_about(check(tmp_path, size_mismatch="stretch", exif="raw")) == []


def test_one_class_only_in_words() -> None:
    assert one_class_only([3, 1], ["a", "b"]) is None
    assert one_class_only([3, 0], ["a", "b"]) == "all labelled pixels are 'a', none of any other class"
    assert one_class_only([0, 0], ["a", "b"]) == "no labelled pixel has a class: all are ignored"

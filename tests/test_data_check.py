"""`data check` counts what is there and names what is broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from layouts import write_layout
from segadapt.cli.data import app
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.data.settings import DomainSettings
from segadapt.data.tools.check import check_split, default_splits
from segadapt.data.tools.contact_sheet import contact_sheet
from segadapt.errors import SegadaptError, UsageError

SPACE = load_label_space("cityscapes19")


def settings(root: Path, layout: str = "gta5", **more: object) -> DomainSettings:
    return DomainSettings.model_validate({"layout": layout, "root": root, **more})


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *(str(part) for part in arguments), "--workers", "1"])


def test_shares_are_counted_over_all_labels(tmp_path: Path) -> None:
    raw = write_layout(tmp_path, "gta5")
    findings = check_split(settings(tmp_path), SPACE, "train")
    every = np.concatenate([ids.ravel() for ids in raw.values()])
    assert findings.sound and findings.images == 3 and dict(findings.sizes) == {(64, 48): 3}
    shares = {name: (pixels, images) for name, pixels, images in findings.shares()}
    assert shares["road"][0] == pytest.approx(100 * (every == 7).mean())
    assert shares["car"][1] == pytest.approx(100 * np.mean([(ids == 26).any() for ids in raw.values()]))
    assert findings.pixels[IGNORE] == np.isin(every, [0, 34, 255]).sum()
    assert sum(pixels for pixels, _ in shares.values()) == pytest.approx(100)


def test_processes_find_the_same(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    alone, together = (check_split(settings(tmp_path), SPACE, "train", workers=workers) for workers in (1, 2))
    assert np.array_equal(alone.pixels, together.pixels) and np.array_equal(alone.occurs_in, together.occurs_in)


def test_everything_broken_is_named_with_its_reason(tmp_path: Path) -> None:
    raw = write_layout(tmp_path, "gta5")
    image = tmp_path / "images" / "00001.png"
    image.write_bytes(image.read_bytes()[:-100])
    Image.new("L", (64, 40), 7).save(tmp_path / "labels" / "00002.png")
    (tmp_path / "labels" / "00010.png").unlink()
    Image.fromarray(np.full((48, 64), 200, np.uint8)).save(tmp_path / "images" / "00011.png")
    strange = raw["00001.png"].copy()
    strange[0, :5] = 99
    strange[1, :9] = 77
    Image.fromarray(strange).save(tmp_path / "labels" / "00011.png")
    findings = check_split(settings(tmp_path), SPACE, "train")
    assert list(findings.broken) == ["00001.png", "00002.png", "00010.png"] and not findings.sound
    reasons = [" ".join(findings.broken[name]) for name in findings.broken]
    assert "images/00001.png: cannot be read as an image" in reasons[0]
    assert "is 64×40, but its image" in reasons[1] and "00002.png is 64×48" in reasons[1]
    assert "00010.png: has no label" in reasons[2]
    assert {value: (found.pixels, found.files, found.first_files) for value, found in findings.unknown.items()} == {
        "99": (5, 1, ["00011.png"]),
        "77": (9, 1, ["00011.png"]),
    }
    result = command("gta5", tmp_path)
    assert isinstance(result.exception, SegadaptError) and result.exception.exit_code == 1
    assert "5 problems found" in str(result.exception)
    assert "unknown label 77: 9 pixels in 1 files (00011.png)" in result.output
    assert all(reason in result.output for reason in reasons)


def test_ignored_unknown_ids_and_stretched_sizes_are_sound(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    Image.new("L", (64, 40), 99).save(tmp_path / "labels" / "00002.png")
    lenient = settings(tmp_path, unknown_ids="ignore", size_mismatch="stretch")
    findings = check_split(lenient, SPACE, "train")
    assert findings.sound and findings.unknown["99"].pixels == 64 * 40


def test_images_alone_and_splits(tmp_path: Path) -> None:
    write_layout(tmp_path, "cityscapes")
    (tmp_path / "leftImg8bit" / "train").rename(tmp_path / "leftImg8bit" / "val")
    only_val = settings(tmp_path, "cityscapes")
    assert default_splits(only_val) == ["val"]
    with pytest.raises(UsageError, match=r"none of the 3 images of split 'val' has a label"):
        check_split(only_val, SPACE, "val")
    assert check_split(only_val, SPACE, "val", labels=False).sound
    result = command("cityscapes", tmp_path, "--unlabelled")
    assert result.exit_code == 0 and "split val: 3 images, labels not checked" in result.output


def test_the_aspect_warning_suggests_a_size_that_fits(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5", size=(64, 48))
    findings = check_split(settings(tmp_path), SPACE, "train")
    assert findings.aspect_warning((640, 480)) is None and findings.aspect_warning((700, 480)) is None
    warning = findings.aspect_warning((1024, 512))
    assert warning is not None and "1.50 times wider" in warning and "840×624 keeps their aspect" in warning
    assert "aspect: 1024×512" in command("gta5", tmp_path, "--size", "1024x512").output


def test_the_contact_sheet_shows_images_labels_and_a_legend(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    for name in ("00001", "00002", "00010"):
        Image.new("RGB", (64, 48), (50, 90, 200)).save(tmp_path / "images" / f"{name}.png")
        Image.new("L", (64, 48), 7).save(tmp_path / "labels" / f"{name}.png")
    out = tmp_path / "look"
    result = command("gta5", tmp_path, "--out", out, "--samples", 2)
    assert result.exit_code == 0 and str(out / "train.png") in result.output
    sheet = np.asarray(Image.open(out / "train.png")).astype(int)
    assert (np.abs(sheet - [50, 90, 200]).max(axis=-1) <= 1).sum() == 2 * 480 * 360  # two images, enlarged
    road = np.array([50, 90, 200]) * 0.45 + np.array([128, 64, 128]) * 0.55
    assert (np.abs(sheet - road).max(axis=-1) <= 2).sum() == 2 * 480 * 360  # their labels, over them
    for color in SPACE.colors:
        assert (sheet == color).all(axis=-1).sum() > 200  # the legend
    (tmp_path / "images" / "00001.png").write_bytes(b"broken")
    findings = check_split(settings(tmp_path), SPACE, "train")
    assert contact_sheet(findings, 6).size == contact_sheet(findings, 2).size  # the broken one is left out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gta", "ROOT"), "unknown layout 'gta'"),
        (("gta5", "ROOT", "--label-space", "city"), "unknown label space 'city'"),
        (("gta5", "ROOT", "--encoding", "x"), "no encoding 'x'"),
        (("gta5", "ROOT", "--unknown-ids", "skip"), "'error' or 'ignore'"),
        (("gta5", "ROOT", "--size", "big"), "'big' is not a size"),
        (("gta5", "ROOT", "--holdout", "-1"), "greater than or equal to 0"),
        (("gta5", "ROOT/nowhere"), "the data folder does not exist"),
    ],
)
def test_misuse(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    result = command(*(part.replace("ROOT", str(tmp_path)) for part in arguments))
    assert isinstance(result.exception, UsageError) and told in str(result.exception)


def test_spaces_lists_what_ships() -> None:
    result = CliRunner().invoke(app, ["spaces"])
    for name in ("cityscapes19", "cityscapes16", "camvid11", "carla_camvid10"):
        assert f"{name}: " in result.output

"""Pictures that say in EXIF how they are to be turned: read upright everywhere, or as they are stored where asked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from layouts import FOLDERS, write_layout
from segadapt.cli.data import app
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.orientation import Exif
from segadapt.data.reading import LabelReader, picture_sizes, read_rgb
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.tools.prepare import plan
from segadapt.errors import SegadaptError
from segadapt.inference.pixels import rgb_pixels
from tagged_photos import STORED, UPRIGHT, write_photo

SPACE = load_label_space("cityscapes19")
SIZE = (40, 24)


@pytest.mark.parametrize("orientation", list(STORED))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_eight_orientations_are_turned_upright_or_kept(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    write_photo(path, STORED[orientation], orientation)
    assert np.array_equal(np.asarray(read_rgb(path)), UPRIGHT)
    assert np.array_equal(np.asarray(read_rgb(path, exif="raw")), STORED[orientation])
    with Image.open(path) as image:  # and so is a picture that somebody has opened, and hands over with its tag
        assert np.array_equal(rgb_pixels(image), UPRIGHT)
    sizes = picture_sizes(path)
    assert sizes.turn == (64, 48) and sizes.raw == STORED[orientation].shape[1::-1]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_jpeg_and_webp_are_as_pillow_transposes_them(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    write_photo(path, STORED[6], 6)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(np.asarray(read_rgb(path)), expected) and expected.shape == UPRIGHT.shape
    assert np.array_equal(np.asarray(read_rgb(path, exif="raw")), np.asarray(Image.open(path)))
    assert picture_sizes(path) == ((48, 64), (64, 48), True)


def test_what_was_read_saves_no_tag(tmp_path: Path) -> None:
    for name, orientation in (("upright.jpg", 1), ("lying.png", 6), ("lying.tif", 8), ("lying.webp", 5)):
        write_photo(tmp_path / name, STORED[orientation], orientation)
        for exif in ("turn", "raw"):
            for copy in ("copy.png", "copy.tif", "copy.jpg"):
                read_rgb(tmp_path / name, exif=exif).save(tmp_path / copy)
                assert 0x0112 not in Image.open(tmp_path / copy).getexif(), (name, exif, copy)


@pytest.mark.parametrize("value", [0, 9, 700])
def test_a_tag_that_means_nothing_turns_nothing(value: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "photo.png")), UPRIGHT)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "photo.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "photo.png")), UPRIGHT)


def test_labels_with_a_tag_are_treated_as_images_are(tmp_path: Path) -> None:
    ids = np.repeat(np.array([[7], [26], [0]], np.uint8), 4, axis=1)
    for name in ("label.png", "label.tif"):
        write_photo(tmp_path / name, np.rot90(ids), 6)
        assert np.array_equal(LabelReader(SPACE, "cityscapes").read_raw(tmp_path / name), ids)
        raw = LabelReader(SPACE, "cityscapes", exif="raw").read_raw(tmp_path / name)
        assert np.array_equal(raw, np.rot90(ids))


def rig(root: Path, labels_upright: bool = True) -> None:
    """Two photographs of a camera that was held upright and turned, with labels made on one of both."""
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6)):
        write_photo(root / "images" / name, STORED[orientation], orientation)
        ids = np.zeros((48, 64), np.uint8)
        ids[:24] = 1
        ids = ids if labels_upright or orientation == 1 else np.rot90(ids)
        label = root / "labels" / name.replace("jpg", "png")
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(ids)).save(label)


def opened(root: Path, exif: Exif = "turn", prepared: bool = False) -> SegmentationDataset:
    given = {"layout": "folder", "root": root, "images": "images", "labels": "labels", "exif": exif}
    return open_domain(DomainSettings.model_validate({**given, "prepared": prepared}), SPACE, "train", SIZE)


def test_a_data_set_reads_upright_and_its_labels_fit(tmp_path: Path) -> None:
    rig(tmp_path)
    dataset = opened(tmp_path)
    for index in (0, 1):
        assert np.abs(dataset.image(index).astype(int) - UPRIGHT).mean() < 4  # a JPEG
        assert (dataset.label(index)[:24] == 1).all() and dataset.read(index).image.shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("upright", "exif", "told"),
    [
        (True, "raw", r"b.png: is 64×48, but its image .*b.jpg is 48×64 before turning .* exif: turn \(--exif turn\)"),
        (False, "turn", r"b.png: is 48×64, but its image .*b.jpg is 64×48 after turning .* exif: raw \(--exif raw\)"),
    ],
)
def test_labels_that_fit_only_the_other_are_explained(upright: bool, exif: Exif, told: str, tmp_path: Path) -> None:
    rig(tmp_path, upright)
    with pytest.raises(SegadaptError, match=told):
        opened(tmp_path, exif).read(1)
    with pytest.raises(SegadaptError, match=told):
        opened(tmp_path, exif).label(1)
    other: Exif = "turn" if exif == "raw" else "raw"
    assert opened(tmp_path, other).read(1).label is not None
    arguments = ["check", "folder", str(tmp_path), "--images", "images", "--labels", "labels", "--workers", "1"]
    assert CliRunner().invoke(app, [*arguments, "--exif", exif]).exit_code == 1
    assert CliRunner().invoke(app, [*arguments, "--exif", other]).exit_code == 0


def test_prepared_copies_and_digests_tell_the_two_apart(tmp_path: Path) -> None:
    rig(tmp_path)
    for place in ("images/b.jpg", "labels/b.png"):
        (tmp_path / place).unlink()
    write_photo(tmp_path / "images" / "a.jpg", STORED[3], 3)  # upside down: its size does not tell
    read = {exif: opened(tmp_path, exif).read(0).image for exif in ("turn", "raw")}
    assert not np.array_equal(read["turn"], read["raw"])
    for exif in ("turn", "raw"):
        plan(opened(tmp_path, exif), "folder", None).run(1)
        copies = opened(tmp_path, exif, prepared=True)
        assert copies.image_copies is not None and copies.label_copies is not None
        assert np.array_equal(copies.read(0).image, read[exif])
    assert opened(tmp_path, "turn").digest != opened(tmp_path, "raw").digest


def test_pictures_without_a_tag_are_the_same_under_both(tmp_path: Path) -> None:
    """So the published data, which has none, is read as published whatever the option says."""
    write_layout(tmp_path, "camvid")
    for path in sorted((tmp_path / FOLDERS["camvid"][0]).iterdir()):
        plain = Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        for exif in ("turn", "raw"):
            assert np.array_equal(np.asarray(read_rgb(path, SIZE, exif)), np.asarray(plain))

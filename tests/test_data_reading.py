"""Samples equal the published reading exactly, whatever the files are; broken files are named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from layouts import ENCODING, FOLDERS, IDS, NAMES, picture, png16, write_layout
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.data.reading import LabelReader, read_rgb
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.errors import SegadaptError

SIZE = (40, 24)
SPACE = load_label_space("cityscapes19")


def opened(layout: str, root: Path, **more: object) -> SegmentationDataset:
    if layout == "folder":
        more = {"images": FOLDERS["folder"][0], "labels": FOLDERS["folder"][1], "encoding": "train"} | more
    given = {"layout": layout, "root": root, "prepared": False, **more}
    return open_domain(DomainSettings.model_validate(given), SPACE, "train", SIZE)


@pytest.mark.parametrize("layout", list(NAMES))
def test_every_layout_reads_as_published(layout: str, tmp_path: Path) -> None:
    """Image: RGB, bicubic. Label: raw ids nearest, then mapped. Written out here as the published programs have it."""
    raw_by_name = write_layout(tmp_path, layout)
    dataset = pickle.loads(pickle.dumps(opened(layout, tmp_path)))
    mapping = {raw & 0xFF: int(SPACE.table(ENCODING[layout])[raw & 0xFF]) for raw in IDS[ENCODING[layout]]}
    assert len(dataset) == 3
    for index, (name, raw) in enumerate(raw_by_name.items()):
        sample = dataset.read(index)
        image = Image.open(tmp_path / FOLDERS[layout][0] / name).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        nearest = np.asarray(Image.fromarray(raw).resize(SIZE, Image.Resampling.NEAREST))
        expected = np.full(nearest.shape, 255)
        for old, new in mapping.items():
            expected[nearest == old] = new
        assert sample.name == name and sample.image.dtype == sample.label.dtype == np.uint8
        assert np.array_equal(sample.image, np.asarray(image)) and np.array_equal(sample.label, expected)
        assert sample.image.shape == (24, 40, 3)
        full = np.vectorize(mapping.__getitem__)(raw)
        assert np.array_equal(dataset.label(index), full) and dataset.image(index).shape == (48, 64, 3)


@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 2, 0, 3, 1)])
def test_class_ids_of_16_bit_labels_survive_every_png_filter(filters: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pixels = np.stack([rng.integers(0, 23, (37, 29)), rng.integers(0, 65536, (37, 29)), np.zeros((37, 29))], axis=-1)
    path = tmp_path / "0000001.png"
    path.write_bytes(png16(pixels.astype(np.int64), filters))
    reader = LabelReader(SPACE, "synthia", "first_of_16_bit")
    assert np.array_equal(reader.read_raw(path), pixels[..., 0])
    # Plain Pillow keeps the high byte: all class ids would be 0.
    assert np.asarray(Image.open(path))[..., 0].max() == 0


def test_an_8_bit_label_in_the_16_bit_layout_is_told(tmp_path: Path) -> None:
    write_layout(tmp_path, "synthia_original")
    Image.new("RGB", (64, 48)).save(tmp_path / "GT/LABELS/0000000.png")
    with pytest.raises(SegadaptError, match=r"0000000.png: is not a 16-bit RGB PNG .*layout synthia"):
        opened("synthia_original", tmp_path).read(0)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK", "LA"])
def test_images_of_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(picture(np.random.default_rng(0), (64, 48))).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path)
    expected = Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(read_rgb(path, SIZE)), np.asarray(expected))


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_16_bit_grey_keeps_its_upper_8_bits(suffix: str, tmp_path: Path) -> None:
    """It was refused; Pillow's own conversion to 8 bits would clip."""
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(values).save(path)
    read = np.asarray(read_rgb(path))
    assert read.shape == (48, 64, 3) and np.array_equal(read, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_16_bit_colours_keep_their_upper_8_bits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3))
    (tmp_path / "rgb.png").write_bytes(png16(values))
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "rgb.png")), values >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_of_32_bits_are_refused(kind: type, tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "depth.tif")
    with pytest.raises(SegadaptError, match=r"depth.tif: holds 32-bit or floating-point .* Convert it to 8 or 16 bits"):
        read_rgb(tmp_path / "depth.tif")


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped_and_the_colour_below_it_counts(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., :3], rgba[:2, :, 3] = (10, 20, 30), 255
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    palette = Image.fromarray(rgba[..., :3]).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png", transparency=bytes([0] * 256))
    for name in ("rgba.png", "palette.png"):
        assert (np.asarray(read_rgb(tmp_path / name)) == (10, 20, 30)).all()


def test_the_first_of_several_pictures_counts(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), color) for color in ((1, 2, 3), (9, 9, 9)))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    assert (np.asarray(read_rgb(tmp_path / "pages.tif")) == (1, 2, 3)).all()


def test_cmyk_becomes_its_colours(tmp_path: Path) -> None:
    for name in ("ink.jpg", "ink.tif"):
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)
        assert np.abs(np.asarray(read_rgb(tmp_path / name)).astype(int) - (255, 0, 0)).max() < 4


def test_labels_as_16_bit_grey_or_1_bit(tmp_path: Path) -> None:
    reader = LabelReader(SPACE, "cityscapes")
    raw = np.array([[7, 26], [0, 33]])
    Image.fromarray(raw.astype(np.uint16)).save(tmp_path / "grey16.png")
    assert reader.read(tmp_path / "grey16.png").tolist() == [[0, 13], [255, 18]]
    Image.fromarray(raw > 10).save(tmp_path / "bits.png")
    assert reader.read_raw(tmp_path / "bits.png").tolist() == [[0, 1], [0, 1]]
    Image.fromarray((raw * 1000).astype(np.uint16)).save(tmp_path / "instances.png")
    with pytest.raises(SegadaptError, match=r"instances.png: holds ids up to 33000"):
        reader.read(tmp_path / "instances.png")


def test_labels_of_colours(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    classes = [{"name": "a", "color": [1, 2, 3], "rgb": {"paint": [9, 8, 7]}}, {"name": "b", "color": [3, 2, 1]}]
    own.write_text(yaml.safe_dump({"name": "own", "classes": classes, "ignored_rgb": {"paint": [[0, 0, 0]]}}))
    space = load_label_space(own)
    Image.fromarray(np.array([[[9, 8, 7], [0, 0, 0]]], np.uint8)).save(tmp_path / "label.png")
    assert LabelReader(space, "paint").read(tmp_path / "label.png").tolist() == [[0, IGNORE]]
    Image.fromarray(np.array([[[9, 8, 7], [4, 4, 4]]], np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(SegadaptError, match=r"other.png: holds colours .*: \[4, 4, 4\]\. .*unknown_ids"):
        LabelReader(space, "paint").read(tmp_path / "other.png")
    with pytest.raises(SegadaptError, match=r"label.png: is a colour image"):
        LabelReader(SPACE, "cityscapes").read(tmp_path / "label.png")


def test_an_unknown_id_is_an_error_or_ignored(tmp_path: Path) -> None:
    raw = write_layout(tmp_path, "gta5")["00001.png"].copy()
    raw[:20, :30] = 77
    Image.fromarray(raw).save(tmp_path / "labels" / "00001.png")
    with pytest.raises(
        SegadaptError, match=r"labels/00001.png: holds ids .*'cityscapes'.* not know: 77\. .*`encoding`"
    ):
        opened("gta5", tmp_path).read(0)
    label = opened("gta5", tmp_path, unknown_ids="ignore").read(0).label
    assert label is not None and (label[:9, :15] == IGNORE).all() and 254 not in label


def test_sizes_that_differ_are_an_error_or_stretched(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    Image.fromarray(np.full((50, 64), 7, np.uint8)).save(tmp_path / "labels" / "00001.png")
    dataset = opened("gta5", tmp_path)
    for read in (dataset.read, dataset.label):
        with pytest.raises(SegadaptError, match=r"labels/00001.png: is 64×50, but its image .*00001.png is 64×48"):
            read(0)
    sample = opened("gta5", tmp_path, size_mismatch="stretch").read(0)
    assert sample.label is not None and sample.label.shape == (24, 40) and (sample.label == 0).all()


@pytest.mark.parametrize("folder", ["images", "labels"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped", "vanished"])
def test_a_broken_file_is_named(folder: str, damage: str, tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    dataset = opened("gta5", tmp_path)
    path = tmp_path / folder / "00002.png"
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 20
    content[middle : middle + 8] = bytes(255 - value for value in content[middle : middle + 8])
    damaged = {"truncated": path.read_bytes()[:-60], "text": b"404: not found", "empty": b"", "flipped": bytes(content)}
    if damage == "vanished":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(SegadaptError, match=r"00002.png: (cannot be read as an image|does not exist)") as caught:
        dataset.read(1)
    told = str(caught.value)
    assert told.startswith(str(path)) and told.count(str(path)) == 1 and "\n" not in told
    assert dataset.read(0).image.shape == (24, 40, 3)


def test_images_without_labels_have_none_to_give(tmp_path: Path) -> None:
    write_layout(tmp_path, "carla")
    settings = DomainSettings(layout="carla", root=tmp_path, prepared=False)
    dataset = open_domain(settings, SPACE, "train", SIZE, labels=False)
    with pytest.raises(SegadaptError, match=r"000_0021.jpg: has no label here"):
        dataset.label(0)

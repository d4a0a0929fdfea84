"""The sample domains: seeded, exact, resumable, in the layouts of GTA5 and Cityscapes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segadapt.data.label_spaces import IGNORE, UNKNOWN, load_label_space
from segadapt.errors import UsageError
from segadapt.sample import SAMPLE_VERSION, sample_pair, write_sample
from segadapt.sample.canvas import Camera, Canvas

SMALL = (160, 80)
DOMAINS = ("gta5", "cityscapes")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    write_sample(out, seed=3, train=3, val=2, size=SMALL)
    return out


def test_layouts_are_those_of_gta5_and_cityscapes(sample: Path) -> None:
    assert (sample / "gta5/train.txt").read_text().split() == ["00001.png", "00002.png", "00003.png"]
    assert (sample / "gta5/val.txt").read_text().split() == ["00004.png", "00005.png"]
    for split, count in (("train", 3), ("val", 2)):
        images = sorted((sample / "cityscapes/leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for image in images:
            name = image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
            assert (sample / "cityscapes/gtFine" / split / image.parent.name / name).is_file()
    facts = json.loads((sample / "sample.json").read_text())
    assert facts == {"sample_version": SAMPLE_VERSION, "seed": 3, "train": 3, "val": 2, "size": [160, 80]}


def test_files_hold_the_pairs_losslessly(sample: Path) -> None:
    picture, labels = sample_pair("gta5", "val", 1, seed=3, size=SMALL)
    label_file = Image.open(sample / "gta5/labels/00005.png")
    assert label_file.mode == "P" and label_file.getpalette()[7 * 3 : 7 * 3 + 3] == [128, 64, 128]  # type: ignore[index]
    assert np.array_equal(np.asarray(label_file), labels)
    assert np.array_equal(np.asarray(Image.open(sample / "gta5/images/00005.png")), picture)
    picture, labels = sample_pair("cityscapes", "train", 2, seed=3, size=SMALL)
    [label_path] = (sample / "cityscapes/gtFine/train").glob("*/*_000002_*_labelIds.png")
    [image_path] = (sample / "cityscapes/leftImg8bit/train").glob("*/*_000002_*.png")
    assert np.array_equal(np.asarray(Image.open(label_path)), labels)
    assert np.array_equal(np.asarray(Image.open(image_path)), picture)


def test_any_number_of_workers_writes_the_same_files(sample: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_sample(
        tmp_path, seed=3, train=3, val=2, size=SMALL, workers=2, progress=lambda done, of: calls.append((done, of))
    )
    assert files(tmp_path) == files(sample)
    assert calls == [(done, 10) for done in range(11)]


def test_each_image_has_its_own_seed() -> None:
    one = sample_pair("cityscapes", "train", 0, seed=1, size=SMALL)
    again = sample_pair("cityscapes", "train", 0, seed=1, size=SMALL)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    for other in (("cityscapes", "train", 0, 2), ("cityscapes", "train", 1, 1), ("cityscapes", "val", 0, 1)):
        domain, split, index, seed = other
        assert not np.array_equal(one[1], sample_pair(domain, split, index, seed, SMALL)[1])


def test_a_second_call_draws_only_what_is_missing_or_broken(tmp_path: Path) -> None:
    write_sample(tmp_path, train=2, val=1, size=SMALL)
    before = files(tmp_path)
    kept = tmp_path / "gta5/images/00001.png"
    stamp = kept.stat().st_mtime_ns
    broken = tmp_path / "gta5/images/00002.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    next((tmp_path / "cityscapes/gtFine/val").rglob("*.png")).unlink()
    summary = write_sample(tmp_path, train=2, val=1, size=SMALL)
    assert (summary.written, summary.kept) == (2, 4)
    assert files(tmp_path) == before and kept.stat().st_mtime_ns == stamp


def test_misuse_is_told(tmp_path: Path) -> None:
    write_sample(tmp_path, train=1, val=1, size=SMALL)
    with pytest.raises(UsageError, match=r"sample\.json.*another sample"):
        write_sample(tmp_path, train=1, val=1, size=SMALL, seed=1)
    with pytest.raises(UsageError, match="train is 0"):
        write_sample(tmp_path / "a", train=0)
    with pytest.raises(UsageError, match="too small"):
        write_sample(tmp_path / "a", size=(32, 16))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("domain", DOMAINS)
def test_most_classes_are_in_many_images(domain: str) -> None:
    space = load_label_space("cityscapes19")
    table, seen, images = space.table("cityscapes"), Counter[int](), 40
    for index in range(images):
        picture, labels = sample_pair(domain, "train", index, size=(240, 120))
        assert picture.dtype == np.uint8 and picture.shape == (120, 240, 3) and labels.shape == (120, 240)
        ids = np.unique(table[labels])
        assert UNKNOWN not in ids
        seen.update(ids[ids != IGNORE].tolist())
    assert sum(count >= 0.15 * images for count in seen.values()) >= 14


def test_labels_are_exact_where_the_colours_are() -> None:
    """A shape covers the same pixels in colours and labels, but for the smoothed edge."""
    canvas = Canvas((64, 64), Camera(focal=50, center=32, horizon=32, height=1.5))
    canvas.shape([(-1.0, 0.5, 4), (1.0, 0.5, 4), (0.3, 2.5, 4)], (255, 255, 255), 24)
    canvas.ball((0.5, 2.6, 3), (0.5, 0.3), (255, 255, 255), 24)
    colors, labels, distances = canvas.finish()
    painted = colors[..., 0]
    assert np.all(labels[painted == 255] == 24) and np.all(labels[painted == 0] == 0)
    assert 0.1 < np.mean(labels == 24) < 0.5
    assert np.all(distances[labels == 24] < np.min(distances[labels == 0]))


def test_the_looks_differ_as_they_should() -> None:
    """Camera pictures are noisier in the sky, less colourful; the rendered sky has no noise at all."""
    noise, color = {}, {}
    for domain in DOMAINS:
        steps, spreads = [], []
        for index in range(8):
            picture, labels = sample_pair(domain, "val", index, size=(240, 120))
            sky = (labels[:, 1:] == 23) & (labels[:, :-1] == 23)
            steps.append(np.abs(np.diff(picture.astype(float), axis=1))[sky].mean() if sky.any() else np.nan)
            spreads.append(np.ptp(picture.astype(float), axis=2).mean())
        noise[domain], color[domain] = np.nanmedian(steps), np.mean(spreads)
    assert noise["cityscapes"] > 3 * noise["gta5"]
    assert color["cityscapes"] < 0.6 * color["gta5"]

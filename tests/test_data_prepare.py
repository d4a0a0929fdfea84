"""Prepared copies equal what raw files give, survive kills and damage, and are used only when complete."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from layouts import NAMES, write_layout
from segadapt.cli.data import app
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.made import with_images
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.tools.prepare import Prepared, plan
from segadapt.data.transforms import Augmentation, fitted
from segadapt.errors import SegadaptError, UsageError

SIZE = (40, 24)
SPACE = load_label_space("cityscapes19")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    write_layout(tmp_path / "data", "gta5")
    return tmp_path / "data"


def opened(root: Path, layout: str = "gta5", labels: bool = True, **more: object) -> SegmentationDataset:
    settings = DomainSettings.model_validate({"layout": layout, "root": root, **more})
    return open_domain(settings, SPACE, "train", SIZE, labels=labels)


def prepare(root: Path, **options: bool) -> Prepared:
    return plan(opened(root, prepared=False), "gta5", None, **options).run(workers=1)


def assert_equal(one: SegmentationDataset, other: SegmentationDataset) -> None:
    for index in range(len(one)):
        left, right = one.read(index), other.read(index)
        assert np.array_equal(left.image, right.image) and left.name == right.name
        assert left.label is not None and right.label is not None and np.array_equal(left.label, right.label)


def test_stylized_images_are_read_with_prepared_labels(root: Path, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES["gta5"]):
        path = (tmp_path / "stylized" / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 30), (10 * number,) * 3).save(path)
    plain = with_images(opened(root, prepared=False), tmp_path / "stylized")
    prepare(root)
    prepared = with_images(opened(root), tmp_path / "stylized")
    assert prepared.label_copies is not None
    assert_equal(prepared, plain)
    assert prepared.digest == plain.digest


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("layout", ["gta5", "camvid", "synthia_original"])
def test_copies_equal_raw_files(layout: str, raw: bool, tmp_path: Path) -> None:
    write_layout(tmp_path / "data", layout)
    place = tmp_path / "copies"
    plain = opened(tmp_path / "data", layout, prepared=False)
    done = plan(plain, layout, place, raw).run(workers=1)
    assert (done.written, done.failures) == (3, [])
    prepared = opened(tmp_path / "data", layout, prepared_root=place)
    assert f"prepared images in {place}" in prepared.origin and "prepared labels" in prepared.origin
    assert str(place) not in plain.origin
    shutil.rmtree(plain.pairs[0].image.parent)  # nothing of the raw images is needed any more
    for index, name in enumerate(NAMES[layout]):
        assert prepared.read(index).name == name
    write_layout(tmp_path / "data", layout)
    assert_equal(prepared, plain)
    assert done.bytes == sum(
        path.stat().st_size for path in place.rglob("*.*") if path.suffix not in (".json", ".jsonl")
    )


def test_copies_that_keep_their_aspect_are_others(root: Path) -> None:
    """As training wants them: image and label fit into the size, whatever theirs is."""

    def training(**more: object) -> SegmentationDataset:
        settings = DomainSettings.model_validate({"layout": "gta5", "root": root, **more})
        return open_domain(settings, SPACE, "train", SIZE, Augmentation(keep_aspect=True, crop=(16, 16)))

    command = ["prepare", "gta5", str(root), "--size", "40x24", "--workers", "1", "--keep-aspect"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    plain, prepared = training(prepared=False), training()
    assert prepared.image_copies is not None and prepared.label_copies is not None
    assert opened(root).image_copies is None  # those would be stretched
    assert_equal(prepared, plain)
    for index in range(len(plain)):
        original, (height, width) = plain.image(index).shape[:2], prepared.read(index).image.shape[:2]
        assert (width, height) == fitted((original[1], original[0]), SIZE)
        assert prepared.read(index, seed=1).image.shape == (16, 16, 3)


def test_several_processes_write_the_same(root: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    plan(opened(root, prepared=False), "gta5", alone).run(workers=1)
    calls: list[tuple[int, int]] = []
    done = plan(opened(root, prepared=False), "gta5", together).run(2, lambda n, total: calls.append((n, total)))
    assert done.written == 3 and calls == [(1, 3), (2, 3), (3, 3)]
    files = [path.relative_to(alone) for path in alone.rglob("*") if path.suffix in (".webp", ".png")]
    assert len(files) == 6
    for path in files:
        assert (alone / path).read_bytes() == (together / path).read_bytes()


def test_the_place_is_a_function_of_what_decides_the_pixels(root: Path) -> None:
    def places(size: tuple[int, int] = SIZE, space: str = "cityscapes19", **more: object) -> list[str]:
        settings = DomainSettings.model_validate({"layout": "gta5", "root": root, "prepared": False, **more})
        dataset = open_domain(settings, load_label_space(space), "train", size)
        return [store.folder.name for store in plan(dataset, "gta5", None).stores]

    images, labels = places()
    assert places() == [images, labels]
    assert places(space="cityscapes16")[0] == images and places(space="cityscapes16")[1] != labels
    assert places(unknown_ids="ignore")[1] != labels
    bigger = places(size=(48, 24))
    assert bigger[0] != images and bigger[1] != labels


def test_copies_of_all_serve_lists_and_images_alone(root: Path) -> None:
    prepare(root)
    (root / "some.txt").write_text("00010.png\n")
    assert "prepared" in opened(root, train_list=root / "some.txt").origin
    unlabelled = opened(root, labels=False)
    assert "prepared images" in unlabelled.origin and "labels" not in unlabelled.origin


def test_it_resumes_where_it_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(opened(root, prepared=False), "gta5", None)

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(1, killed)
    with (first.stores[0].folder / "copies.jsonl").open("a") as file:
        file.write('\n{"name": "images/0000')  # half a line
    partly = opened(root)
    assert partly.image_copies is None and "lacks 2 images: run `segadapt data prepare` again" in partly.origin
    again = plan(opened(root, prepared=False), "gta5", None)
    assert again.todo == [1, 2]
    assert again.run(workers=1).written == 2
    assert opened(root).image_copies is not None
    assert plan(opened(root, prepared=False), "gta5", None).todo == []


def test_new_and_changed_files_are_done_again(root: Path) -> None:
    prepare(root)
    label = root / "labels" / "00002.png"
    label.write_bytes(label.read_bytes() + b"more")
    dataset = opened(root)
    assert dataset.image_copies is not None and dataset.label_copies is None
    assert prepare(root).written == 1
    assert opened(root).label_copies is not None


def test_verify_mends_what_is_wrong(root: Path) -> None:
    prepare(root)
    stores = plan(opened(root, prepared=False), "gta5", None).stores
    copy = stores[1].path(opened(root).pairs[0])
    content = copy.read_bytes()
    copy.write_bytes(content[:-20] + bytes(20))
    with pytest.raises(SegadaptError, match=rf"{copy}: this prepared copy cannot be read.* --verify"):
        opened(root).read(0)
    assert prepare(root).written == 0  # same length: only --verify looks inside
    done = prepare(root, verify=True)
    assert (done.written, done.verified) == (1, 2)
    assert copy.read_bytes() == content
    copy.unlink()
    assert prepare(root).written == 1


def test_a_broken_pair_does_not_stop_the_others(root: Path) -> None:
    path = root / "images" / "00002.png"
    path.write_bytes(path.read_bytes()[:-60])
    done = prepare(root)
    assert done.written == 2 and len(done.failures) == 1 and str(path) in done.failures[0]
    assert "lacks 1 images" in opened(root).origin
    result = CliRunner().invoke(app, ["prepare", "gta5", str(root), "--size", "40x24", "--workers", "1"])
    assert isinstance(result.exception, SegadaptError) and result.exception.exit_code == 1
    assert "left out: " in result.output and str(path) in result.output


def test_a_disk_that_is_too_small_or_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preparation = plan(opened(root, prepared=False), "gta5", None, raw=True)
    needed = preparation.bytes_needed
    assert needed == 3 * (40 * 24 * 4 + 2 * 128)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=needed - 1))
    with pytest.raises(SegadaptError, match=r"are needed and .* are free.*--prepared-root"):
        preparation.run(workers=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=needed))
    assert preparation.run(workers=1).bytes == needed

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    shutil.rmtree(preparation.stores[0].folder)
    with pytest.raises(SegadaptError, match=r"no space left on the disk"):
        plan(opened(root, prepared=False), "gta5", None, raw=True).run(workers=1)
    assert not list(preparation.stores[0].folder.rglob("*.tmp"))


def test_a_place_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot be written"):
        plan(opened(root, prepared=False), "gta5", tmp_path / "file").run(workers=1)


def test_the_command(root: Path, tmp_path: Path) -> None:
    command = ["prepare", "gta5", str(root), "--size", "40x24", "--raw", "--workers", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 pairs written" in result.output and "0.0 MB will be written" in result.output
    dataset = opened(root)
    assert dataset.image_copies is not None and str(dataset.image_copies.folder) in result.output
    facts = json.loads((dataset.image_copies.folder / "store.json").read_text())
    assert facts["size"] == [40, 24] and facts["root"] == str(root.resolve())
    assert_equal(dataset, opened(root, prepared=False))
    again = CliRunner().invoke(app, [*command, "--verify"])
    assert "0 pairs written, 3 compared and right" in again.output
    wrong = CliRunner().invoke(app, ["prepare", "gta5", str(root), "--size", "40"])
    assert isinstance(wrong.exception, UsageError)

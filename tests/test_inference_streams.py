"""Folders in, pictures out: places, resuming, broken files, formats, bounded memory."""

import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space
from segadapt.data.reading import read_rgb
from segadapt.errors import SegadaptError, UsageError, UsageErrors
from segadapt.inference.formats import output_paths, overlay, parse_formats, picture
from segadapt.inference.streams import (
    AHEAD,
    Flow,
    Job,
    StreamResult,
    ahead,
    batches_of,
    find_images,
    read_batches,
    readers,
    run_batches,
    save_png,
)

Picture = NDArray[np.uint8]


def save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, 0, 0)).save(path)
    return path


def negatives(jobs: Sequence[Job], flow: Flow = Flow(), seen: list[int] | None = None) -> StreamResult:
    """Write the negative of each image; `seen` gets the sizes of the batches."""

    def work(images: Sequence[Picture]) -> list[Picture]:
        if seen is not None:
            seen.append(len(images))
        return [255 - image for image in images]

    def write(job: Job, made: Picture) -> None:
        save_png(job.outputs[0], Image.fromarray(made))

    return run_batches(jobs, lambda job: np.asarray(read_rgb(job.image)), work, write, flow)


def test_places_keep_the_folders(tmp_path: Path) -> None:
    single = save(tmp_path / "street.jpg")
    for name in ("b/2.png", "a/1.JPG", "0.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    found = find_images([single, tmp_path / "in"])
    assert [str(place) for _, place in found] == ["street", "0", "a/1", "b/2"]


def test_inputs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: holds no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(UsageError, match=r"nowhere: does not exist"):
        find_images([tmp_path / "nowhere"])
    (tmp_path / "mask.yaml").write_text("no picture")
    with pytest.raises(UsageErrors) as raised:
        find_images([tmp_path / name for name in ("nowhere", "mask.yaml", "empty", "gone.png")])
    assert [Path(str(error.where)).name for error in raised.value.errors] == [
        "nowhere",
        "mask.yaml",
        "empty",
        "gone.png",
    ]
    save(tmp_path / "x" / "same.png")
    save(tmp_path / "x" / "same.jpg")
    with pytest.raises(UsageError, match="same name"):
        find_images([tmp_path / "x"])


def test_a_second_run_does_what_is_missing(tmp_path: Path) -> None:
    jobs = [Job(save(tmp_path / f"{n}.png", n), (tmp_path / "out" / f"{n}.png",)) for n in range(10)]
    steps: list[tuple[int, int]] = []
    result = negatives(jobs[:4], Flow(progress=lambda done, total: steps.append((done, total))))
    assert (result.written, result.skipped) == (4, 0)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before = jobs[0].outputs[0].stat().st_mtime_ns
    jobs[2].outputs[0].unlink()

    result = negatives(jobs)
    assert (result.written, result.skipped) == (7, 3)
    assert jobs[0].outputs[0].stat().st_mtime_ns == before
    for number, job in enumerate(jobs):
        assert np.asarray(Image.open(job.outputs[0]))[0, 0].tolist() == [255 - number, 255, 255]
    assert negatives(jobs, Flow(overwrite=True)).written == 10
    assert not list((tmp_path / "out").glob(".*"))


def test_a_broken_image_does_not_stop_the_others(tmp_path: Path) -> None:
    jobs = [Job(save(tmp_path / f"{n}.png"), (tmp_path / "out" / f"{n}.png",)) for n in range(3)]
    jobs[1].image.write_bytes(jobs[1].image.read_bytes()[:40])
    with pytest.raises(
        SegadaptError, match=r"1\.png: cannot be read as an image .*the other 2 images are done"
    ) as raised:
        negatives(jobs)
    assert raised.value.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "LA"):
        Image.new(mode, (4, 3)).save(tmp_path / f"{mode}.png")
        negatives([Job(tmp_path / f"{mode}.png", (tmp_path / "out.png",))], Flow(overwrite=True))
        assert np.asarray(Image.open(tmp_path / "out.png")).shape == (3, 4, 3)


class Watched:
    """Reads pictures, and tells how many of them are in memory at once."""

    def __init__(self) -> None:
        self.images: list[weakref.ref[Picture]] = []

    def __call__(self, number: int) -> Picture:
        image = np.zeros((2, 2, 3), np.uint8)
        self.images.append(weakref.ref(image))
        return image

    def most(self, found: Iterable[object]) -> int:
        most = 0
        for _one in found:
            most = max(most, sum(image() is not None for image in self.images))
        return most


def test_few_images_are_in_memory_at_once() -> None:
    read = Watched()
    most = read.most(ahead(read, range(60)))
    assert len(read.images) == 60 and most <= AHEAD + 2  # those ahead, the one in hand, the one being handed out


def test_few_more_than_a_batch_are_in_memory_at_once() -> None:
    read = Watched()
    most = read.most(read_batches(batches_of(range(60), 8), read, threads=2))
    # The batch in hand, those ahead, the one being handed out.
    assert len(read.images) == 60 and most <= 8 + (AHEAD + 7) + 1


def test_batches_follow_from_the_list_whoever_works_on_them(tmp_path: Path) -> None:
    """Three ranks, of which one stops, and a second run work on the batches of one; what is there stays."""
    assert batches_of("abcdefgh", 3) == ["abc", "def", "gh"]
    assert [batches_of("abcdefgh", 3, (rank, 2)) for rank in range(2)] == [["abc", "gh"], ["def"]]
    jobs = [Job(save(tmp_path / f"{n}.png", n), (tmp_path / "out" / f"{n}.png",)) for n in range(11)]
    sizes: list[int] = []
    for rank in (2, 0):
        negatives(jobs, Flow(batch=3, shard=(rank, 3)), sizes)
    stopped = negatives(jobs, Flow(batch=3, shard=(1, 3), stopped=lambda: True), sizes)
    assert (stopped.written, stopped.left) == (0, 3) and sizes == [3, 3, 2]
    jobs[0].outputs[0].unlink()
    before = jobs[1].outputs[0].stat().st_mtime_ns
    again = negatives(jobs, Flow(batch=3), sizes)
    assert (again.written, again.skipped, again.left) == (6, 5, 0) and sizes[3:] == [3, 3]
    assert jobs[1].outputs[0].stat().st_mtime_ns == before
    for number, job in enumerate(jobs):
        assert np.asarray(Image.open(job.outputs[0]))[0, 0].tolist() == [255 - number, 255, 255]


def test_an_error_in_a_writer_arrives(tmp_path: Path) -> None:
    jobs = [Job(save(tmp_path / f"{n}.png"), (tmp_path / f"{n}.out.png",)) for n in range(3)]

    def write(job: Job, number: int) -> None:
        raise SegadaptError("the disk is full", where=job.outputs[0], remedy="Make room.")

    with pytest.raises(SegadaptError, match="the disk is full"):
        run_batches(jobs, lambda job: 0, list, write)


def test_an_error_in_a_reader_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda number: 1 // number, [2, 1, 0, 3]))


@pytest.mark.parametrize("name", ["cityscapes19", "cityscapes16"])
def test_formats_hold_what_they_say(name: str) -> None:
    space = load_label_space(name)
    labels = np.arange(len(space.classes), dtype=np.uint8).reshape(1, -1)
    np.testing.assert_array_equal(np.asarray(picture(labels, space, "train_id")), labels)

    label_id = np.asarray(picture(labels, space, "label_id"))
    np.testing.assert_array_equal(space.table("cityscapes")[label_id], labels)  # what the benchmark would read
    assert label_id[0, space.classes.index("person")] == 24
    assert label_id[0, space.classes.index("bicycle")] == 33

    colour = picture(labels, space, "colour")
    np.testing.assert_array_equal(np.asarray(colour.convert("RGB"))[0], space.colors)
    np.testing.assert_array_equal(np.asarray(colour), labels)


def test_ignored_pixels() -> None:
    space = load_label_space("cityscapes19")
    labels = np.array([[0, IGNORE]], np.uint8)
    image = np.full((1, 2, 3), 100, np.uint8)
    assert np.asarray(picture(labels, space, "label_id")).tolist() == [[7, 0]]
    blended = np.asarray(overlay(image, labels, space, opacity=0.5))
    assert blended[0].tolist() == [[114, 82, 114], [100, 100, 100]]
    assert np.asarray(picture(labels, space, "overlay", image)).shape == (1, 2, 3)


def test_label_ids_need_an_encoding() -> None:
    space = LabelSpace.from_dict(
        {"name": "own", "classes": [{"name": "x", "color": [1, 2, 3]}, {"name": "y", "color": [4, 5, 6]}]}
    )
    with pytest.raises(UsageError, match="cityscapes"):
        picture(np.zeros((2, 2), np.uint8), space, "label_id")


def test_format_names() -> None:
    assert parse_formats("colour, train_id,colour") == ("colour", "train_id")
    for wrong in ("color", "", "train_id,x"):
        with pytest.raises(UsageError, match="format"):
            parse_formats(wrong)


def test_several_formats_get_folders() -> None:
    assert output_paths(Path("o"), "city/name", ("colour",)) == (Path("o/city/name.png"),)
    assert output_paths(Path("o"), "city/name", ("colour", "label_id")) == (
        Path("o/colour/city/name.png"),
        Path("o/label_id/city/name.png"),
    )


def test_beside_a_gpu_all_cores_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segadapt.inference.streams.usable_cores", lambda: 6)
    assert [readers(torch.device(name)) for name in ("cpu", "cuda")] == [2, 6]
    monkeypatch.setattr("segadapt.inference.streams.usable_cores", lambda: 64)
    assert readers(torch.device("cuda")) == 8

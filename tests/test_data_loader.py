"""Batches on their way to the device: what is ahead, what an error does, how many processes read."""

import time
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch

from segadapt.batch import Batch, Images
from segadapt.data import loader
from segadapt.errors import SegadaptError


def batch(step: int) -> Batch:
    return Batch(step, (step,), Images(torch.full((1, 3, 2, 2), step, dtype=torch.uint8), None, (str(step),)))


def test_the_next_batch_is_begun_before_one_is_handed_out() -> None:
    events: list[str] = []

    def noted(name: str, one: Batch) -> Batch:
        events.append(f"{name} {one.step}")
        return one

    ahead = loader.one_ahead(map(batch, range(3)), lambda one: noted("begin", one), lambda one: noted("end", one))
    for one in ahead:
        events.append(f"step {one.step}")
    expected = "begin 0, end 0, begin 1, step 0, end 1, begin 2, step 1, end 2, step 2"
    assert ", ".join(events) == expected


def test_an_error_waits_for_its_turn() -> None:
    def broken() -> Iterator[Batch]:
        yield batch(0)
        raise SegadaptError("cannot be read", where="street.png", remedy="Copy it again.")

    ahead = loader.one_ahead(broken(), lambda one: one, lambda one: one)
    assert next(ahead).step == 0
    with pytest.raises(SegadaptError, match="cannot be read"):
        next(ahead)
    assert list(loader.one_ahead(iter([]), lambda one: one, lambda one: one)) == []


def test_on_a_cpu_batches_pass_through() -> None:
    passed = list(loader.on_device(map(batch, range(3)), torch.device("cpu")))
    assert [one.step for one in passed] == [0, 1, 2]
    assert passed[2].source is not None and (passed[2].source.images == 2).all()


class Slow:
    """Steps of which each takes so many milliseconds to read, the first one longer."""

    def __init__(self, milliseconds: float) -> None:
        self.seconds, self.asked = milliseconds / 1000, list[int]()

    def __getitem__(self, step: int) -> Batch:
        time.sleep(self.seconds * (1 if self.asked else 5))
        self.asked.append(step)
        return batch(step)


@pytest.mark.parametrize(("milliseconds", "most", "expected"), [(0, 8, {1}), (45, 16, {5, 6, 7, 8}), (45, 2, {2})])
def test_as_many_processes_as_reading_needs(milliseconds: float, most: int, expected: set[int]) -> None:
    steps = Slow(milliseconds)
    workers, seconds = loader.needed_workers(cast(loader.Steps, steps), first=7, most=most)
    assert workers in expected and seconds >= milliseconds / 1000
    assert steps.asked == [7, 8, 9, 10]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies on a stream of their own need a GPU")
def test_copied_ahead_to_a_gpu_batches_are_the_same() -> None:
    random = np.random.default_rng(0)
    images = [torch.from_numpy(random.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)) for _ in range(20)]
    labels = [image[:, 0].contiguous() for image in images]
    read = (
        Batch(step, (step,), Images(image.pin_memory(), label.pin_memory(), ("x",)))
        for step, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    for one, image, label in zip(loader.on_device(read, torch.device("cuda")), images, labels, strict=True):
        assert one.source is not None and one.source.labels is not None
        assert torch.equal(one.source.images.cpu(), image) and torch.equal(one.source.labels.cpu(), label)


def labelled(*labels: list[int]) -> Iterator[Batch]:
    for step, ids in enumerate(labels):
        images = torch.zeros(1, 3, 1, len(ids), dtype=torch.uint8)
        yield Batch(step, (step,), Images(images, torch.tensor([[ids]], dtype=torch.uint8), ("x",)))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([[0, 0], [0, 255], [1, 1]], [[3, 0]]),  # the second class comes too late
        ([[255, 255], [255, 255]], [[0, 0]]),
        ([[0, 0], [1, 1], [1, 1]], []),
        ([[0, 1], [0, 0]], []),
    ],
)
def test_labels_of_one_class_are_told_once(labels: list[list[int]], told: list[list[int]]) -> None:
    said: list[list[int]] = []
    assert len(list(loader.watched(labelled(*labels), 2, 2, said.append))) == len(labels)
    assert said == told

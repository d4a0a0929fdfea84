"""Scores: perfect, degenerate and by hand, and equal to the Cityscapes project's own evaluation CityscapesTool."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as CityscapesTool
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.evaluation.confusion import Confusion, mean_score

Labels = NDArray[np.uint8]
NAMES = ("a", "b", "c", "d")


def ids(*values: int) -> Labels:
    return np.array([values], np.uint8)


def test_perfect() -> None:
    confusion = Confusion(NAMES)
    confusion.add(ids(0, 1, 2, 3), ids(0, 1, 2, 3))
    assert confusion.iou().tolist() == [100, 100, 100, 100]
    assert confusion.miou() == 100


def test_by_hand() -> None:
    """Over two images: a 1 of 3, b 2 of 4, c only predicted, d absent; ignored pixels leave no trace."""
    confusion = Confusion(NAMES)
    confusion.add(ids(0, 0, 1, 1, IGNORE), ids(0, 1, 1, 2, 3))
    confusion.add(ids(1, 0), ids(1, 2))
    assert confusion.counts.tolist() == [[1, 1, 1, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    a, b, c, d = confusion.iou()
    assert (a, b, c) == (pytest.approx(100 / 3), pytest.approx(50), 0)
    assert math.isnan(d)
    assert confusion.miou() == pytest.approx((100 / 3 + 50 + 0) / 3)
    assert confusion.subset(["a", "d"]) == pytest.approx(100 / 3)
    by_class = {"a": pytest.approx(100 / 3), "b": pytest.approx(50), "c": 0.0, "d": None}
    assert confusion.by_class(confusion.iou()) == by_class
    # Dice 2 · hits / (labelled + predicted); accuracy of a 1 of 3, of b 2 of 3, none of what is never labelled.
    assert confusion.dice()[:3].tolist() == pytest.approx([100 * 2 / 4, 100 * 4 / 6, 0])
    assert confusion.accuracy()[:2].tolist() == pytest.approx([100 / 3, 200 / 3])
    assert np.isnan([confusion.dice()[3], *confusion.accuracy()[2:]]).all()
    assert confusion.pixel_accuracy() == pytest.approx(50)
    assert mean_score(confusion.accuracy()) == pytest.approx(50)
    assert math.isnan(Confusion(NAMES).pixel_accuracy())


def test_nothing_counted_has_no_score() -> None:
    confusion = Confusion(NAMES)
    confusion.add(np.full((3, 3), IGNORE, np.uint8), np.zeros((3, 3), np.uint8))
    assert math.isnan(confusion.miou())
    assert math.isnan(confusion.subset(["a"]))


def test_other_is_missed_by_its_class_and_charged_to_none() -> None:
    confusion = Confusion(NAMES, other=True)
    confusion.add(ids(0, 0, 1), ids(0, 4, 4))
    assert confusion.columns == (*NAMES, "other")
    assert confusion.iou()[:2].tolist() == [50, 0]
    assert confusion.miou() == 25


def test_counting_on_a_device_is_counting() -> None:
    random = np.random.default_rng(0)
    plain, quick = Confusion(NAMES, other=True), Confusion(NAMES, other=True)
    for _ in range(3):
        labels = random.choice(np.array([0, 1, 3, IGNORE], np.uint8), (20, 30))
        predictions = random.integers(0, 5, labels.shape).astype(np.uint8)
        predictions[labels == IGNORE] = 200  # counts for nothing
        plain.add(labels, predictions)
        quick.add_on_device(torch.from_numpy(labels), torch.from_numpy(predictions))
    np.testing.assert_array_equal(quick.counts, plain.counts)
    quick.add_on_device(torch.from_numpy(labels), torch.from_numpy(predictions))
    plain.add(labels, predictions)
    np.testing.assert_array_equal(quick.counts, plain.counts)
    merged, one = Confusion(NAMES, other=True), Confusion(NAMES, other=True)
    one.add_on_device(torch.from_numpy(labels), torch.from_numpy(predictions))
    before = one.table().numpy()
    for _ in range(2):
        merged.merge(one)
    np.testing.assert_array_equal(merged.counts, 2 * one.counts)
    np.testing.assert_array_equal(before, one.counts)
    np.testing.assert_array_equal(one.table().numpy(), before)
    with pytest.raises(ValueError, match="differ in shape"):
        quick.add_on_device(torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.uint8))


@pytest.mark.parametrize("other", [False, True])
def test_every_id_counted_on_a_device_is_told_or_not_as_elsewhere(other: bool) -> None:
    """Each value of a label and of a prediction, next to a pixel that counts."""
    for value in range(256):
        for label, prediction in ((value, 0), (value, 200), (0, value), (IGNORE, value)):
            pairs = ids(1, label), ids(1, prediction)
            plain, quick = Confusion(NAMES, other), Confusion(NAMES, other)
            quick.add_on_device(*map(torch.from_numpy, pairs))
            try:
                plain.add(*pairs)
            except ValueError as error:
                with pytest.raises(ValueError, match=str(error)):
                    quick.miou()
            else:
                np.testing.assert_array_equal(quick.counts, plain.counts)


@pytest.mark.parametrize("classes", [1, 2, 254, 255])
def test_any_number_of_classes_is_counted_on_a_device(classes: int) -> None:
    random = np.random.default_rng(0)
    plain, quick = (Confusion([str(number) for number in range(classes)], other=True) for _ in range(2))
    labels = random.choice(np.array([*range(classes), IGNORE], np.uint8), (40, 50))
    predictions = random.integers(0, classes + 1, labels.shape).astype(np.uint8)
    plain.add(labels, predictions)
    quick.add_on_device(torch.from_numpy(labels), torch.from_numpy(predictions))
    np.testing.assert_array_equal(quick.table().numpy(), plain.counts)
    np.testing.assert_array_equal(quick.counts, plain.counts)


def test_counts_beyond_32_bits() -> None:
    many = np.full((2, 2), 3_000_000_000, np.int64)
    assert Confusion(("a", "b"), counts=many).iou().tolist() == pytest.approx([100 / 3, 100 / 3])


def test_wrong_ids_and_shapes_are_refused() -> None:
    confusion = Confusion(NAMES)
    with pytest.raises(ValueError, match="outside the 4 classes"):
        confusion.add(ids(4), ids(0))
    with pytest.raises(ValueError, match="outside the 4 classes"):
        confusion.add(ids(0), ids(4))
    with pytest.raises(ValueError, match="differ in shape"):
        confusion.add(ids(0, 1), ids(0))
    with pytest.raises(ValueError, match="no such classes: z"):
        confusion.subset(["a", "z"])
    with pytest.raises(ValueError, match="4 columns"):
        Confusion(NAMES, counts=np.zeros((4, 5), np.int64))


def test_equals_the_cityscapes_tool(tmp_path: Path) -> None:
    """Per class to 1e-9, for every case in which its rules for NaN could differ from ours.

    The tool counts label ids, all 34 of them, and gives NaN to (1) every class that it does not evaluate (our ignored
    pixels) and (2) a class whose denominator tp + fp + fn is 0, with fp over evaluated labels only. So road, predicted
    on ignored pixels alone and never labelled, is NaN; truck, predicted on labelled pixels but never labelled, is 0;
    bicycle, labelled but never predicted, is 0. Void predictions on labelled pixels are misses of the label: our
    "other". Its mean leaves NaN out, as ours does.
    """
    space = load_label_space("cityscapes19")
    to_train, to_id = space.table("cityscapes"), space.raw_ids("cityscapes")
    road, truck, train, bicycle = (space.classes.index(name) for name in ("road", "truck", "train", "bicycle"))
    random = np.random.default_rng(0)
    confusion = Confusion(space.classes, other=True)
    files: list[tuple[str, str]] = []
    for number in range(3):
        raw = random.integers(0, 34, (40, 50)).astype(np.uint8)  # label ids, many of them ignored
        predicted = np.where(random.random(raw.shape) < 0.5, raw, random.integers(0, 34, raw.shape)).astype(np.uint8)
        raw[np.isin(to_train[raw], (road, truck, train))] = 0  # absent from the labels: road, truck, train
        for never in (train, bicycle):  # absent from the predictions: train (so from both), bicycle
            predicted[predicted == to_id[never]] = to_id[road]
        predicted[(predicted == to_id[road]) & (to_train[raw] != IGNORE)] = 4  # "static", a void class
        predicted[0, :5] = to_id[road]
        raw[0, :5] = 0

        labels, predictions = to_train[raw], to_train[predicted]
        predictions[predictions == IGNORE] = len(space.classes)
        confusion.add(labels, predictions)
        names = (str(tmp_path / f"{number}_pred.png"), str(tmp_path / f"{number}_gtFine_labelIds.png"))
        Image.fromarray(predicted).save(names[0])
        Image.fromarray(raw).save(names[1])
        files.append(names)

    args = CityscapesTool.args
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    result = CityscapesTool.evaluateImgLists([pred for pred, _ in files], [label for _, label in files], args)

    theirs = np.array([result["classScores"][name] for name in space.classes]) * 100
    ours = confusion.iou()
    assert np.isnan(theirs[[road, train]]).all()
    assert theirs[truck] == theirs[bicycle] == 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, equal_nan=True)
    assert confusion.miou() == pytest.approx(result["averageScoreClasses"] * 100, abs=1e-9)

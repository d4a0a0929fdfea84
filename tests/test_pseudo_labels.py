"""Which pixels become pseudo-labels: thresholds by hand."""

import numpy as np
import pytest

from segadapt.pseudo_labels import LEVELS, class_thresholds, confidence_levels, count_levels, kept_counts, select


def test_levels() -> None:
    levels = confidence_levels(np.array([[0.0, 0.5, 0.9, 1.0]], np.float32))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [[0, 128, 230, 255]]


def test_counts_leave_out_ignored_pixels() -> None:
    labels = np.array([[0, 0, 1, 255, 254]], np.uint8)
    levels = np.array([[7, 7, 9, 9, 9]], np.uint8)
    counts = count_levels(labels, levels, classes=3)
    assert counts.shape == (3, LEVELS)
    assert counts.sum(axis=1).tolist() == [2, 1, 0]
    assert counts[0, 7] == 2 and counts[1, 9] == 1


@pytest.mark.parametrize(
    ("keep", "certain", "expected"),
    [
        (0.5, 1.0, 50),  # the five most confident of ten: 80, 80, 70, 60, 50
        (0.11, 1.0, 80),  # at least the share: two
        (0.21, 1.0, 70),
        (1.0, 1.0, 5),
        (0.1, 0.2, 51),  # what is certain enough is kept whatever the share
        (0.5, 0.2, 50),
    ],
)
def test_the_threshold_of_a_class(keep: float, certain: float, expected: int) -> None:
    labels = np.zeros((1, 10), np.uint8)
    levels = np.array([[10, 20, 80, 30, 40, 5, 50, 60, 80, 70]], np.uint8)
    thresholds = class_thresholds(count_levels(labels, levels, classes=2), keep, certain)
    assert thresholds.tolist() == [expected, np.ceil(certain * 255)]  # the second class has no pixel


def test_selection_is_what_the_counts_say() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (40, 60)).astype(np.uint8)
    labels[:4] = 255
    levels = rng.integers(0, 256, labels.shape).astype(np.uint8)
    levels[labels == 3] //= 3  # a class that the network is never sure of
    counts = count_levels(labels, levels, 5)
    thresholds = class_thresholds(counts, keep=0.4, certain=0.9)
    chosen = select(labels, levels, thresholds)
    for name in range(5):
        of_class = levels[labels == name]
        least = min(np.sort(of_class)[::-1][int(np.ceil(0.4 * of_class.size)) - 1], np.ceil(0.9 * 255))
        np.testing.assert_array_equal(chosen[labels == name] == name, of_class >= least)
        assert (chosen == name).sum() == kept_counts(counts, thresholds)[name]
    assert set(np.unique(chosen[chosen != labels])) == {255}
    np.testing.assert_array_equal(select(labels, levels, np.zeros(5, np.int64)), labels)

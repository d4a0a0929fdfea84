"""Several domains as one side, a few labelled images among the others, and how often each is sampled."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from layouts import NAMES, write_layout
from segadapt.data import few_labels
from segadapt.data.catalog import Pair
from segadapt.data.dataset import JoinedDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.samplers import CYCLE, Passes, RareClassSettings, Setting, Shares
from segadapt.data.sides import DataSettings, by_domain, exif_of, open_side
from segadapt.data.statistics import ClassStatistics
from segadapt.errors import UsageError

SPACE = load_label_space("cityscapes19")
ONE = {"layout": "gta5", "root": "a"}
OTHER = {"layout": "gta5", "root": "b"}
HALF = {**ONE, "labelled": 1, "labelled_share": 0.5}


def setting(images: int, batch: int = 1, seed: int = 3) -> Setting:
    nothing = ClassStatistics(np.zeros((images, 19), np.int64))
    return Setting(seed, batch, images, 0, RareClassSettings(), lambda: nothing)


def shares(of: tuple[float, ...], images: tuple[int, ...], batch: int = 2) -> Shares:
    samplers = [Passes.of(setting(count, seed=k), shuffled=True) for k, count in enumerate(images)]
    return Shares.of(setting(sum(images), batch), of, images, samplers)


@pytest.mark.parametrize(
    ("of", "exact"),
    [((0.75, 0.25), (750, 250)), ((2, 1, 1), (500, 250, 250)), ((1e-6, 1), (1, 999)), ((1, 1, 1), None)],
)
def test_shares_hold_exactly_over_a_cycle(of: tuple[float, ...], exact: tuple[int, ...] | None) -> None:
    sampler = shares(of, tuple(7 + k for k in range(len(of))))
    drawn = [one.index for step in range(CYCLE) for one in sampler(step)]  # two cycles
    parts = np.searchsorted(np.cumsum([7 + k for k in range(len(of))]), drawn, side="right")
    for cycle in (parts[:CYCLE], parts[CYCLE:]):
        found = np.bincount(cycle, minlength=len(of))
        assert tuple(found) == exact if exact is not None else max(found) - min(found) <= 1
    assert drawn == [one.index for step in range(CYCLE) for one in pickle.loads(pickle.dumps(sampler))(step)]


def test_shares_are_even_and_each_part_has_its_own_passes() -> None:
    """A quarter is one of about four, not a hundred in a row; and no image of a part comes twice before all others."""
    sampler = shares((0.75, 0.25), (5, 4))
    drawn = [one.index for step in range(600) for one in sampler(step)]
    few = np.array([index >= 5 for index in drawn])
    assert np.diff(np.flatnonzero(few)).max() <= 8
    of_few = [index for index in drawn if index >= 5]
    assert all(sorted(of_few[k : k + 4]) == [5, 6, 7, 8] for k in range(0, len(of_few) - 3, 4))
    alone = Passes.of(setting(5, seed=0), shuffled=True)
    assert [index for index in drawn if index < 5][:50] == [alone(k)[0].index for k in range(50)]
    assert [sampler(step) for step in (0, 7)] == [shares((0.75, 0.25), (5, 4))(step) for step in (0, 7)]


def pairs(count: int, without: tuple[int, ...] = ()) -> list[Pair]:
    labels = [None if k in without else Path(f"{k}.png") for k in range(count)]
    return [Pair(f"{k}.jpg", Path(f"{k}.jpg"), label) for k, label in enumerate(labels)]


def test_a_few_labelled_images_come_evenly_from_those_that_have_a_label(tmp_path: Path) -> None:
    drawn = {seed: few_labels.choose(pairs(100), 10, seed, tmp_path) for seed in range(3)}
    for chosen in drawn.values():
        assert [int(pair.image.stem) // 10 for pair in chosen] == list(range(10))
    assert drawn[0] == few_labels.choose(pairs(100), 10, 0, tmp_path) != drawn[1]
    assert [pair.name for pair in few_labels.choose(pairs(5, without=(0, 3)), 3, 0, tmp_path)] == [
        "1.jpg",
        "2.jpg",
        "4.jpg",
    ]
    assert len(set(few_labels.choose(pairs(7), 5, 4, tmp_path))) == 5
    with pytest.raises(UsageError, match="labelled is 4, but only 3 of its 5 train images have labels"):
        few_labels.choose(pairs(5, without=(0, 3)), 4, 0, tmp_path)
    (tmp_path / "mine.txt").write_text("3.jpg\n1\n")
    assert [pair.name for pair in few_labels.choose(pairs(5), tmp_path / "mine.txt", 0, tmp_path)] == ["3.jpg", "1.jpg"]


def test_the_share_of_a_few_is_by_number_and_at_least_a_quarter() -> None:
    assert few_labels.share_of(20, 2980, 1, None) == 0.25 and few_labels.share_of(50, 50, 1, None) == 0.5
    assert few_labels.share_of(20, 2980, 2, None) == 0.125 and few_labels.share_of(20, 2980, 1, 0.6) == 0.6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"source": []}, "`source` is an empty list"),
        ({"source": {**ONE, "share": 1}}, "name and share are for one of several"),
        ({"source": [{**ONE, "share": 1}, ONE]}, "some domains have a `share` and some have none"),
        ({"target": [{**ONE, "name": "x"}, {**ONE, "name": "x"}]}, "two domains are called 'x'"),
        ({"target": [{**ONE, "name": "x/y"}, ONE]}, "may only have letters, digits"),
        ({"source": {**ONE, "labelled": 3}}, "all its labels are used"),
        ({"target": {**ONE, "labelled_share": 0.5}}, "labelled_share applies to `labelled`"),
        ({"target": {**ONE, "labelled": True}}, "labelled"),
        ({"target": {**ONE, "labelled": 0}}, "greater than or equal to 1"),
        ({"target": [{**OTHER, "labelled": 1, "labelled_share": 0.5}, HALF]}, "less than 1 together"),
        ({"source": [ONE, OTHER, ONE]}, "source: 'gta5' and 'gta5_3' are the same data"),
        ({"target": [{**ONE, "labelled": 1}, {**ONE, "name": "x", "root": "b/../a"}]}, "'gta5' and 'x' are the same"),
        ({"source": [ONE, {"layout": "gta5"}]}, "source.1.root"),
    ],
)
def test_sides_that_do_not_fit_together(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataSettings.model_validate({"source": ONE, "target": ONE} | given)


def test_domains_have_names() -> None:
    one = DataSettings.model_validate({"source": ONE, "target": [ONE]})
    assert list(one.named("source")) == list(one.named("target")) == [""]
    listed = {**ONE, "train_list": "some.txt"}  # other images of the same data set
    several = [ONE, {**OTHER, "name": "gta5_2"}, listed, {"layout": "camvid", "root": "b"}]
    data = DataSettings.model_validate({"source": several, "target": ONE})
    assert list(data.named("source")) == ["gta5", "gta5_2", "gta5_3", "camvid"]
    assert DataSettings.model_validate(data.model_dump(mode="json")) == data


def test_several_domains_are_joined_in_one_label_space_under_names_of_their_own(tmp_path: Path) -> None:
    write_layout(tmp_path / "a", "gta5")
    write_layout(tmp_path / "b", "synthia", seed=1)
    both = [{"layout": "gta5", "root": tmp_path / "a"}, {"layout": "synthia", "root": tmp_path / "b"}]

    def opened(*domains: dict[str, Any]) -> Any:
        data = DataSettings.model_validate({"source": list(domains), "target": ONE})
        return open_side(data.named("source"), SPACE, "train", (32, 24))

    alone, joined = opened(both[0]), opened(*both)
    assert isinstance(joined, JoinedDataset) and joined.shares is None and len(joined) == 6
    names = [f"gta5/{name}" for name in NAMES["gta5"]] + [f"synthia/{name}" for name in NAMES["synthia"]]
    assert [joined.read(k).name for k in range(6)] == names and list(by_domain(joined)) == ["gta5", "synthia"]
    first, again = alone.read(1), joined.read(1)
    assert first.label is not None and again.label is not None
    assert np.array_equal(first.label, again.label) and alone.read(1).name == NAMES["gta5"][1]
    assert by_domain(alone) == {"": alone} and by_domain(None) == {}
    shared = opened({**both[0], "share": 3}, {**both[1], "share": 1})
    assert shared.shares == (3, 1) and Counter([alone.digest, joined.digest, shared.digest]).most_common(1)[0][1] == 1
    with pytest.raises(UsageError, match="exif: differs between domains"):
        exif_of(opened(both[0], {**both[1], "exif": "raw"}))

"""Which images stand in which step: the orders of all versions so far, rare classes, one's own."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from command import command
from layouts import write_layout
from segadapt.data import samplers
from segadapt.data.dataset import JoinedDataset, SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.loader import Sampled, Steps
from segadapt.data.samplers import (
    Choice,
    Passes,
    RareClasses,
    RareClassSettings,
    Setting,
    class_probabilities,
    sample_seeds,
)
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.statistics import ClassStatistics, class_statistics
from segadapt.data.transforms import Augmentation, Need
from segadapt.errors import UsageError
from segadapt.methods.supervised import SourceOnlySettings
from tiny_runs import run, tree, write_data, write_recipe

SPACE = load_label_space("cityscapes19")


def drawn(sampler: samplers.Sampler, steps: int) -> list[int]:
    return [one.index for step in range(steps) for one in sampler(step)]


def setting(pixels: list[list[int]], **rare: Any) -> Setting:
    counts = np.array(pixels, np.int64)
    return Setting(3, 2, len(pixels), 0, RareClassSettings(**rare), lambda: ClassStatistics(counts))


def test_passes_are_as_all_versions_have_drawn_them() -> None:
    """Numbers of the version before there were samplers: a finished training could be repeated, and resumes."""
    source, target = Passes(5, 2, images=5, domain=0), Passes(5, 2, images=3, domain=1)
    assert drawn(source, 5) == SOURCE and drawn(target, 5) == TARGET
    assert source(3) == [Choice(index) for index in SOURCE[6:8]]
    assert sample_seeds(5, 2, 7) == SEEDS
    assert sorted(SOURCE[:5]) == sorted(SOURCE[5:]) == list(range(5)) and SOURCE[:5] != SOURCE[5:]
    assert sample_seeds(6, 2, 7) != SEEDS and len({s for t in range(10) for s in sample_seeds(5, 2, t)}) == 20


SOURCE = [4, 3, 1, 2, 0, 4, 0, 2, 3, 1]
TARGET = [0, 2, 1, 1, 0, 2, 1, 2, 0, 2]
SEEDS = [4318420217437765447, 8111004638842013022]


def test_the_target_order_restarts_with_each_pass_over_the_source_as_published() -> None:
    official = Passes(0, 1, images=2, domain=1, shuffled=False, restart_after=3)
    assert drawn(official, 6) == [0, 1, 0, 0, 1, 0]
    assert drawn(Passes(0, 1, images=2, domain=1, shuffled=False), 6) == [0, 1, 0, 1, 0, 1]
    mixed = drawn(Passes(0, 1, images=2, domain=1, restart_after=3), 9)
    assert all(sorted(mixed[k : k + 2]) == [0, 1] for k in (0, 3, 6))


def test_class_probabilities_are_the_published_ones() -> None:
    """Recorded from the published program on three images; float32 there."""
    found = class_probabilities(np.array(PIXELS), 0.01)
    assert list(found.values()) == pytest.approx(PUBLISHED, rel=2e-5)
    assert class_probabilities(np.array([0, 5, 0, 5]), 0.01) == {1: 0.5, 3: 0.5}


PIXELS = [
    *(44164, 23230, 26098, 34787, 31969, 20778, 14680, 30307, 30243, 12346),
    *(5612, 27366, 35195, 44961, 13154, 42171, 29792, 20129, 14475),
]
PUBLISHED = [
    *(0.00022724806, 0.01477469783, 0.00833935756, 0.00147437805, 0.00258621271, 0.02409228496, 0.08128394187),
    *(0.00360250962, 0.00364878681, 0.12946297228, 0.49585464597, 0.00647609401, 0.00135916262, 0.00019385279),
    *(0.11019616574, 0.00033814684, 0.00399215054, 0.02742120810, 0.08467618376),
]


def test_rare_classes_come_as_often_as_they_should_and_in_images_that_have_them() -> None:
    about = setting([[900, 30, 0], [900, 10, 70], [950, 50, 0], [500, 0, 0]], temperature=0.5, min_pixels=20)
    sampler = RareClasses.of(about)
    chosen = [one for step in range(2000) for one in sampler(step)]
    times = Counter(one.need.label for one in chosen if one.need is not None)
    share = np.array([3250, 90, 70]) / 3410
    expected = np.exp((1 - share) / 0.5) / np.exp((1 - share) / 0.5).sum()
    assert [times[k] / 4000 for k in range(3)] == pytest.approx(expected, abs=0.03)
    where = {label: {one.index for one in chosen if one.need == Need(label, 10.0)} for label in range(3)}
    assert where == {0: {0, 1, 2, 3}, 1: {0, 2}, 2: {1}}  # more than 20 pixels
    # Nothing but seed, step and place decides, in whatever process.
    again = pickle.loads(pickle.dumps(sampler))
    assert again(77) == sampler(77) != sampler(78)


def test_classes_that_no_image_has_enough_of_are_not_drawn() -> None:
    sampler = RareClasses.of(setting([[900, 3, 40]], min_pixels=20))
    assert set(sampler.chances) == {0, 2} and sum(sampler.chances.values()) == pytest.approx(1)
    with pytest.raises(UsageError, match=r"min_pixels: no image has more than 1000 pixels"):
        RareClasses.of(setting([[900, 3, 40]], min_pixels=1000))


def opened(root: Path, labels: bool = True, **augment: Any) -> SegmentationDataset:
    domain = DomainSettings(layout="gta5", root=root, prepared=False)
    return open_domain(domain, SPACE, "train", (64, 48), Augmentation(**augment), labels)


def test_classes_are_counted_once_at_the_labels_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path / "gta5", "gta5")
    data = opened(tmp_path / "gta5")
    expected = np.stack([np.bincount(data.label(k).ravel(), minlength=256)[:19] for k in range(len(data))])
    counted = class_statistics(data, tmp_path / "cache", threads=2)
    assert np.array_equal(counted.pixels, expected) and expected.sum() > 0
    (kept,) = (tmp_path / "cache/statistics").iterdir()

    def not_again(*_: object) -> None:
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr("segadapt.data.statistics._count", not_again)
        assert np.array_equal(class_statistics(opened(tmp_path / "gta5"), tmp_path / "cache", 1).pixels, expected)
    kept.write_bytes(kept.read_bytes()[:-8])  # cut off: counted anew, and mended
    joined = JoinedDataset((data, data))
    assert np.array_equal(class_statistics(joined, tmp_path / "cache", 1).pixels, np.concatenate([expected] * 2))
    assert np.array_equal(np.load(kept), expected)
    with pytest.raises(UsageError, match="has no labels"):
        class_statistics(opened(tmp_path / "gta5", labels=False), tmp_path / "cache", 1)


def test_data_check_leaves_the_counts_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_layout(tmp_path / "gta5", "gta5")
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    data = opened(tmp_path / "gta5")
    assert command(capsys, "data", "check", "gta5", tmp_path / "gta5", "--workers", 1).code == 0
    expected = class_statistics(data, tmp_path / "other", 1).pixels
    monkeypatch.setattr("segadapt.data.statistics._count", None)
    assert np.array_equal(class_statistics(data, None, 1).pixels, expected)


def test_counts_that_cannot_be_kept_are_said_and_used(tmp_path: Path) -> None:
    write_layout(tmp_path / "gta5", "gta5")
    (tmp_path / "file").touch()
    said: list[str] = []
    data = opened(tmp_path / "gta5")
    assert len(class_statistics(data, tmp_path / "file", 1, said.append).pixels) == len(data)
    assert any("could not be saved" in line for line in said)


def test_a_step_has_the_images_and_crops_that_its_sampler_chose(tmp_path: Path) -> None:
    write_layout(tmp_path / "gta5", "gta5")
    label = tmp_path / "gta5/labels/00002.png"
    width, height = Image.open(label).size
    ids = np.full((height, width), 7, np.uint8)  # road
    ids[height // 4 : height // 2, width // 4 : width // 2] = 24  # person, class 11
    Image.fromarray(ids).save(label)
    data = opened(tmp_path / "gta5", crop=[24, 16])
    rare = {"temperature": 0.001, "min_pixels": 1, "min_crop_ratio": 20}
    counted = class_statistics(data, tmp_path / "cache", 1).pixels
    counted[[k for k in range(len(data)) if data.pairs[k].name != "00002.png"]] = 0
    sampler = RareClasses.of(Setting(0, 4, len(data), 0, RareClassSettings(**rare), lambda: ClassStatistics(counted)))
    batch = Steps(0, 4, Sampled(data, sampler), None)[0]
    assert not isinstance(batch, Exception) and batch.source is not None and batch.source.labels is not None
    assert set(batch.source.names) == {"00002.png"}
    assert int(((batch.source.labels == 11).sum(dim=(1, 2)) > 20).sum()) >= 3
    whole = [Steps(0, 4, Sampled(data, sampler), None, rank, 2)[0] for rank in (0, 1)]
    assert [one.seeds for one in whole] == [batch.seeds[:2], batch.seeds[2:]]  # type: ignore[union-attr]


def settings(**changes: Any) -> SourceOnlySettings:
    return SourceOnlySettings.model_validate({"network": "deeplab_small", "steps": 3} | changes)


def test_a_recipe_names_samplers_and_views() -> None:
    plain, ordered = settings(), settings(shuffle=False)
    assert (plain.source_view.sampler, ordered.target_view.sampler) == ("shuffled", "in_order")
    given = settings(
        sampler="rare_classes", target_size=[64, 32], target_augment={"mirror": 0.5}, rare_classes={"min_crop_ratio": 2}
    )
    assert (given.source_view.sampler, given.target_view.sampler) == ("rare_classes", "shuffled")
    assert given.target_view.augment.mirror == 0.5 and given.target_view.size == (64, 32)
    assert given.source_view.augment == Augmentation() and not given.target_view.labels
    refused: list[dict[str, Any]] = [
        {"sampler": "rare"},
        {"shuffle": False, "sampler": "shuffled"},
        {"rare_classes": {}},
    ]
    for wrong in refused:
        with pytest.raises(ValidationError):
            settings(**wrong)


def test_ones_own_sampler_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))
    monkeypatch.setattr("segadapt.methods.settings.SAMPLERS", samplers.SAMPLERS)
    samplers.register_sampler("backwards", lambda about: lambda step: [Choice(about.images - 1 - step)])
    assert settings(sampler="backwards").source_view.sampler == "backwards"
    with pytest.raises(ValueError, match="'shuffled' already exists"):
        samplers.register_sampler("shuffled", lambda about: lambda step: [])


def test_a_training_with_rare_classes_and_views_of_its_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    stage = {
        "method": "sean",
        "steps": 2,
        "sampler": "rare_classes",
        "target_sampler": "in_order",
        "rare_classes": {"min_pixels": 20},
        "augment": {"keep_aspect": True, "crop": [48, 32], "crop_max_share": 0.75},
        "target_augment": {"mirror": 0.5},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), a=stage))
    run(recipe, tmp_path / "run")
    assert len(list((tmp_path / "cache/prepared/statistics").iterdir())) == 1
    capfd.readouterr()
    run(recipe, tmp_path / "run")
    assert "a: done already, skipped" in capfd.readouterr().err
    with pytest.raises(UsageError, match=r"cityscapes: has no labels here.*`target_sampler`"):
        run(recipe, tmp_path / "run", "stages.a.target_sampler=rare_classes", yes=True)

"""Scores of a network whose answers are known, in its own label space and in others; criteria; memory."""

import json
import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from scored_runs import SIZE, ColourNetwork, blocks, colour_network, opened, paint
from segadapt.data.dataset import JoinedDataset, SegmentationDataset
from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space
from segadapt.errors import UsageError
from segadapt.evaluation.calibration import Calibration, expected_calibration_error, together
from segadapt.evaluation.criteria import CRITERIA, InfoMax, NeighbourhoodDensity, NuclearNorm, agreement, spearman
from segadapt.evaluation.evaluate import evaluate_domain, prediction_writer, quick_scores, quick_sums, spread
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import AHEAD

SPACE = load_label_space("cityscapes19")
ROAD, SKY, CAR, TERRAIN, VEGETATION = (SPACE.classes.index(n) for n in ("road", "sky", "car", "terrain", "vegetation"))


def score(dataset: SegmentationDataset, model: LabelSpace = SPACE, space: LabelSpace = SPACE) -> dict[str, Any]:
    predictor = Predictor(colour_network(model), SIZE)
    return evaluate_domain(predictor, dataset, model, space, layout="cityscapes", split="val")


def test_a_perfect_network_scores_100(tmp_path: Path) -> None:
    paint(tmp_path, SPACE, "val", [blocks(SPACE, seed, classes=11) for seed in range(5)])
    dataset = opened(tmp_path, SPACE)
    scores = score(dataset)
    assert scores["miou"] == 100
    assert scores["per_class"]["sky"] == 100
    assert scores["per_class"]["bicycle"] is None
    assert scores["subsets"] == {"cityscapes16": 100, "cityscapes13": 100}
    assert scores["columns"] == list(SPACE.classes)
    assert sum(map(sum, scores["confusion"])) == sum(int((dataset.label(k) != IGNORE).sum()) for k in range(5))
    assert {key: scores[key] for key in ("layout", "split", "images", "size", "scales", "mirror", "window")} == {
        "layout": "cityscapes",
        "split": "val",
        "images": 5,
        "size": [*SIZE],
        "scales": [1.0],
        "mirror": False,
        "window": None,
    }
    json.dumps(scores, allow_nan=False)


def halves(left: int, right: int) -> NDArray[np.uint8]:
    labels = np.full((SIZE[1], SIZE[0]), left, np.uint8)
    labels[:, SIZE[0] // 2 :] = right
    return labels


def test_mistakes_by_hand_over_two_images(tmp_path: Path) -> None:
    """Half of the first image's sky is seen as car; nothing else is wrong."""
    seen = halves(ROAD, SKY)
    seen[:8, SIZE[0] // 2 :] = CAR
    paint(tmp_path, SPACE, "val", [halves(ROAD, SKY), halves(CAR, IGNORE)], [seen, halves(CAR, ROAD)])
    scores = score(opened(tmp_path, SPACE))
    per_class = {name: value for name, value in scores["per_class"].items() if value is not None}
    assert per_class == {"road": 100, "sky": 50, "car": pytest.approx(100 * 256 / 384)}
    assert scores["miou"] == pytest.approx((100 + 50 + 200 / 3) / 3)
    assert scores["dice"] == pytest.approx((100 + 200 / 3 + 80) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(100 * 640 / 768)
    assert scores["mean_accuracy"] == pytest.approx((100 + 50 + 100) / 3)
    images = scores["per_image"]
    assert [name.split("/")[-1] for name in images["names"]] == [
        f"brno_000000_{number:06d}_leftImg8bit.png" for number in range(2)
    ]
    assert images["miou"] == [50, 100] and images["pixel_accuracy"] == [75, 100]  # road 100, sky 50, car only seen
    assert images["dice"] == [pytest.approx(500 / 9, abs=1e-3), 100]


@pytest.mark.numeric
def test_calibration_counts_the_grid_by_confidence(tmp_path: Path) -> None:
    """The colour network is sure of all; a sixth of what is sampled and labelled is wrong."""
    seen = halves(ROAD, SKY)
    seen[:8, SIZE[0] // 2 :] = CAR
    paint(tmp_path, SPACE, "val", [halves(ROAD, SKY), halves(CAR, IGNORE)], [seen, halves(CAR, ROAD)])
    scores = score(opened(tmp_path, SPACE))
    found = scores["calibration"]
    assert sum(found["pixels"]) == found["pixels"][-1] == 2 * 4 + 2 * 2  # every eighth of 32 × 16, half of one ignored
    assert found["right"][-1] == 10
    assert scores["ece"] == pytest.approx(100 / 6, abs=1e-3)
    both = together([found, found])
    assert both["pixels"][-1] == 24 and expected_calibration_error(both) == pytest.approx(scores["ece"])
    assert expected_calibration_error(Calibration().plain()) is None


def test_calibration_by_hand() -> None:
    """Two bins: 0.25 and right every other time; 0.95 and always right: (2 · 0.25 + 1 · 0.05) / 3."""
    rated = Calibration()
    labels = torch.tensor([[0, 1, 2, IGNORE]], dtype=torch.uint8)
    rated.add(labels, torch.tensor([[0, 0, 2, 3]], dtype=torch.uint8), torch.tensor([[0.25, 0.25, 0.95, 0.5]]))
    found = rated.plain()
    assert [(n, right) for n, right in zip(found["pixels"], found["right"], strict=True) if n] == [(2, 1), (1, 1)]
    assert expected_calibration_error(found) == pytest.approx(100 * (2 * 0.25 + 0.05) / 3, abs=1e-4)


def test_19_classes_scored_on_16(tmp_path: Path) -> None:
    """As a subset, terrain on vegetation costs vegetation; in the 16-class space it is "other" and costs the same."""
    seen = halves(VEGETATION, SKY)
    seen[:8, : SIZE[0] // 2] = TERRAIN
    paint(tmp_path, SPACE, "val", [halves(VEGETATION, SKY), halves(TERRAIN, SKY)], [seen, halves(TERRAIN, SKY)])
    own = score(opened(tmp_path, SPACE))
    assert own["per_class"]["vegetation"] == 50
    assert own["subsets"]["cityscapes16"] == 75
    assert own["miou"] == pytest.approx((50 + 100 + 200 / 3) / 3)

    sixteen = load_label_space("cityscapes16")
    other = score(opened(tmp_path, sixteen), space=sixteen)
    assert other["columns"] == [*sixteen.classes, "other"]
    assert other["per_class"]["vegetation"] == 50
    assert other["miou"] == 75
    row = other["confusion"][sixteen.classes.index("vegetation")]
    assert row[-1] == 128
    assert sum(map(sum, other["confusion"])) == 3 * 256  # labelled terrain is ignored in 16 classes


def test_16_classes_scored_on_19(tmp_path: Path) -> None:
    """Classes that the model does not have are missed where they are labelled."""
    sixteen = load_label_space("cityscapes16")
    paint(tmp_path, SPACE, "val", [halves(TERRAIN, SKY)])
    scores = score(opened(tmp_path, SPACE), model=sixteen)
    assert scores["per_class"]["terrain"] == 0
    assert scores["per_class"]["sky"] == 100


def test_classes_of_other_names_and_joined_ones_count(tmp_path: Path) -> None:
    """camvid11's bicyclist is called rider and bicycle in 19 classes, which also have a train that it ignores."""
    camvid = load_label_space("camvid11")
    rider, bicycle, train = (SPACE.classes.index(name) for name in ("rider", "bicycle", "train"))
    paint(tmp_path, SPACE, "val", [halves(rider, bicycle), halves(train, SKY)], [halves(rider, CAR), halves(CAR, SKY)])
    scores = score(opened(tmp_path, camvid), space=camvid)
    assert scores["per_class"]["bicyclist"] == 50
    assert scores["per_class"]["sky"] == 100
    assert scores["per_class"]["car"] == 0


def test_spaces_without_a_common_class_are_refused(tmp_path: Path) -> None:
    own = LabelSpace.from_dict(
        {"name": "own", "classes": [{"name": "x", "color": [1, 2, 3]}, {"name": "y", "color": [4, 5, 6]}]}
    )
    paint(tmp_path, SPACE, "val", [halves(ROAD, SKY)])
    with pytest.raises(UsageError, match="no class in common"):
        score(opened(tmp_path, SPACE), model=own)
    with pytest.raises(ValueError, match="opened with its labels"):
        score(opened(tmp_path, SPACE, labels=False))


def test_one_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the images that are read ahead, and one image's maps, live at once."""
    paint(tmp_path, SPACE, "val", [blocks(SPACE, seed) for seed in range(20)])
    images: list[weakref.ref[NDArray[np.uint8]]] = []
    maps: list[weakref.ref[torch.Tensor]] = []
    most = {"images": 0, "maps": 0}
    read = SegmentationDataset.image

    def image(self: SegmentationDataset, index: int) -> NDArray[np.uint8]:
        found = read(self, index).copy()
        images.append(weakref.ref(found))
        return found

    def segment(self: ColourNetwork, pixels: torch.Tensor) -> Any:
        most["images"] = max(most["images"], sum(ref() is not None for ref in images))
        most["maps"] = max(most["maps"], sum(ref() is not None for ref in maps))  # of images before this one
        output = super(ColourNetwork, self).segment(pixels)
        maps.append(weakref.ref(output.logits))
        return output

    monkeypatch.setattr(SegmentationDataset, "image", image)
    monkeypatch.setattr(ColourNetwork, "segment", segment, raising=False)
    score(opened(tmp_path, SPACE))
    assert len(images) == len(maps) == 20
    assert most["maps"] == 0
    assert 1 <= most["images"] <= AHEAD + 2


@pytest.mark.numeric
def test_quick_scores_are_the_scores(tmp_path: Path) -> None:
    labels = [blocks(SPACE, seed) for seed in range(4)]
    seen = [np.where(label == ROAD, SKY, label).astype(np.uint8) for label in labels]
    paint(tmp_path / "t", SPACE, "val", labels, seen)
    paint(tmp_path / "s", SPACE, "val", [halves(ROAD, SKY)])
    target, source = opened(tmp_path / "t", SPACE), opened(tmp_path / "s", SPACE)
    predictor = Predictor(colour_network(SPACE), SIZE)
    quick = quick_scores(quick_sums(predictor, SPACE, target_val=target, source_val=source), SPACE)
    assert quick["target_miou"] == pytest.approx(score(target)["miou"])
    assert 80 < quick["target_miou"] < 100
    assert quick["source_miou"] == 100
    assert quick["infomax"] > 2.5  # sure of every pixel, and most of 19 classes in use: below log 19 = 2.94
    assert list(quick_sums(predictor, SPACE, source_val=source)) == ["source_miou"]

    unlabelled = opened(tmp_path / "t", SPACE, labels=False)
    of_criteria = {name: quick[name] for name in CRITERIA}
    assert quick_scores(quick_sums(predictor, SPACE, target_val=unlabelled), SPACE) == of_criteria


def test_quick_scores_of_some_images(tmp_path: Path) -> None:
    paint(tmp_path, SPACE, "val", [halves(ROAD, SKY)] * 3, [halves(ROAD, SKY), halves(SKY, ROAD), halves(ROAD, SKY)])
    predictor = Predictor(colour_network(SPACE), SIZE)
    sums = quick_sums(predictor, SPACE, target_val=opened(tmp_path, SPACE), limit=1)
    assert quick_scores(sums, SPACE)["target_miou"] == 0


@pytest.mark.numeric
@pytest.mark.parametrize(("shares", "batch"), [(2, 1), (5, 1), (9, 1), (2, 2), (4, 2)])
def test_sums_of_shares_are_those_of_all_images(
    tmp_path: Path, shares: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two target domains and a source, 3 + 1 + 3 images: none twice, each share about as many, some perhaps none."""
    for part, count in (("a", 3), ("b", 1), ("s", 3)):
        painted = [blocks(SPACE, seed) for seed in range(ord(part), ord(part) + count)]
        paint(tmp_path / part, SPACE, "val", painted, painted[1:] + painted[:1])
    target = JoinedDataset((opened(tmp_path / "a", SPACE), opened(tmp_path / "b", SPACE)))
    source, predictor = opened(tmp_path / "s", SPACE), Predictor(colour_network(SPACE), SIZE, batch=batch)
    seen, logits = [0], predictor.batch_logits

    def counted(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        seen[-1] += len(images)
        return logits(images)

    monkeypatch.setattr(predictor, "batch_logits", counted)
    whole, parts = quick_sums(predictor, SPACE, target_val=target, source_val=source), []
    for share in range(shares):
        seen.append(0)
        own = quick_sums(predictor, SPACE, target_val=target, source_val=source, share=(share, shares))
        parts.append(own)
    assert seen[0] == sum(seen[1:]) == 7 and max(seen[1:]) - min(seen[1:]) <= batch
    assert all(list(part) == list(whole) for part in parts)
    together = {name: torch.stack([part[name] for part in parts]).sum(0) for name in whole}
    for name, values in whole.items():
        assert together[name].dtype == values.dtype
        torch.testing.assert_close(together[name], values, rtol=1e-12, atol=1e-12)
    assert quick_scores(together, SPACE)["target_miou"] == quick_scores(whole, SPACE)["target_miou"]
    assert quick_scores(together, SPACE) == pytest.approx(quick_scores(whole, SPACE), rel=1e-9)


def test_sums_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="for 3 classes"):
        NuclearNorm(3, NuclearNorm(2).sums)


def test_spread() -> None:
    assert spread(5, None) == spread(5, 5) == spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 1) == [1]


@pytest.mark.numeric
def test_infomax_by_hand() -> None:
    """Two pixels, (0.9, 0.1) and (0.2, 0.8): H(0.55, 0.45) - mean of the two entropies."""

    def entropy(*shares: float) -> float:
        return -sum(share * math.log(share) for share in shares)

    criterion = InfoMax(2)
    assert math.isnan(criterion.value())
    for pixel in ((0.9, 0.1), (0.2, 0.8)):
        criterion.add(torch.tensor(pixel).log().view(1, 2, 1, 1) + 3)
    expected = entropy(0.55, 0.45) - (entropy(0.9, 0.1) + entropy(0.2, 0.8)) / 2
    assert criterion.value() == pytest.approx(expected, abs=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize(("logits", "expected"), [("same", 0.0), ("flat", 0.0), ("balanced", math.log(4))])
def test_infomax_at_its_ends(logits: str, expected: float) -> None:
    """One class everywhere: 0. No opinion: 0. Sure, and all classes equally: log C, without NaN from 0 · log 0."""
    maps = torch.zeros(1, 4, 2, 2)
    if logits == "same":
        maps[:, 0] = 1e4
    if logits == "balanced":
        maps.view(4, 4).fill_diagonal_(1e4)
    criterion = InfoMax(4)
    criterion.add(maps)
    assert criterion.value() == pytest.approx(expected, abs=1e-6)


@pytest.mark.numeric
def test_neighbourhood_density_by_hand() -> None:
    """Three pixels, two of them alike: each one's entropy of softmax(cosine / 0.05) over the other two."""
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    expected = 0.0
    for k in range(3):
        weights = np.exp(np.array([unit[k] @ unit[j] for j in range(3) if j != k]) / 0.05)
        shares = weights / weights.sum()
        expected -= float((shares * np.log(shares)).sum()) / 3
    criterion = NeighbourhoodDensity(2)
    assert math.isnan(criterion.value())
    criterion.add(torch.from_numpy(p.T.copy()).float().log().view(1, 2, 1, 3))
    assert criterion.value() == pytest.approx(expected, abs=1e-5)
    many = NeighbourhoodDensity(4)
    many.add(torch.zeros(2, 4, 64, 64))  # all alike: everybody is a neighbour, of 1024 positions per image
    assert many.value() == pytest.approx(math.log(1023), abs=1e-5)


@pytest.mark.numeric
def test_the_nuclear_norm_is_that_of_all_predictions_together() -> None:
    logits = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    criterion = NuclearNorm(5)
    assert math.isnan(criterion.value())
    for image in logits:
        criterion.add(image[None])
    p = logits.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 5).double()
    expected = float(torch.linalg.svdvals(p).sum()) / math.sqrt(p.numel())
    assert criterion.value() == pytest.approx(expected, abs=1e-6)
    for maps, value in ((torch.eye(4).repeat(1, 2).view(1, 4, 2, 4) * 1e4, 1.0), (torch.zeros(1, 4, 2, 4), 0.25)):
        ends = NuclearNorm(4)
        ends.add(maps)
        assert ends.value() == pytest.approx(value, abs=1e-6)  # sure and balanced; no opinion: 1 / C


def test_spearman() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 - 6 Σd² / n(n² - 1)
    # Ties on their average rank: ranks (1, 2.5, 2.5, 4) against (1, 2, 3, 4), Pearson 4.5 / √(4.5 · 5).
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1], [1]))
    with pytest.raises(ValueError, match="cannot be compared"):
        spearman([1, 2], [1])
    assert agreement({"infomax": [(0.1, 1.0)]}, "infomax") is None
    points = {"infomax": [(0.1, 1.0), (0.2, 3.0)], "snd": [(5.0, 1.0), (4.0, 3.0)], "bnm": [(1.0, 1.0), (1.0, 3.0)]}
    found = agreement(points, "infomax")
    both = {"infomax": pytest.approx(1), "snd": pytest.approx(-1)}  # bnm has no order
    assert found == {"criterion": "infomax", "spearman": pytest.approx(1), "points": 2, "criteria": both}
    by_snd = agreement(points, "snd")
    assert by_snd is not None and by_snd["spearman"] == pytest.approx(-1) and agreement(points, "bnm") is None


@pytest.mark.parametrize("name", ["cityscapes19", "cityscapes16"])
def test_predictions_for_the_benchmark_server(tmp_path: Path, name: str) -> None:
    """Names as the server's tool searches them, label ids that it evaluates."""
    space = load_label_space(name)
    labels = [blocks(space, seed) for seed in range(2)]
    paint(tmp_path / "data", space, "val", labels)
    keep = prediction_writer(tmp_path / "out", ("label_id", "train_id"), space)
    evaluate_domain(
        Predictor(colour_network(space), SIZE),
        opened(tmp_path / "data", space),
        space,
        space,
        layout="cityscapes",
        split="val",
        keep=keep,
    )
    written = tmp_path / "out" / "label_id" / "brno" / "brno_000000_000001_leftImg8bit.png"
    raw = np.asarray(Image.open(written))
    counted = labels[1] != IGNORE
    np.testing.assert_array_equal(raw[counted], space.raw_ids("cityscapes")[labels[1][counted]])
    train = np.asarray(Image.open(tmp_path / "out" / "train_id" / "brno" / "brno_000000_000001_leftImg8bit.png"))
    np.testing.assert_array_equal(train[counted], labels[1][counted])

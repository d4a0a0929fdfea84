"""`segadapt.evaluate`: scores on whatever a program reads, the same as those of a data set on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import segadapt
from scored_runs import SIZE, blocks, colour_network, opened, paint, registered, save
from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import evaluate_domain
from segadapt.inference.predictor import Predictor

__all__ = ["registered"]
pytestmark = pytest.mark.usefixtures("registered")
SPACE = load_label_space("cityscapes19")
TRUTH = [blocks(SPACE, seed) for seed in range(3)]
SEEN = [blocks(SPACE, 0), np.full_like(TRUTH[1], 5), blocks(SPACE, 2)]
"""What the images show: in the second one all is wrong."""
IMAGES = [SPACE.palette[np.where(seen == IGNORE, 0, seen)] for seen in SEEN]


@pytest.fixture
def model(tmp_path: Path) -> segadapt.Model:
    save(tmp_path / "model.safetensors", SPACE)
    return segadapt.load(tmp_path / "model.safetensors", device="cpu")


def tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def test_the_scores_are_those_of_a_data_set(model: segadapt.Model, tmp_path: Path) -> None:
    paint(tmp_path, SPACE, "val", TRUTH, [np.where(seen == IGNORE, 0, seen).astype(np.uint8) for seen in SEEN])
    predictor = Predictor(colour_network(SPACE), SIZE)
    expected = evaluate_domain(predictor, opened(tmp_path, SPACE), SPACE, SPACE, layout="cityscapes", split="val")
    done: list[int] = []
    found = segadapt.evaluate(model, zip(IMAGES, TRUTH, strict=True), progress=done.append)
    assert done == [1, 2, 3] and found.images == 3 and 0 < (found.miou or 0) < 100
    for key in ("miou", "dice", "pixel_accuracy", "mean_accuracy", "per_class"):
        assert getattr(found, key) == expected[key]
    assert found.confusion.tolist() == expected["confusion"] and found.record["ece"] == expected["ece"]
    assert found.record["per_image"]["miou"] == expected["per_image"]["miou"]
    assert found.record["per_image"]["names"] == ["pair 0", "pair 1", "pair 2"]
    assert f"mIoU of 3 images{found.miou:>16.2f}" in str(found)


def test_whatever_holds_images_and_labels(model: segadapt.Model, tmp_path: Path) -> None:
    expected = segadapt.evaluate(model, zip(IMAGES, TRUTH, strict=True)).confusion
    for k in range(3):
        Image.fromarray(IMAGES[k]).save(tmp_path / f"{k}.png")
        Image.fromarray(TRUTH[k]).save(tmp_path / f"{k}_ids.png")
    long = [np.where(labels == IGNORE, -100, labels.astype(np.int64)) for labels in TRUTH]
    batch = torch.stack([tensor(image) for image in IMAGES])
    data: Any = [(tensor(i) / 255, torch.from_numpy(t)) for i, t in zip(IMAGES, TRUTH, strict=True)]
    loader: Any = DataLoader(data, batch_size=2)
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "paths": ([(tmp_path / f"{k}.png", str(tmp_path / f"{k}_ids.png")) for k in range(3)], {}),
        "Pillow": ([(Image.fromarray(i), Image.fromarray(t)) for i, t in zip(IMAGES, TRUTH, strict=True)], {}),
        "one channel": ([(tensor(i), torch.from_numpy(t)[None]) for i, t in zip(IMAGES, TRUTH, strict=True)], {}),
        "-100": (zip(IMAGES, long, strict=True), {"ignore": -100}),
        "a batch": ([(batch, torch.from_numpy(np.stack(TRUTH)))], {}),
        "a loader": (loader, {}),
    }
    for name, (pairs, more) in given.items():
        assert (segadapt.evaluate(model, pairs, **more).confusion == expected).all(), name
    named = segadapt.evaluate(tmp_path / "model.safetensors", given["paths"][0])  # a model by its path
    assert named.record["per_image"]["names"] == [str(tmp_path / f"{k}.png") for k in range(3)]


def test_labels_in_another_encoding_and_label_space(model: segadapt.Model) -> None:
    expected = segadapt.evaluate(model, zip(IMAGES, TRUTH, strict=True))
    ids = np.append(SPACE.raw_ids("cityscapes"), 0)
    raw = [ids[np.where(labels == IGNORE, 19, labels)] for labels in TRUTH]
    found = segadapt.evaluate(model, zip(IMAGES, raw, strict=True), encoding="cityscapes")
    assert (found.confusion == expected.confusion).all()
    content = {"classes": [{"name": n, "rgb": {"own": [k, 0, 9]}} for k, n in enumerate(SPACE.classes)]}
    own = LabelSpace.from_dict(content | {"ignored_rgb": {"own": [[255, 0, 9]]}})
    colours = [np.stack([t, t * 0, t * 0 + 9], axis=-1).astype(np.uint8) for t in TRUTH]
    found = segadapt.evaluate(model, zip(IMAGES, colours, strict=True), label_space=own, encoding="own")
    assert (found.confusion[:, :19] == expected.confusion).all() and not found.confusion[:, 19].any()
    fewer = segadapt.evaluate(model, [(IMAGES[0], raw[0])], label_space="cityscapes16", encoding="cityscapes")
    assert list(fewer.per_class) == list(load_label_space("cityscapes16").classes)
    assert fewer.miou == 100


@pytest.mark.parametrize(
    ("pair", "more", "told"),
    [
        ((IMAGES[0],), {}, "pair 0: is a tuple of 1. Give (image, labels)"),
        (IMAGES[0], {}, "pair 0: is a ndarray. Give (image, labels)"),
        ((IMAGES[0], TRUTH[0].T), {}, "pair 0: labels are 16×32, but the image is 32×16"),
        ((IMAGES[0], TRUTH[0] / 255), {}, "labels are float64 (16, 32). Give whole numbers (H, W)"),
        ((IMAGES[0], TRUTH[0] * 0 + 77), {}, "encoding 'train' of label space 'cityscapes19' does not know: 77"),
        ((IMAGES[0], TRUTH[0].astype(int) - 100), {}, "with ignore= the value of unlabelled pixels"),
        ((IMAGES[0], IMAGES[0]), {}, "labels are uint8 (16, 32, 3). Give whole numbers (H, W)"),
        ((np.stack(IMAGES), TRUTH[0]), {}, "a batch of images without as many labels"),
        ((IMAGES[0], TRUTH[0]), {"encoding": "cityscape"}, "has no encoding 'cityscape'"),
        ((IMAGES[0], TRUTH[0]), {"label_space": "cityscape19"}, "unknown label space"),
        (("gone.png", TRUTH[0]), {}, "gone.png: does not exist"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_told(model: segadapt.Model, pair: Any, more: dict[str, Any], told: str) -> None:
    with pytest.raises(SegadaptError) as raised:
        segadapt.evaluate(model, [pair], **more)
    assert told in str(raised.value)


def test_no_pairs_are_no_scores(model: segadapt.Model) -> None:
    with pytest.raises(segadapt.UsageError, match="there are none"):
        segadapt.evaluate(model, [])

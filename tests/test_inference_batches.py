"""Several images in one pass say what each says alone; how many that are; what is made of it by verbs and stages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from command import assert_told, command
from made_pictures import SIZE, files, write_model, write_stages
from scored_runs import SIZE as PAINTED
from scored_runs import blocks, colour_network, opened, paint
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import UsageError
from segadapt.evaluation.evaluate import evaluate_domain
from segadapt.evaluation.own_images import evaluate
from segadapt.inference import memory
from segadapt.inference.model import load
from segadapt.inference.predictor import PUBLISHED_RULES, Predictor
from segadapt.inference.transfers import Fetched, sent
from segadapt.models.networks import build
from segadapt.models.segmenter import Segmenter
from segadapt.weights.saved import load_model
from tiny_runs import run

SPACE = load_label_space("cityscapes19")
Picture = NDArray[np.uint8]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"plain": True},
    {"scales": (1.0, 0.75, 1.5), "mirror": True},
    {"scales": (1.0, 1.5), "mirror": True, "plain": True, "rules": PUBLISHED_RULES},
    {"window": (24, 20)},
    {"scales": (1.0, 0.5), "mirror": True, "window": (24, 20)},
]
EACH_OPTION = pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(one) or "default" for one in OPTIONS])


def network() -> Segmenter:
    """A small one, strong enough that it prefers several classes."""
    torch.manual_seed(0)
    made = build("deeplab_small", classes=7).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def images() -> list[Picture]:
    """Noise in three sizes."""
    random = np.random.default_rng(0)
    shapes = ((60, 90), (48, 64), (31, 77))
    return [np.repeat(np.repeat(random.integers(0, 256, (h // 4, w // 4, 3), np.uint8), 4, 0), 4, 1) for h, w in shapes]


@pytest.mark.usefixtures("float64")
@EACH_OPTION
def test_in_float64_a_batch_says_what_its_images_say_alone(options: dict[str, Any]) -> None:
    predictor, given, sizes = Predictor(network(), (48, 32), **options), images(), [None, (50, 40), None]
    logits = predictor.batch_logits(given)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, torch.cat([predictor.logits(image) for image in given]), rtol=1e-12, atol=1e-12)
    labels, rated = predictor.label_maps(given, sizes), predictor.rated_label_maps(given, sizes, every=3)
    confident = predictor.confident_label_maps(given, sizes)
    for number, (image, size) in enumerate(zip(given, sizes, strict=True)):
        alone, confidence = predictor.confident_labels(image, size)
        assert len(np.unique(alone)) > 1
        for found in (labels[number], rated[number][0], confident[number][0]):
            np.testing.assert_array_equal(found.numpy(), alone)
        np.testing.assert_allclose(confident[number][1].numpy(), confidence, rtol=1e-6)  # float32 holds it
        np.testing.assert_allclose(rated[number][1].numpy(), confidence[::3, ::3], rtol=1e-6)


@pytest.mark.numeric
@EACH_OPTION
def test_in_float32_a_batch_says_the_same_but_for_rounding(options: dict[str, Any]) -> None:
    """Probabilities as near as those of the quick way and the plain one; labels where two classes do not tie."""
    predictor, given = Predictor(network(), (48, 32), **options), images()
    alone = [predictor.probabilities(image) for image in given]
    labels = predictor.label_maps(given, [None] * 3)
    for found, expected, own in zip(predictor.batch_probabilities(given), alone, labels, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
        first, second = np.sort(expected, axis=0)[[-1, -2]]
        clear = first - second > 1e-4
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(own.numpy()[clear], expected.argmax(0)[clear])


def test_how_many_images_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for, or one on a CPU; on a GPU by what one takes, whatever is free."""
    assert Predictor(network(), (96, 64)).batch == 1
    assert Predictor(network(), (96, 64), batch=6).batch == 6
    assert Predictor(network(), (96, 64), batch=6, window=(40, 30)).batch == 6
    assert Predictor(network(), (96, 64), batch=6, window=(40, 30), mirror=True).batch == 1
    with pytest.raises(ValueError, match="0 is not a batch size"):
        Predictor(network(), (96, 64), batch=0)
    there = torch.device("cuda")

    def on_a_gpu(**options: Any) -> int:
        predictor = Predictor(network(), (96, 64), **options)
        predictor.device = there  # only asked which kind it is
        return predictor.batch

    assert on_a_gpu() == memory.MOST and on_a_gpu(plain=True) == 1 and on_a_gpu(batch=6) == 6
    one = memory.pass_bytes(network(), (1, 3, 64, 96), torch.uint8) + 96 * 64 * 12
    for budget, expected in ((one // 2, 1), (2 * one, 2), (3 * one - 1, 2), (100 * one, memory.MOST)):
        monkeypatch.setattr(memory, "BUDGET", budget)
        assert on_a_gpu() == expected
    monkeypatch.setattr(memory, "BUDGET", 4 * one)
    assert on_a_gpu(scales=(1.0, 2.0)) == 1 and on_a_gpu(mirror=True) == 2

    class Asks(nn.Conv2d):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels * float(pixels.max()))

    assert memory.images_within(Asks(3, 1, 1), (1, 3, 8, 8), torch.float32, 0) == 1


def test_a_batch_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 8_000_000_000)
    Predictor(network(), (4096, 2048))
    with pytest.raises(
        UsageError, match=r"40 inputs of 4096×2048 in one pass need about \d+\.\d GB.* smaller size or ba"
    ):
        Predictor(network(), (4096, 2048), batch=40)


def test_no_weights_are_copied_to_count_a_pass() -> None:
    class Held(nn.Conv2d):
        def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
            assert {id(self.weight), id(self.bias)} <= set(memo)
            return self.to("meta")

    assert memory.pass_bytes(Held(3, 1, 1), (1, 3, 8, 8), torch.float32) == 4 * 8 * 8 * 4


def test_what_is_sent_and_fetched_is_what_was_given() -> None:
    """On a CPU; test_on_gpu.py looks at a GPU."""
    given = [np.full((2, 3), number, np.uint8) for number in range(3)]
    there = sent(given, torch.device("cpu"))
    np.testing.assert_array_equal(there.numpy(), np.stack(given))
    given[0][:] = 9
    assert not there[0].any()  # a copy: whoever read the image may use its memory again
    np.testing.assert_array_equal(Fetched(there.mT).numpy(), there.mT.numpy())


def scored(folder: Path, batch: int) -> tuple[dict[str, Any], dict[str, Picture], Any]:
    """Scores of five images, what was kept of each, and how far it was each time."""
    kept: dict[str, Picture] = {}
    told: list[tuple[int, int]] = []
    predictor, passes = Predictor(colour_network(SPACE), PAINTED, batch=batch), list[int]()
    predictor._running_network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))

    def keep(name: str, image: Picture, labels: Picture) -> None:
        seen = image.any(axis=2)  # ignored pixels are black
        np.testing.assert_array_equal(SPACE.palette[labels][seen], image[seen])  # the network knows every colour
        kept[name] = labels

    found = evaluate_domain(
        predictor, opened(folder, SPACE), SPACE, SPACE, layout="cityscapes", split="val",
        keep=keep, progress=lambda done, count: told.append((done, count)),
    )  # fmt: skip
    assert passes == ([1] * 5 if batch == 1 else [3, 2])
    return found, kept, told


@pytest.mark.numeric
def test_scores_of_a_batch_are_those_of_its_images(tmp_path: Path) -> None:
    labels = [blocks(SPACE, seed, classes=11) for seed in range(5)]
    paint(tmp_path, SPACE, "val", labels, labels[1:] + labels[:1])
    (alone, kept_alone, _), (found, kept, told) = (scored(tmp_path, batch) for batch in (1, 3))
    assert told == [(3, 5), (5, 5)] and sorted(kept) == found["per_image"]["names"]
    assert all((kept[name] == kept_alone[name]).all() for name in kept)
    rounded = ("calibration", "ece")
    assert {key: value for key, value in found.items() if key not in rounded} == {
        key: value for key, value in alone.items() if key not in rounded
    }
    assert found["calibration"]["right"] == alone["calibration"]["right"]
    assert found["ece"] == pytest.approx(alone["ece"], abs=1e-3)


def test_own_images_are_scored_in_batches(tmp_path: Path) -> None:
    model = load(write_model(tmp_path / "model.safetensors"), device="cpu")
    random = np.random.default_rng(0)
    pairs = [(image, random.integers(0, 19, image.shape[:2], np.uint8)) for image in images()]
    alone = evaluate(model, pairs)
    model.predictor.batch, passes, told = 2, list[int](), list[int]()
    model.predictor._running_network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    found = evaluate(model, pairs, progress=told.append)
    assert passes == [2, 1] and told == [1, 2, 3]
    assert np.abs(found.confusion - alone.confusion).sum() <= 2  # of 9,000 pixels, those where classes tie


@pytest.mark.numeric
def test_pseudo_labels_in_batches_and_another_batch_does_nothing_again(tmp_path: Path) -> None:
    """A run in batches, held to one image by image; then the same run with other batches: there is nothing to do."""
    recipe = write_stages(tmp_path, pseudo_labels={})
    run(recipe, tmp_path / "alone")
    run(recipe, tmp_path / "four", "runtime.inference_batch=4")
    stages = [tmp_path / name / "pseudo_labels" for name in ("alone", "four")]
    alone, four = (files(stage) for stage in stages)
    assert list(alone) == list(four)
    for place in alone:
        if place.startswith(("argmax", "confidence")):
            one, other = (np.asarray(Image.open(stage / place)).astype(int) for stage in stages)
            near = np.abs(one - other) <= (0 if place.startswith("argmax") else 1)
            assert near.mean() > 0.99
    before = {path: path.stat().st_mtime_ns for path in stages[1].rglob("*.png")}
    run(recipe, tmp_path / "four", "runtime.inference_batch=3")
    assert {path: path.stat().st_mtime_ns for path in stages[1].rglob("*.png")} == before


def test_the_verbs_take_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """`predict` and `pseudo-label`, of images in several sizes; for frames of a sequence it is refused."""
    model, passes = write_model(tmp_path / "model.safetensors"), list[int]()
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images()):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    maps = Predictor.label_maps

    def counted(self: Predictor, given: Any, sizes: Any) -> list[Tensor]:
        passes.append(len(given))
        return maps(self, given, sizes)

    monkeypatch.setattr(Predictor, "label_maps", counted)
    given = ("predict", model, tmp_path / "in", "--format", "train_id", "--batch", 2, "--device", "cpu")
    assert command(capsys, *given, "-o", tmp_path / "out").code == 0
    assert passes == [2, 1]
    predictor = Predictor(load_model(model).network, SIZE)
    for number, image in enumerate(images()):
        found = np.asarray(Image.open(tmp_path / "out" / f"{number}.png"))
        assert (found == predictor.labels(image)).mean() > 0.99
    refused = command(capsys, *given, "-o", tmp_path / "frames", "--every", 2)
    assert_told(refused, 2, "--batch", "frames go through the network one by one", "Leave it out.")
    wrong = command(capsys, *given[:-3], 0, "-o", tmp_path / "out")
    assert wrong.code == 2 and "--batch" in wrong.err
    said = command(capsys, "pseudo-label", model, tmp_path / "in", "-o", tmp_path / "labels", "--batch", 3)
    assert said.code == 0 and len(list((tmp_path / "labels/labels").iterdir())) == 3

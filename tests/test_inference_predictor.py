"""The predictor against float references written out by hand, and what it leaves untouched."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.inference.predictor import Predictor, ViewRules
from segadapt.models.segmenter import IMAGENET, Segmenter

pytestmark = pytest.mark.numeric

SIZE = (64, 48)  # (W, H) of the network's input
CLASSES = 5
Picture = NDArray[np.uint8]


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    return Tiny(CLASSES, attention=True)


@pytest.fixture
def image() -> Picture:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


class Tiny(Segmenter):
    """Two convolutions, stride 4, random weights that give each class some pixels."""

    pixels = IMAGENET
    stride = 4

    def __init__(self, classes: int, attention: bool) -> None:
        super().__init__(classes, 8, attention)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2, bias=False), nn.GroupNorm(2, 8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 3, padding=1, bias=False)

    def encode(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.body(pixels)
        return features

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = self.head(features)
        return (logits,)


class Pointwise(Segmenter):
    """Logits of each pixel from this pixel alone, at stride 1: any way of cutting the image must agree."""

    pixels = IMAGENET
    stride = 1

    def __init__(self, classes: int) -> None:
        super().__init__(classes, 3)
        self.conv = nn.Conv2d(3, classes, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = self.conv(features)
        return (logits,)


def resized(image: Picture) -> Tensor:
    picture = Image.fromarray(image).resize(SIZE, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


def up(maps: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
def test_whole_is_the_published_evaluation(network: Segmenter, image: Picture, align_corners: bool) -> None:
    network.align_corners = align_corners
    predictor = Predictor(network, SIZE)
    with torch.no_grad():
        logits = network.eval()(resized(image)).logits
    expected = up(logits, 60, 90, align_corners)

    labels = predictor.labels(image)
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, expected.argmax(1)[0].numpy())
    np.testing.assert_allclose(predictor.probabilities(image), expected.softmax(1)[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(predictor.label_map_from(predictor.logits(image), (90, 60)).numpy(), labels)


def test_output_size_is_width_and_height(network: Segmenter, image: Picture) -> None:
    predictor = Predictor(network, SIZE)
    assert predictor.labels(image, (31, 17)).shape == (17, 31)
    assert predictor.probabilities(image, (31, 17)).shape == (CLASSES, 17, 31)


def test_scales_and_mirror_average_softmax_maps(network: Segmenter, image: Picture) -> None:
    scales = (1.0, 0.75, 1.25)
    pixels = resized(image)
    maps = []
    with torch.no_grad():
        for scale in scales:
            view = pixels if scale == 1.0 else up(pixels, round(48 * scale), round(64 * scale))
            maps.append(up(network.eval()(view).logits, 60, 90).softmax(1))
            maps.append(up(network(view.flip(3)).logits.flip(3), 60, 90).softmax(1))
    expected = torch.stack(maps).mean(0)[0]

    predictor = Predictor(network, SIZE, scales=scales, mirror=True)
    np.testing.assert_allclose(predictor.probabilities(image), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(predictor.probabilities(image).sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(predictor.labels(image), expected.argmax(0).numpy())
    assert (predictor.labels(image) != Predictor(network, SIZE).labels(image)).any()


def published_map(network: Segmenter, pixels: Tensor) -> Tensor:
    """The published sum over scales 1, 0.75, 1.5 and their mirror images, at the network's input size (48×64)."""
    maps = []
    for scale in (1.0, 0.75, 1.5):
        scaled = pixels if scale == 1.0 else up(pixels, round(48 * scale), round(64 * scale), align_corners=True)
        for mirrored in (False, True):
            view = scaled.flip(3) if mirrored else scaled
            if scale == 1.5:
                left, right = (
                    torch.cat([network(view[:, :, r : r + 36, c : c + 48]).logits for r in (0, 36)], 2) for c in (0, 48)
                )
                logits = torch.cat((left, right), 3)
            else:
                logits = network(view).logits
            logits = logits.flip(3) if mirrored else logits
            plain = scale == 1.0 and not mirrored
            late, early = up(logits, 48, 64, True).softmax(1), up(logits.softmax(1), 48, 64, True)
            maps.append(late if plain else early)
    return torch.stack(maps).sum(0)


def test_the_published_rules_of_several_views(network: Segmenter, image: Picture) -> None:
    network.align_corners = True
    with torch.no_grad():
        expected = published_map(network.eval(), resized(image))
    scales = (1.0, 0.75, 1.5)
    published = Predictor(network, SIZE, scales=scales, mirror=True, rules=ViewRules(True, True, True))
    labels, confidence = published.confident_labels(image, SIZE)
    np.testing.assert_array_equal(labels, expected.argmax(1)[0].numpy())
    np.testing.assert_allclose(confidence, expected.amax(1)[0].numpy() / 6, atol=1e-6)

    larger = up(expected, 96, 128, align_corners=True)  # as the published evaluation makes it
    np.testing.assert_array_equal(published.labels(image, (128, 96)), larger.argmax(1)[0].numpy())
    np.testing.assert_allclose(published.probabilities(image, (128, 96)), larger[0].numpy() / 6, atol=1e-6)

    assert ViewRules(softmax_order=True).names == ["softmax_order"]
    for rules in (ViewRules(False, True, True), ViewRules(True, False, True), ViewRules(True, True, False)):
        other = Predictor(network, SIZE, scales=scales, mirror=True, rules=rules)
        assert np.abs(other.probabilities(image, (128, 96)) - larger[0].numpy() / 6).max() > 1e-4


def test_rules_of_several_views_say_nothing_about_one(network: Segmenter, image: Picture) -> None:
    published = Predictor(network, SIZE, rules=ViewRules(True, True, True))
    np.testing.assert_array_equal(published.probabilities(image), Predictor(network, SIZE).probabilities(image))
    labels, confidence = published.confident_labels(image)
    np.testing.assert_array_equal(labels, published.labels(image))
    np.testing.assert_array_equal(confidence, published.probabilities(image).max(0))


def test_quadrants_of_odd_sizes_and_with_windows(image: Picture) -> None:
    torch.manual_seed(0)
    network = Pointwise(CLASSES)
    views = {"scales": (1.5,), "mirror": True}
    whole = Predictor(network, (33, 25), **views).probabilities(image)  # type: ignore[arg-type]
    for window in (None, (11, 9)):
        cut = Predictor(network, (33, 25), **views, window=window, rules=ViewRules(quadrants=True))  # type: ignore[arg-type]
        np.testing.assert_allclose(cut.probabilities(image), whole, atol=1e-5)


def test_a_mirrored_image_gives_mirrored_probabilities(network: Segmenter) -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    predictor = Predictor(network, SIZE, mirror=True)
    there = predictor.probabilities(image)
    back = predictor.probabilities(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(there, back[:, :, ::-1], atol=1e-5)


@pytest.mark.parametrize("window", [SIZE, (1000, 1000)])
def test_a_window_over_everything_is_the_whole(network: Segmenter, image: Picture, window: tuple[int, int]) -> None:
    np.testing.assert_array_equal(
        Predictor(network, SIZE, window=window).probabilities(image), Predictor(network, SIZE).probabilities(image)
    )


def test_the_published_windows_begin_half_a_window_apart_and_count_alike(network: Segmenter) -> None:
    """Windows of 32 on 80 pixels start at 0, 16, 32, 48: of the last 16 pixels only the last sees anything."""
    image = np.random.default_rng(3).integers(0, 256, (32, 80, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    total, count = torch.zeros(1, network.classes, 32, 80), torch.zeros(80)
    for left in (0, 16, 32, 48):
        here = slice(left, left + 32)
        with torch.no_grad():
            total[..., here] += network.upsample(network(pixels[..., here]).logits, (32, 32))
        count[here] += 1
    rules = ViewRules(half_windows=True)
    found = Predictor(network, (80, 32), window=(32, 32), rules=rules).probabilities(image)
    np.testing.assert_allclose(found, (total / count).softmax(1)[0].numpy(), atol=1e-5)


def test_the_rules_that_matter_are_known(network: Segmenter) -> None:
    """Of several views and of windows, each only where there are some; evaluation.json records them."""
    rules = ViewRules(softmax_order=True, half_windows=True)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, []),
        ({"window": (32, 32)}, ["half_windows"]),
        ({"mirror": True}, ["softmax_order"]),
        ({"mirror": True, "window": (32, 32)}, ["softmax_order", "half_windows"]),
    ]
    for views, expected in cases:
        assert Predictor(network, SIZE, rules=rules, **views).applied_rules == expected


@pytest.mark.parametrize("window", [(16, 16), (64, 16), (33, 7), (63, 47), (2, 3)])
def test_windows_of_a_pointwise_network_agree_with_the_whole(image: Picture, window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = Pointwise(CLASSES)
    np.testing.assert_allclose(
        Predictor(network, SIZE, window=window).probabilities(image),
        Predictor(network, SIZE).probabilities(image),
        atol=1e-5,
    )


def test_windows_overlap_by_a_third_and_are_blended(network: Segmenter) -> None:
    """Two windows of 48 on 64 pixels start at 0 and 16; where they overlap, tent weights mix their logits."""
    image = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    pixels = resized(image)
    tent = torch.minimum(torch.arange(1.0, 49.0), torch.arange(48.0, 0.0, -1.0))
    total, weights = torch.zeros(1, CLASSES, 48, 64), torch.zeros(64)
    with torch.no_grad():
        for left in (0, 16):
            logits = up(network.eval()(pixels[..., left : left + 48]).logits, 48, 48)
            total[..., left : left + 48] += tent * logits
            weights[left : left + 48] += tent
    expected = (total / weights).softmax(1)[0]

    windowed = Predictor(network, SIZE, window=(48, 48)).probabilities(image)
    np.testing.assert_allclose(windowed, expected.numpy(), atol=1e-5)


def test_attention(network: Segmenter, image: Picture) -> None:
    attention = Predictor(network, SIZE).attention(image)
    with torch.no_grad():
        expected = up(network.eval()(resized(image)).attention, 60, 90)[0, 0]
    assert attention is not None
    np.testing.assert_allclose(attention, expected.numpy(), atol=1e-6)
    assert Predictor(Tiny(CLASSES, attention=False), SIZE).attention(image) is None


def test_bf16_runs_the_network_in_bf16_and_nothing_else(network: Segmenter, image: Picture) -> None:
    seen: list[torch.dtype] = []
    handle = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    low = Predictor(network, SIZE, precision="bf16")
    assert low.logits(image).dtype == torch.float32
    assert low.probabilities(image).dtype == np.float32
    assert set(seen) == {torch.bfloat16}
    handle.remove()
    full = Predictor(network, SIZE).probabilities(image)
    np.testing.assert_allclose(low.probabilities(image), full, atol=0.1)


def test_it_runs_in_eval_mode_and_leaves_every_mode_as_it_was(network: Segmenter, image: Picture) -> None:
    network.train()
    frozen = next(m for m in network.modules() if isinstance(m, nn.GroupNorm)).eval()
    modes: list[bool] = []
    network.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    Predictor(network, SIZE).labels(image)
    assert modes == [False]
    assert network.training
    assert not frozen.training
    assert sum(module.training for module in network.modules()) == len(list(network.modules())) - 1


def test_a_wrong_image_or_size_is_refused(network: Segmenter, image: Picture) -> None:
    predictor = Predictor(network, SIZE)
    with pytest.raises(ValueError, match="uint8 RGB"):
        predictor.labels(image.astype(np.float32))
    with pytest.raises(ValueError, match="uint8 RGB"):
        predictor.labels(image[..., 0])
    with pytest.raises(ValueError, match="positive"):
        Predictor(network, SIZE, scales=())


@pytest.mark.parametrize("plain", [False, True])
def test_a_predictor_goes_with_the_last_reference_to_it(network: Segmenter, plain: bool) -> None:
    """Its copy of the network too: an evaluation during training makes one each time."""
    gc.disable()
    try:
        predictor = Predictor(network, (32, 16), plain=plain)
        predictor.labels(np.zeros((16, 32, 3), np.uint8))
        last = weakref.ref(predictor)
        del predictor
        assert last() is None
    finally:
        gc.enable()

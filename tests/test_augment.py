"""Augmentation on the device: against the recorded published functions, numbers by hand, and laws."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded.images import UNLABELLED, scene
from segadapt.augment.block_mask import draw_blocks, grid, masked, visible
from segadapt.augment.blur import blur, kernel_side
from segadapt.augment.class_mix import class_mix, draw_classes, pasted_pixels
from segadapt.augment.colour import (
    JitterDraws,
    all_at_once,
    draw_jitter,
    jitter,
    published_jitter,
    to_hsv,
    to_rgb,
    turned,
)
from segadapt.augment.draw import between, bits, permutation, uniform
from segadapt.augment.fourier import with_amplitudes_of
from segadapt.models.segmenter import IMAGENET

SEEDS = torch.tensor([5, 6, 2**63 - 1])


@cache
def recorded() -> dict[str, np.ndarray]:
    """Arrays of the published programs (MIC 2f932a9 with kornia 0.5.8; FDA b9a0cdf), some thinned out, masks packed."""
    with np.load(Path(__file__).parent / "recorded/augment.npz") as file:
        return dict(file)


def crop(seed: int, top: int, left: int, flip: bool, size: int = 64) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) and label (H, W), 255 = ignored, as the recorded functions have seen them."""
    image, label = (pixels[top : top + size, left : left + size] for pixels in scene(seed, 480, 360))
    label = np.where(label == UNLABELLED, 255, label).astype(np.uint8)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    return torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(label.copy())


def source() -> tuple[Tensor, Tensor]:
    pairs = [crop(101, 124, 313, False), crop(100, 123, 290, True)]
    return torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])


def test_numbers_are_a_function_of_seed_stream_and_index() -> None:
    drawn = bits(SEEDS, "a", 4)
    # SplitMix64 by hand, in Python's integers.
    assert [[value % 2**64 for value in row] for row in drawn.tolist()] == [by_hand(int(s), "a", 4) for s in SEEDS]
    assert torch.equal(bits(SEEDS[1:2], "a", 2)[0], drawn[1, :2])  # neither the batch nor the count matters
    assert not torch.isin(bits(SEEDS, "b", 4), drawn).any()
    half, single, double = (
        uniform(SEEDS, "a", (2, 2), dtype) for dtype in (torch.float16, torch.float32, torch.float64)
    )
    assert half.shape == (3, 2, 2) and single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=2**-24) and (single <= double).all()


def by_hand(seed: int, stream: str, count: int) -> list[int]:
    import hashlib

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = mix(seed ^ int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big"))
    return [mix((key + k * 0x9E3779B97F4A7C15) % 2**64) for k in range(1, count + 1)]


def test_numbers_are_spread_evenly_and_independent() -> None:
    seeds = torch.arange(2000)
    drawn = uniform(seeds, "spread", (50,), torch.float64)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn, 20, 0, 1)
    assert ((counts - 5000).abs() < 5 * math.sqrt(5000)).all()
    across = torch.corrcoef(torch.stack([drawn[:, 0], drawn[:, 1], uniform(seeds, "other", dtype=torch.float64)]))
    assert (across - torch.eye(3)).abs().max() < 0.1
    assert (drawn[1:, 0] > drawn[:-1, 0]).double().mean() == pytest.approx(0.5, abs=0.05)  # seeds beside each other
    orders = permutation(seeds, "order", 3)
    assert orders.sort(dim=1).values.eq(torch.arange(3)).all()
    times = [int((orders * torch.tensor([9, 3, 1])).sum(1).eq(k).sum()) for k in (5, 7, 11, 15, 19, 21)]
    assert sum(times) == 2000 and all(abs(count - 2000 / 6) < 90 for count in times)
    low = between(seeds, "range", 2.0, 3.0)
    assert 2 <= low.min() < 2.01 and 2.99 < low.max() < 3.0001


PARAMETERS = [
    ([2, 0, 3, 1], [1.15], [0.85], [1.2], [0.13]),
    ([3, 1, 0, 2], [0.82], [1.19], [0.8], [-0.2]),
    ([0, 1, 2, 3], [1.2], [1.2], [1.2], [0.2]),
    ([1, 3, 2, 0], [1.1, 0.9], [0.9, 1.1], [0.85, 1.15], [0.05, -0.1]),
]


def draws(order: list[int], *amounts: list[float]) -> JitterDraws:
    brightness, contrast, saturation, hue = (torch.tensor(values) for values in amounts)
    return JitterDraws(brightness, contrast, saturation, hue, torch.tensor([order] * len(hue)))


@pytest.mark.parametrize("call", range(4))
def test_published_jitter_is_as_recorded(call: int) -> None:
    given = PARAMETERS[call]
    images = source()[0][: len(given[1])].float()
    ours = IMAGENET(published_jitter(images, draws(*given)))[..., ::2, ::2]
    assert ours.numpy() == pytest.approx(recorded()[f"jitter.{call}"], abs=2e-5)


@pytest.mark.parametrize(
    ("operation", "amount"), [("brightness", 1.15), ("contrast", 0.85), ("saturation", 1.2), ("hue", 0.13)]
)
def test_each_published_operation_is_as_recorded(operation: str, amount: float) -> None:
    amounts = {"brightness": [1.0], "contrast": [1.0], "saturation": [1.0], "hue": [0.0]} | {operation: [amount]}
    ours = published_jitter(source()[0][:1].float(), draws([0, 1, 2, 3], *amounts.values()))[..., ::4, ::4] / 255
    assert ours.numpy() == pytest.approx(recorded()[f"jitter.only_{operation}"], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jitter_by_hand(dtype: torch.dtype) -> None:
    pixel = torch.tensor([[200.0, 100.0, 50.0], [20.0, 40.0, 60.0]], dtype=dtype).view(1, 2, 3, 1).permute(0, 2, 3, 1)
    grey = (pixel * torch.tensor([0.2989, 0.587, 0.114], dtype=dtype).view(3, 1, 1)).sum(1, keepdim=True)
    none = ([1.0], [1.0], [1.0], [0.0])
    expected = {
        0: (1.5 * pixel).clamp(max=255),
        1: (0.5 * pixel + 0.5 * grey.mean()),
        2: (1.5 * pixel - 0.5 * grey).clamp(0, 255),
        3: pixel[:, [2, 0, 1]],  # a third of the circle: red becomes green
    }
    for which, amount in ((0, 1.5), (1, 0.5), (2, 1.5), (3, 1 / 3)):
        amounts = [[amount] if k == which else values for k, values in enumerate(none)]
        found = jitter(pixel, draws([3, 2, 1, 0], *amounts))
        assert found.dtype == dtype and torch.allclose(found, expected[which], atol=1e-3)
    assert torch.allclose(jitter(pixel, draws([0, 1, 2, 3], *none)), pixel, atol=1e-3)


def test_jitter_of_a_sample_depends_on_its_seed_alone() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    together = jitter(images, draw_jitter(SEEDS, "x"))
    for k in range(3):
        assert torch.equal(jitter(images[k : k + 1], draw_jitter(SEEDS[k : k + 1], "x"))[0], together[k])
    assert not torch.equal(jitter(images, draw_jitter(SEEDS, "y")), together)
    strong = draw_jitter(torch.arange(500), "x", brightness=0.1, hue=0.4)
    assert strong.brightness.min() >= 0.9 and strong.brightness.max() <= 1.1
    assert strong.hue.min() < -0.35 and strong.hue.max() > 0.35


@pytest.mark.parametrize("semantics", [jitter, published_jitter])
def test_a_gpu_takes_another_way_to_the_same_images(
    semantics: Callable[[Tensor, JitterDraws], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, drawn = source()[0].double(), draw_jitter(SEEDS[:2], "x")
    alone = semantics(images, drawn)
    monkeypatch.setattr("segadapt.augment.colour.one_by_one", all_at_once)
    assert torch.allclose(semantics(images, drawn), alone, rtol=0, atol=1e-9)


def test_hue_and_back() -> None:
    colours = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    colours[0, :, :4] = colours[0, :1, :4]  # greys
    colours[1, :, 0, 0] = 0
    assert torch.allclose(to_rgb(*to_hsv(colours)), colours, atol=1e-12)
    assert torch.allclose(turned(colours, torch.tensor([1.0, -2.0], dtype=torch.float64).view(2, 1, 1, 1)), colours)


@pytest.mark.parametrize(("call", "sigma", "size"), [(0, 0.4, (64, 64)), (1, 1.1, (64, 64)), (2, 0.7, (40, 56))])
def test_blur_is_as_recorded(call: int, sigma: float, size: tuple[int, int]) -> None:
    image = IMAGENET(source()[0][:1])[..., : size[0], : size[1]]
    assert blur(image, torch.tensor([sigma]))[..., ::2, ::2].numpy() == pytest.approx(
        recorded()[f"blur.{call}"], abs=2e-6
    )


def test_blur_has_a_strength_for_each_image_and_the_published_sides() -> None:
    published = {40: 3, 56: 5, 64: 7, 96: 9, 100: 9, 128: 13, 256: 25, 512: 51, 768: 77, 1024: 103}
    assert {side: kernel_side(side) for side in published} == published
    images, sigma = source()[0], torch.tensor([0.3, 1.0])
    both = blur(images, sigma)
    for k in range(2):
        assert torch.allclose(both[k], blur(images[k : k + 1], sigma[k : k + 1])[0], atol=1e-4)
    assert torch.equal(blur(torch.full((1, 3, 8, 8), 7.0), torch.tensor([1.0])), torch.full((1, 3, 8, 8), 7.0))
    assert blur(images.double(), sigma).dtype == torch.float64


CHOSEN = [[0, 2, 3, 5, 6, 9, 15], [0, 2, 5, 12, 13, 17, 255]]


def test_pasted_pixels_are_as_recorded() -> None:
    _, labels = source()
    chosen = torch.zeros(2, 256, dtype=torch.bool)
    for k, ids in enumerate(CHOSEN):
        chosen[k, ids] = True
    expected = np.unpackbits(recorded()["class_mix.mask"], axis=-1).astype(bool)
    assert np.array_equal(pasted_pixels(labels, chosen).numpy(), expected)


def test_half_of_the_classes_are_drawn() -> None:
    _, labels = source()
    distinct = [set(label.unique().tolist()) for label in labels]
    many = torch.arange(300)
    for k, own in enumerate(distinct):
        chosen = draw_classes(labels[k : k + 1].expand(300, -1, -1), many, "mix")
        ids = own - {255}
        assert (chosen.sum(1) == (len(ids) + 1) // 2).all()
        assert set(chosen.any(0).nonzero().flatten().tolist()) == ids
        assert (chosen.double().mean(0)[sorted(ids)] - math.ceil(len(ids) / 2) / len(ids)).abs().max() < 0.15
    published = draw_classes(labels, SEEDS[:2], "mix", published=True)
    whole = distinct[0] | distinct[1]
    assert 255 in whole and (published.sum(1) == math.ceil(len(whole) / 2)).all()
    assert set(published.any(0).nonzero().flatten().tolist()) <= whole and not torch.equal(*published)
    assert not draw_classes(torch.full((1, 4, 4), 255), SEEDS[:1], "mix").any()


def test_class_mix_pastes_image_label_and_weight() -> None:
    images, labels = source()
    others, pseudo = 255 - images, torch.full((2, 64, 64), 7)
    mixed = class_mix((images, labels), (others, pseudo), torch.full((2, 64, 64), 0.25), SEEDS[:2])
    there = mixed.pasted
    assert there.any() and not there.all() and not there[labels == 255].any()
    assert torch.equal(mixed.images, torch.where(there[:, None], images, others))
    assert torch.equal(mixed.labels, torch.where(there, labels.long(), pseudo))
    assert torch.equal(mixed.weights, torch.where(there, 1.0, 0.25))
    alone = class_mix((images[1:], labels[1:]), (others[1:], pseudo[1:]), torch.ones(1, 64, 64), SEEDS[1:2])
    assert torch.equal(alone.pasted[0], there[1])
    assert (
        class_mix((images.float(), labels), (others, pseudo), torch.ones(2, 64, 64), SEEDS[:2]).images.dtype
        == torch.float32
    )


def test_block_masks_are_as_recorded() -> None:
    drawn = torch.from_numpy(recorded()["block_mask.uniforms"])
    assert grid((56, 72), 16) == (4, 4) and grid((64, 96), 16) == (4, 6) and grid((5, 5), 16) == (1, 1)
    for size, columns in (((64, 96), 6), ((56, 72), 4)):
        keep = visible(drawn[..., :columns], size, 0.7)[:, 0].numpy()
        assert np.array_equal(keep, np.unpackbits(recorded()[f"block_mask.{size[0]}x{size[1]}"], axis=-1).astype(bool))


def test_block_masks_hide_their_share_with_the_mean_colour() -> None:
    keep = draw_blocks(torch.arange(400), "mask", (64, 96), 16, 0.7)
    assert keep.shape == (400, 1, 64, 96) and keep.double().mean() == pytest.approx(0.3, abs=0.02)
    assert keep.view(400, 4, 16, 6, 16).transpose(2, 3).flatten(3).double().var(-1).eq(0).all()  # whole blocks
    images = source()[0]
    keep = draw_blocks(SEEDS[:2], "mask", (64, 64), 16, 0.5)
    pixels = IMAGENET(masked(images, keep, IMAGENET.inverse(torch.zeros(1, 3, 1, 1)).flatten()))
    assert torch.allclose(pixels, IMAGENET(images) * keep, atol=1e-5)


FDA = {"0": ((100, 200), (50, 114), (60, 156)), "1": ((101, 201), (50, 113), (60, 155))}


@pytest.mark.parametrize("call", FDA)
@pytest.mark.parametrize("variant", ["script", "training"])
def test_amplitudes_are_swapped_as_recorded(call: str, variant: str) -> None:
    seeds, rows, columns = FDA[call]
    own, other = (
        torch.from_numpy(scene(seed, 480, 360)[0][slice(*rows), slice(*columns)]).permute(2, 0, 1)[None]
        for seed in seeds
    )
    expected = recorded()[f"fda.{call}.{variant}"]
    for images in (own, own.double()):
        target = other.to(images.dtype)
        ours = with_amplitudes_of(target, images, 0.1, published=variant == "training")
        assert ours[0, :, ::4, ::4].numpy() == pytest.approx(expected, abs=2e-3)


def test_without_a_window_an_image_stays_as_it_is() -> None:
    images = source()[0].double()
    assert torch.allclose(with_amplitudes_of(255 - images, images, 0.0, published=True), images)
    mean = with_amplitudes_of(255 - images, images, 0.0).mean(dim=(2, 3))  # frequency 0 alone: the mean colour
    assert torch.allclose(mean, (255 - images).mean(dim=(2, 3)))


def test_the_host_asks_for_no_number_of_the_device() -> None:
    """A tensor on `meta` has none, so that whatever waits for one fails: such code could be captured in no graph."""
    with torch.device("meta"):
        images, labels = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8)
        seeds = torch.zeros(2, dtype=torch.int64)
        for semantics in (jitter, published_jitter):
            images = semantics(images, draw_jitter(seeds, "jitter"))
        images = blur(images, between(seeds, "sigma", 0.15, 1.15))
        for published in (False, True):
            mixed = class_mix((images, labels), (images, labels), torch.zeros(2, 32, 32), seeds, published=published)
            images = with_amplitudes_of(images, mixed.images, 0.05, published)
        images = masked(images, draw_blocks(seeds, "mask", (32, 32), 8, 0.7), torch.zeros(3))
    assert images.shape == (2, 3, 32, 32) and images.is_meta

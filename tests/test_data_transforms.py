"""Augmentation: label and image stay together, everything comes from the seed, padding is ignored."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from layouts import write_layout
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.transforms import PADDING_COLOR, Augmentation, Need, fitted

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
BLOCKS = np.kron(RNG.integers(0, 19, (6, 8), dtype=np.uint8), np.ones((10, 10), np.uint8))


def coded(labels: np.ndarray) -> np.ndarray:
    """An image that shows its labels, 10 grey levels apart."""
    return np.repeat((10 * labels)[..., None], 3, axis=-1).astype(np.uint8)


def test_off_by_default() -> None:
    image, label = Augmentation()(IMAGE, BLOCKS, 5)
    assert np.array_equal(image, IMAGE) and label is not None and np.array_equal(label, BLOCKS)


@pytest.mark.parametrize("seed", range(12))
def test_label_follows_image(seed: int) -> None:
    augmentation = Augmentation(scale=(0.5, 2.0), crop=(70, 50), mirror=0.5)
    image, label = augmentation(coded(BLOCKS), BLOCKS, seed)
    assert label is not None and image.shape == (50, 70, 3) and label.shape == (50, 70)
    inside = label != IGNORE
    # Away from edges between blocks, where bicubic mixes and rings, the picture still shows its label.
    agree = np.abs(image[..., 0].astype(int)[inside] - 10 * label[inside].astype(int)) < 5
    assert agree.mean() > 0.6
    padded = image[~inside]
    assert len(padded) == 0 or (padded == PADDING_COLOR).all()


def test_only_the_seed_decides_and_options_do_not_disturb_each_other() -> None:
    everything = Augmentation(
        scale=(0.7, 1.4), mirror=0.5, brightness=0.4, contrast=0.3, saturation=0.4, hue=0.1, cast=0.2
    )
    first, second, other = (everything(IMAGE, BLOCKS, seed) for seed in ((7, 1), (7, 1), (7, 2)))
    assert np.array_equal(first[0], second[0]) and not np.array_equal(first[0], other[0])
    geometry_only = Augmentation(scale=(0.7, 1.4), mirror=0.5)(IMAGE, BLOCKS, (7, 1))
    assert first[1] is not None and geometry_only[1] is not None and np.array_equal(first[1], geometry_only[1])


def test_mirror_crop_and_padding_exactly() -> None:
    image, label = Augmentation(mirror=1.0)(IMAGE, BLOCKS, 0)
    assert label is not None and np.array_equal(image, IMAGE[:, ::-1]) and np.array_equal(label, BLOCKS[:, ::-1])
    image, label = Augmentation(crop=(30, 20))(IMAGE, BLOCKS, 3)
    places = [
        (y, x) for y in range(41) for x in range(51) if np.array_equal(IMAGE[y : y + 20, x : x + 30], image)
    ]  # fmt: skip
    assert len(places) == 1
    y, x = places[0]
    assert label is not None and np.array_equal(label, BLOCKS[y : y + 20, x : x + 30])
    image, label = Augmentation(scale=(0.5, 0.5))(IMAGE, BLOCKS, 0)
    assert label is not None and label.shape == BLOCKS.shape and (label != IGNORE).sum() == 40 * 30
    half = np.asarray(Image.fromarray(IMAGE).resize((40, 30), Image.Resampling.BICUBIC))
    assert np.array_equal(image[label != IGNORE].reshape(30, 40, 3), half)


def test_crops_reach_every_corner() -> None:
    tops = {
        tuple(np.argwhere((image[0, 0] == IMAGE).all(axis=-1))[0])
        for image, _ in (Augmentation(crop=(78, 58))(IMAGE, None, seed) for seed in range(200))
    }
    assert tops == {(y, x) for y in range(3) for x in range(3)}


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "hue", "cast"])
def test_jitter_changes_colours_only(option: str) -> None:
    image, label = Augmentation.model_validate({option: 0.4})(IMAGE, BLOCKS, 1)
    assert not np.array_equal(image, IMAGE) and image.shape == IMAGE.shape
    assert label is not None and np.array_equal(label, BLOCKS)
    if option == "hue":
        value = [np.asarray(Image.fromarray(pixels).convert("HSV"))[..., 2].astype(int) for pixels in (image, IMAGE)]
        assert np.abs(value[0] - value[1]).max() <= 3


def test_a_cast_scales_each_channel_by_its_own_factor() -> None:
    image = np.stack([np.full((4, 4), level, np.uint8) for level in (40, 80, 160)], axis=-1)
    drawn = [Augmentation(cast=0.2)(image, None, seed)[0].astype(float) / image for seed in range(300)]
    assert all((factors == factors[0, 0]).all() for factors in drawn)
    of_channels = np.stack([factors[0, 0] for factors in drawn])
    np.testing.assert_allclose(of_channels.min(0), 0.8, atol=0.02)
    np.testing.assert_allclose(of_channels.max(0), 1.2, atol=0.02)
    assert np.abs(np.corrcoef(of_channels.T)[np.triu_indices(3, 1)]).max() < 0.2  # each its own


def test_a_saturation_of_smallest_and_largest() -> None:
    """The factor scales the difference between the channels; one strength s is the same as [1 - s, 1 + s]."""
    image = np.empty((4, 4, 3), np.uint8)
    image[:] = (140, 100, 60)

    def factors(saturation: object) -> NDArray[np.float64]:
        augmentation = Augmentation.model_validate({"saturation": saturation})
        seen = np.stack([augmentation(image, None, seed)[0][0, 0].astype(float) for seed in range(300)])
        return np.asarray((seen[:, 0] - seen[:, 2]) / 80)

    dull = factors([0.2, 0.9])
    assert 0.18 < dull.min() < 0.24 and 0.86 < dull.max() < 0.92
    np.testing.assert_array_equal(factors([0, 0]), 0)
    np.testing.assert_array_equal(factors([0.75, 1.25]), factors(0.25))


def test_the_data_set_augments_only_with_a_seed(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    settings = DomainSettings(layout="gta5", root=tmp_path, prepared=False)
    space = load_label_space("cityscapes19")
    plain = open_domain(settings, space, "train", (40, 24))
    augmented = open_domain(settings, space, "train", (40, 24), Augmentation(mirror=1.0))
    assert np.array_equal(augmented.read(0).image, plain.read(0).image)
    assert np.array_equal(augmented.read(0, seed=1).image, plain.read(0).image[:, ::-1])


@pytest.mark.parametrize(
    "wrong",
    [
        *({"scale": [2, 1]}, {"scale": [0, 1]}, {"mirror": 2}, {"hue": 0.6}, {"crop": [0, 5]}, {"flip": 0.5}),
        *({"keep_aspect": True}, {"crop_max_share": 0.75}, {"crop": [8, 8], "crop_max_share": 0}),
        *(
            {"cast": 1.5},
            {"saturation": 1.5},
            {"saturation": [1.2, 0.8]},
            {"saturation": [-0.1, 1]},
            {"saturation": [1]},
        ),
    ],
)
def test_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(wrong)


def test_a_crop_that_one_class_fills_is_drawn_again() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:, 48:] = 3  # a crop of 16×16 sees both classes at 15 of 49 places
    image = coded(label)
    alone = Augmentation(crop=(16, 16))
    wanted = Augmentation(crop=(16, 16), crop_max_share=0.75)
    shares: dict[str, list[float]] = {"any": [], "mixed": []}
    for seed in range(40):
        for name, augmentation in (("any", alone), ("mixed", wanted)):
            cut_image, cut = augmentation(image, label, seed)
            assert cut is not None and np.array_equal(cut_image[..., 0], 10 * cut)
            shares[name].append(float((cut == 3).mean()))
    assert (
        sum(0.25 < share < 0.75 for share in shares["mixed"])
        > 30
        > 2 * sum(0.25 < share < 0.75 for share in shares["any"])
    )
    # One that fits already is the one that would have been drawn anyway; without labels nothing is drawn again.
    for seed, (plain, mixed) in enumerate(zip(shares["any"], shares["mixed"], strict=True)):
        assert plain == mixed or not 0.25 < plain < 0.75
        assert np.array_equal(wanted(image, None, seed)[0], alone(image, None, seed)[0])
    assert wanted(image, np.full_like(label, IGNORE), 0)[1] is not None  # the last draw is taken as it is


def test_a_needed_class_is_looked_for_with_all_draws_anew() -> None:
    label = np.zeros((60, 80), np.uint8)
    label[25:35, 30:50] = 7
    augmentation = Augmentation(crop=(24, 20), mirror=0.5)
    found = []
    for seed in range(40):
        cut = augmentation(coded(label), label, (seed, 1), Need(7, 50))[1]
        assert cut is not None
        found.append(int((cut == 7).sum()))
    without = [int((augmentation(coded(label), label, (seed, 1))[1] == 7).sum()) for seed in range(40)]  # type: ignore[union-attr]
    assert sum(count > 50 for count in found) >= 38 > 1.5 * sum(count > 50 for count in without)
    assert all(kept == plain for kept, plain in zip(found, without, strict=True) if plain > 50)
    whole = Augmentation(mirror=1.0)(IMAGE, BLOCKS, 0, Need(200, 0))  # nothing to draw again
    assert np.array_equal(whole[0], IMAGE[:, ::-1])


def test_a_size_is_fitted_into_a_box_as_mmcv_rounds() -> None:
    assert fitted((1914, 1052), (1280, 720)) == (1280, 704)
    assert fitted((2048, 1024), (1024, 512)) == (1024, 512)
    assert fitted((1052, 1914), (1280, 720)) == (396, 720)

"""Probabilities refined along an image's edges."""

import pytest
import torch
from torch import Tensor

from segadapt.refinement import COLOUR_SCALE, DILATIONS, refined

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("float64")]


def drawn(height: int = 9, width: int = 11) -> tuple[Tensor, Tensor]:
    """Images (2, 3, H, W) and probabilities (2, 4, H, W)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (2, 3, height, width), generator=generator).byte()
    return images, torch.rand(2, 4, height, width, generator=generator).softmax(1)


def by_hand(image: Tensor, probabilities: Tensor) -> Tensor:
    """One iteration on one image, pixel by pixel."""
    _, height, width = image.shape
    result = torch.empty_like(probabilities)
    for y in range(height):
        for x in range(width):
            around = [
                (min(max(y + d * dy, 0), height - 1), min(max(x + d * dx, 0), width - 1))
                for d in DILATIONS
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if dy or dx
            ]
            unlike = torch.stack([(image[:, v, u].double() - image[:, y, x].double()).abs().mean() for v, u in around])
            weights = torch.exp(-unlike / COLOUR_SCALE)
            values = torch.stack([probabilities[:, v, u] for v, u in around])
            result[:, y, x] = (weights[:, None] * values).sum(0) / weights.sum()
    return result


def test_it_equals_the_formula_pixel_by_pixel() -> None:
    images, probabilities = drawn()
    once = torch.stack([by_hand(*pair) for pair in zip(images, probabilities, strict=True)])
    torch.testing.assert_close(refined(images, probabilities, 1), once, rtol=1e-12, atol=0)
    twice = torch.stack([by_hand(*pair) for pair in zip(images, once, strict=True)])
    torch.testing.assert_close(refined(images, probabilities, 2), twice, rtol=1e-12, atol=0)
    assert torch.equal(refined(images, probabilities, 0), probabilities)


def test_probabilities_stay_probabilities() -> None:
    after = refined(*drawn(), 20)
    torch.testing.assert_close(after.sum(1), torch.ones_like(after[:, 0]))
    assert after.min() > 0


def test_labels_follow_the_image_and_not_the_prediction() -> None:
    """A prediction whose border is four pixels off, with a lone wrong pixel, takes on the image's border."""
    image = torch.zeros(1, 3, 24, 24)
    image[..., 12:] = 200
    predicted = torch.full((1, 2, 24, 24), 0.2)
    predicted[:, 0, :, :16] = 0.8
    predicted[:, 1, :, 16:] = 0.8
    predicted[0, :, 5, 3] = torch.tensor([0.1, 0.9])
    labels = refined(image, predicted, 10).argmax(1)[0]
    expected = (torch.arange(24) >= 12).long().expand(24, -1)
    assert (predicted.argmax(1)[0] != expected).sum() == 4 * 24 + 1
    assert torch.equal(labels, expected)

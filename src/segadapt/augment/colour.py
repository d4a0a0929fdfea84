"""Colour jitter: brightness, contrast, saturation and hue, in a random order for each image.

    images = jitter(images, draw_jitter(seeds, "mixed/jitter", hue=0.1))

There are two variants. `jitter`, the default, works like torchvision's `ColorJitter`. `published_jitter` works like
kornia 0.5.8, with which DAFormer, HRDA and MIC were trained (newer kornia calls it `ColorJiggle`): brightness is added,
contrast scales about 0, saturation scales in HSV. Written from descriptions of both; all images are RGB in 0..255.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segadapt.augment.draw import between, permutation
from segadapt.losses import precise

OPERATIONS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class JitterDraws:
    """The operations on each image of a batch."""

    brightness: Tensor  # (B,) factor, 1 = none
    contrast: Tensor  # (B,) factor
    saturation: Tensor  # (B,) factor
    hue: Tensor  # (B,) turns of the colour circle, 0 = none
    order: Tensor  # (B, 4) int64: a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue


def draw_jitter(
    seeds: Tensor,
    stream: str,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.2,
) -> JitterDraws:
    """Factors uniform in 1 ± strength, hue in ± `hue` turns (at most 0.5), for each of the seeds (B,) int64."""
    strengths = dict(zip(OPERATIONS[:3], (brightness, contrast, saturation), strict=True))
    factors = {name: between(seeds, f"{stream}/{name}", 1 - s, 1 + s) for name, s in strengths.items()}
    turns = between(seeds, f"{stream}/hue", -hue, hue)
    return JitterDraws(**factors, hue=turns, order=permutation(seeds, f"{stream}/order", len(OPERATIONS)))


def jitter(images: Tensor, draws: JitterDraws) -> Tensor:
    """Brightness times b; contrast: c·x + (1 - c)·mean grey; saturation: s·x + (1 - s)·grey; each cut to 0..255; hue.

    images (B, 3, H, W) RGB in 0..255, uint8 or float -> the same in floating point.
    """

    def contrast(x: Tensor, c: Tensor) -> Tensor:
        return (c * x + (1 - c) * _grey(x).mean(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)

    return _in_order(
        images,
        draws,
        lambda x, b: (b * x).clamp(0, 1),
        contrast,
        lambda x, s: (s * x + (1 - s) * _grey(x)).clamp(0, 1),
        turned,
    )


def published_jitter(images: Tensor, draws: JitterDraws) -> Tensor:
    """As kornia 0.5.8: b - 1 is added; contrast multiplies; saturation multiplies S of HSV; each cut to its range; hue.

    images (B, 3, H, W) RGB in 0..255, uint8 or float -> the same in floating point.
    """

    def saturation(x: Tensor, s: Tensor) -> Tensor:
        hue, saturation, value = to_hsv(x)
        return to_rgb(hue, (s * saturation).clamp(0, 1), value)

    return _in_order(
        images,
        draws,
        lambda x, b: (x + (b - 1)).clamp(0, 1),
        lambda x, c: (c * x).clamp(0, 1),
        saturation,
        turned,
    )


_Operation = Callable[[Tensor, Tensor], Tensor]


def _in_order(images: Tensor, draws: JitterDraws, *operations: _Operation) -> Tensor:
    """Each image's operations in its own order."""
    pixels = (images if images.is_floating_point() else precise(images)) / 255
    drawn = (draws.brightness, draws.contrast, draws.saturation, draws.hue)
    amounts = [amount.to(pixels).view(-1, 1, 1, 1) for amount in drawn]
    apply = one_by_one if pixels.device.type == "cpu" else all_at_once
    return 255 * apply(pixels, amounts, draws.order, operations)


def one_by_one(pixels: Tensor, amounts: list[Tensor], order: Tensor, operations: tuple[_Operation, ...]) -> Tensor:
    """On a CPU, where no synchronization is needed: image by image, in each image's order."""
    images = list(pixels.split_with_sizes([1] * len(pixels)))
    for k, places in enumerate(order.tolist()):
        for which in places:
            images[k] = operations[which](images[k], amounts[which][k : k + 1])
    return torch.cat(images)


def all_at_once(pixels: Tensor, amounts: list[Tensor], order: Tensor, operations: tuple[_Operation, ...]) -> Tensor:
    """At each of the four positions, compute all operations and select one.

    The host does not know the order, so that nothing waits for the device and a graph can be captured.
    """
    for place in range(len(operations)):
        which = order[:, place].view(-1, 1, 1, 1)
        changed = pixels
        for number, (operation, amount) in enumerate(zip(operations, amounts, strict=True)):
            changed = torch.where(which == number, operation(pixels, amount), changed)
        pixels = changed
    return pixels


def turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in 0..1 with its hue shifted by this many turns of the colour circle."""
    hue, saturation, value = to_hsv(pixels)
    return to_rgb(hue + turns, saturation, value)


def to_hsv(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """RGB (B, 3, H, W) in 0..1 -> hue in turns, saturation and value, each (B, 1, H, W) in 0..1.

    Grey has hue 0. If several channels are largest, the first one decides.
    """
    red, green, blue = (pixels[:, channel, None] for channel in range(3))
    value, least = pixels.amax(dim=1, keepdim=True), pixels.amin(dim=1, keepdim=True)
    range_ = value - least
    safe = torch.where(range_ == 0, torch.ones_like(range_), range_)
    of_red, of_green, of_blue = (green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe
    sixths = torch.where(red == value, of_red, torch.where(green == value, of_green, of_blue))
    saturation = range_ / torch.where(value == 0, torch.ones_like(value), value)
    return (sixths / 6) % 1, saturation, value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue in turns (any number), saturation and value in 0..1, each (B, 1, H, W) -> RGB (B, 3, H, W)."""
    sixths = torch.cat([(hue * 6 + offset) % 6 for offset in (5, 3, 1)], dim=1)
    return value - value * saturation * torch.minimum(sixths, 4 - sixths).clamp(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    return 0.2989 * pixels[:, :1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:]

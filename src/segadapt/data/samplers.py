"""Which images stand in which step: pure functions of (seed, step), the same for any number of ranks.

A sampler is asked for the images of a step and keeps nothing between steps, so that resuming is exact and every rank
and loader process asks its own. One's own is registered by name with `register_sampler`; recipes then know it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from segadapt.data.statistics import ClassStatistics
from segadapt.data.transforms import Need
from segadapt.errors import UsageError
from segadapt.settings import Settings


@dataclass(frozen=True)
class Choice:
    """One image of a step, and what its crop should hold."""

    index: int  # in its data set
    need: Need | None = None


class Sampler(Protocol):
    """Chooses the images of one domain. It travels to loader processes, and must be picklable."""

    def __call__(self, step: int) -> list[Choice]:
        """The `batch` images of a step, over all ranks; the same whenever and wherever it is asked."""
        ...


class RareClassSettings(Settings):
    """How strongly rare classes are preferred, and how much of them an image and a crop must hold."""

    temperature: float = Field(
        0.01, gt=0, description="T of P(class) = softmax((1 - share) / T); a smaller T favours rarer classes"
    )
    min_pixels: int = Field(
        3000, ge=0, description="minimum number of pixels of a class, at full size, in an image drawn for it"
    )
    min_crop_ratio: float = Field(
        0.5, ge=0, description="a crop with no more than min_pixels times this is drawn again, up to 10 times"
    )


@dataclass(frozen=True)
class Setting:
    """What a sampler can be made from."""

    seed: int
    batch: int  # images per step, over all ranks
    images: int  # in the data set
    domain: int  # 0 source, 1 target: their draws are independent
    rare_classes: RareClassSettings
    statistics: Callable[[], ClassStatistics]  # counts when it is called; raises UsageError without labels
    restart_after: int | None = None  # see `Passes`


@lru_cache(maxsize=8)
def _order(seed: int, domain: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, domain, epoch]).permutation(count)


@dataclass(frozen=True)
class Passes:
    """Passes over all images, each in an order of its own, or all in that of the index."""

    seed: int
    batch: int
    images: int
    domain: int
    shuffled: bool = True
    restart_after: int | None = None  # quirk `target_restart`: passes begin anew with each over so many source images

    @classmethod
    def of(cls, setting: Setting, shuffled: bool) -> Self:
        """The sampler `shuffled` or `in_order`."""
        return cls(setting.seed, setting.batch, setting.images, setting.domain, shuffled, setting.restart_after)

    def __call__(self, step: int) -> list[Choice]:
        """See `Sampler`."""
        return [Choice(self._at(position)) for position in range(step * self.batch, (step + 1) * self.batch)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.images)
        if self.restart_after is not None:
            epoch, within = divmod(position, self.restart_after)
            part, place = divmod(within, self.images)
            epoch = epoch * -(-self.restart_after // self.images) + part
        return int(_order(self.seed, self.domain, epoch, self.images)[place]) if self.shuffled else place


@dataclass(frozen=True, eq=False)
class RareClasses:
    """Rare-class sampling (DAFormer, CVPR 2022): a class, rare ones more often; then an image that has enough of it."""

    seed: int
    batch: int
    domain: int
    chances: dict[int, float]  # P of each class that an image has enough of; they sum to 1
    images: dict[int, NDArray[np.int64]]  # those images, by class
    crop_pixels: float  # the crop should have more of the class

    @classmethod
    def of(cls, setting: Setting) -> Self:
        """The sampler `rare_classes`. Raises UsageError for data without labels, or too few pixels of all."""
        rare, pixels = setting.rare_classes, setting.statistics().pixels
        images = {label: np.flatnonzero(pixels[:, label] > rare.min_pixels) for label in range(pixels.shape[1])}
        images = {label: found for label, found in images.items() if len(found)}
        if not images:
            raise UsageError(
                f"no image has more than {rare.min_pixels} pixels of any class",
                where="rare_classes.min_pixels",
                remedy="Lower it; `segadapt data check` shows how much of each class there is.",
            )
        chances = class_probabilities(pixels.sum(axis=0), rare.temperature)
        drawable = sum(chances[label] for label in images)
        chances = {label: chances[label] / drawable for label in images}
        return cls(setting.seed, setting.batch, setting.domain, chances, images, rare.min_pixels * rare.min_crop_ratio)

    def __call__(self, step: int) -> list[Choice]:
        """See `Sampler`."""
        labels, until, chosen = list(self.chances), np.cumsum(list(self.chances.values())), []
        for sample in range(self.batch):
            # Of streams 2 and 3, beside the orders of the two domains.
            of_class, of_image = np.random.default_rng([self.seed, 2 + self.domain, step, sample]).random(2)
            label = labels[min(int(np.searchsorted(until, of_class, side="right")), len(labels) - 1)]
            images = self.images[label]
            chosen.append(Choice(int(images[int(of_image * len(images))]), Need(label, self.crop_pixels)))
        return chosen


CYCLE = 1000
"""Images over which the shares of several data sets hold exactly."""


@lru_cache(maxsize=8)
def _cycle(seed: int, domain: int, cycle: int, quotas: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(CYCLE,) which part each image is of, and how many of that part come before it; spread evenly, with some play."""
    # Of streams 4 and 5, behind those of orders and rare classes.
    play = np.random.default_rng([seed, 4 + domain, cycle]).random(CYCLE)
    parts = np.repeat(np.arange(len(quotas)), quotas)
    before = np.concatenate([np.arange(quota) for quota in quotas])
    order = np.argsort((before + play) / np.repeat(quotas, quotas), kind="stable")
    return parts[order], before[order]


@dataclass(frozen=True, eq=False)
class Shares:
    """Several data sets in turn, each as often as its share says, and its images as its own sampler has them."""

    seed: int
    batch: int
    domain: int
    quotas: tuple[int, ...]  # of CYCLE images
    first: tuple[int, ...]  # index of each part's first image
    samplers: tuple[Sampler, ...]  # of the parts, each with a batch of one

    @classmethod
    def of(cls, setting: Setting, shares: Sequence[float], images: Sequence[int], samplers: Sequence[Sampler]) -> Self:
        """The sampler of parts with so many images; shares count relative to one another."""
        exact = [CYCLE * share / sum(shares) for share in shares]
        quotas = [max(1, int(quota)) for quota in exact]
        by_rest = sorted(range(len(exact)), key=lambda k: int(exact[k]) - exact[k])
        for k in range(CYCLE - sum(quotas)):
            quotas[by_rest[k % len(by_rest)]] += 1
        quotas[quotas.index(max(quotas))] -= sum(quotas) - CYCLE
        first = tuple(sum(images[:k]) for k in range(len(images)))
        return cls(setting.seed, setting.batch, setting.domain, tuple(quotas), first, tuple(samplers))

    def __call__(self, step: int) -> list[Choice]:
        """See `Sampler`."""
        chosen = []
        for position in range(step * self.batch, (step + 1) * self.batch):
            cycle, place = divmod(position, CYCLE)
            parts, before = _cycle(self.seed, self.domain, cycle, self.quotas)
            part = int(parts[place])
            (one,) = self.samplers[part](cycle * self.quotas[part] + int(before[place]))
            chosen.append(Choice(self.first[part] + one.index, one.need))
        return chosen


def part_seed(seed: int, part: int) -> int:
    """The seed of a part's own sampler, below 2^63."""
    return int(np.random.SeedSequence([seed, part]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def class_probabilities(pixels: NDArray[np.int64], temperature: float) -> dict[int, float]:
    """P(class) = softmax((1 - its share of all labelled pixels) / temperature), of the classes that occur.

    pixels: (C,) of each class over all images.
    """
    labels = np.flatnonzero(pixels)
    scaled = (1 - pixels[labels] / pixels.sum()) / temperature
    powers = np.exp(scaled - scaled.max())
    return {int(label): float(power) for label, power in zip(labels, powers / powers.sum(), strict=True)}


SAMPLERS: dict[str, Callable[[Setting], Sampler]] = {
    "shuffled": partial(Passes.of, shuffled=True),
    "in_order": partial(Passes.of, shuffled=False),
    "rare_classes": RareClasses.of,
}
"""What a recipe's `sampler` and `target_sampler` can say."""


def register_sampler(name: str, make: Callable[[Setting], Sampler]) -> None:
    """Let recipes say `sampler: NAME`. Raises ValueError for a name that is taken."""
    if SAMPLERS.setdefault(name, make) is not make:
        raise ValueError(f"sampler '{name}' already exists")


def sample_seeds(seed: int, batch: int, step: int) -> list[int]:
    """One seed below 2^63 for each sample of a step: for its augmentation and its noise."""
    drawn = np.random.SeedSequence([seed, step]).generate_state(batch, np.uint64)
    return [int(one >> np.uint64(1)) for one in drawn]

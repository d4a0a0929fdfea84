"""MIC: masked image consistency (Hoyer, Dai, Wang, Van Gool; CVPR 2023, arXiv 2212.01322), on top of a host.

student S, teacher T, pseudo-labels ŷ with weights w of a host (dacs.py, daformer.py), and its loss L
1  x' = jitter and blur of x_t
2  x_M = x' where a random block is kept, the mean colour elsewhere                blocks of b pixels, kept with 1 - r
3  L_M = mean of w · CE(S(x_M), ŷ)                                                over all pixels, masked or not
4  L   ← L + λ_M · L_M
Between real and adverse domains the published program masks as many source images as target images (x_s with y_s and
w = 1), without jitter and blur: `masked_domains: both`, `masked_augment: false`.
"""

from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from segadapt.augment.block_mask import draw_blocks, masked
from segadapt.augment.draw import uniform
from segadapt.batch import Batch
from segadapt.losses import IGNORE, precise
from segadapt.methods.dacs import Dacs
from segadapt.methods.daformer import Daformer, FeatureSettings
from segadapt.methods.method import DomainName, Method, Networks, Update
from segadapt.methods.mixing import MIXING_QUIRKS, Seen, augmented
from segadapt.methods.segmentation import loss_terms
from segadapt.methods.settings import TrainingSettings
from segadapt.models.segmenter import Segmenter

PUBLISHED_BLUR = 0.5
"""Blur probability of masked images, independent of the host's."""


class MicSettings(FeatureSettings):
    """Settings of `mic`, with those of its host."""

    known_quirks: ClassVar[tuple[str, ...]] = (*MIXING_QUIRKS, "blur_ignores_switch", "masked_pair", "masked_main_only")
    method: Literal["mic"] = "mic"
    host: Literal["dacs", "daformer"] = Field(
        "daformer", description="the method that MIC extends; dacs: without the feature distance"
    )
    masked: float = Field(1.0, ge=0, description="λ_M: weight of the loss of masked images")
    mask_ratio: float = Field(0.7, ge=0, lt=1, description="r: share of blocks that are masked")
    mask_block: PositiveInt = Field(64, description="b: side of a block in pixels (published: 64 at 1024, 32 at 512)")
    masked_domains: Literal["target", "source", "both"] = Field(
        "target", description="domain whose images are masked; both: one of the two images of each sample"
    )
    masked_augment: bool = Field(True, description="apply jitter and blur before masking")

    @model_validator(mode="after")
    def _of_this_host(self) -> "MicSettings":
        for key in ("feature_distance", "thing_ratio", "feature_start"):
            if self.host == "dacs" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"`{key}` applies only with host daformer. Leave it out, or set that")
        return self


class Masked(NamedTuple):
    """The masked images that the student must segment."""

    images: Tensor  # (B, 3, H, W) RGB, float
    labels: Tensor  # (B, H, W)
    weights: Tensor  # (B, H, W)


class Mic(Method):
    """Masked image consistency on top of a host; see the algorithm at the top of this file."""

    settings_type: ClassVar[type[TrainingSettings]] = MicSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")
    tells_things: ClassVar[bool] = True

    def __init__(self, host: Dacs, settings: MicSettings) -> None:
        self.host, self.settings = host, settings
        self.modules, self.helpers, self.optimizers = host.modules, host.helpers, host.optimizers

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        return cls((Dacs if settings.host == "dacs" else Daformer).build(networks, settings), settings)

    def step(self, batch: Batch, update: Update) -> None:
        host, student = self.host, self.host.student
        for part, seen in zip(update.micro_batches(batch), host.begin(batch, update), strict=True):
            host.backward(part, seen, update)
            images, labels, weights = self.masked(part, seen)
            terms = loss_terms("masked", student, student(images), labels, self.settings.auxiliary, weights)
            update.backward(**{name: self.weight(name) * term for name, term in terms.items()})
        host.end(batch, update)

    def weight(self, term: str) -> float:
        """λ_M; with quirk `masked_main_only`, for the main term only."""
        return 1.0 if self.settings.quirk("masked_main_only") and term != "masked" else self.settings.masked

    def masked(self, part: Batch, seen: Seen) -> Masked:
        """Lines 1 and 2: x_M with its labels and weights."""
        settings, pixels = self.settings, self.host.student.pixels
        images, labels, weights = self.chosen(part, seen)
        seeds, size = part.seeds_on(images.device), (images.shape[-2], images.shape[-1])
        if settings.masked_augment:
            quirk = settings.quirk("blur_ignores_switch")
            own = settings.model_copy(update={"blur_probability": PUBLISHED_BLUR}) if quirk else settings
            images = augmented(images, part, "masked", own, alike=own.quirk("decisions_per_step"))
        keep = draw_blocks(seeds, "masked/blocks", size, settings.mask_block, settings.mask_ratio)
        mean = pixels.inverse(precise(images.new_zeros(1, 3, 1, 1))).flatten()
        return Masked(masked(images, keep, mean), labels, weights)

    def chosen(self, part: Batch, seen: Seen) -> Masked:
        """The images to be masked: the target's with ŷ and w, the source's with y_s and 1, or some of each."""
        of_target = Masked(part.images("target"), *seen.pseudo)
        if self.settings.masked_domains == "target":
            return of_target
        labels = part.labels("source").long()
        of_source = Masked(part.images("source"), labels, precise(labels != IGNORE))
        if self.settings.masked_domains == "source":
            return of_source
        if self.settings.quirk("masked_pair"):
            return Masked(*(paired(one, other) for one, other in zip(of_source, of_target, strict=True)))
        from_source = uniform(part.seeds_on(labels.device), "masked/domain") < 0.5
        return Masked(
            torch.where(from_source[:, None, None, None], of_source.images, of_target.images),
            torch.where(from_source[:, None, None], of_source.labels, of_target.labels),
            torch.where(from_source[:, None, None], of_source.weights, of_target.weights),
        )

    @property
    def result(self) -> Segmenter:
        return self.host.result


def paired(source: Tensor, target: Tensor) -> Tensor:
    """For each pair of samples, the source and target of the first one (B even): as published for a batch of two."""
    return torch.stack([source[::2], target[::2]], dim=1).flatten(0, 1)

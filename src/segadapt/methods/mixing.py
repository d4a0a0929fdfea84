"""What DACS and its successors share: pseudo-labels of a mean teacher, mixed and strongly augmented images."""

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from segadapt.augment.strong import draw_strong, strong
from segadapt.batch import Batch
from segadapt.losses import precise
from segadapt.methods.method import Update
from segadapt.methods.settings import WithExtraSource
from segadapt.methods.teacher import TeacherSettings
from segadapt.models.segmenter import Segmenter

_Rows = tuple[PositiveInt | Literal[0], PositiveInt | Literal[0]]

MIXING_QUIRKS = (
    "pseudo_weight_per_batch",
    "classes_of_batch",
    "jitter_probability",
    "published_jitter",
    "decisions_per_step",
    "mean_over_all_pixels",
    "teacher_train_mode",
    "ema_parameters_only",
    "ema_first",
)
"""Of the published DACS, and of what was built on it."""


class MixingSettings(WithExtraSource, TeacherSettings):
    """Settings shared by DACS and its successors, with the papers' symbols."""

    known_quirks: ClassVar[tuple[str, ...]] = MIXING_QUIRKS
    auxiliary: float = Field(0.1, ge=0, description="share of the auxiliary head in each loss, where there is one")
    threshold: float = Field(
        0.968, ge=0, le=1, description="τ: a pseudo-label counts by the share of pixels with this confidence or more"
    )
    margins: _Rows = Field((0, 0), description="rows at top and bottom of the target crop without pseudo-labels")
    jitter_strength: float = Field(
        0.2, ge=0, le=0.5, description="s: brightness, contrast, saturation times 1 ± s, hue by ±s turns"
    )
    jitter_probability: float = Field(0.8, ge=0, le=1, description="probability of the colour jitter")
    blur_probability: float = Field(0.5, ge=0, le=1, description="probability of the blur (σ 0.15 … 1.15 pixels)")
    result: Literal["student", "teacher"] = Field(
        "student", description="whose network the stage gives: the student as published, or the teacher"
    )

    @model_validator(mode="after")
    def _margins_leave_something(self) -> "MixingSettings":
        height = (self.target_augment or self.augment).crop or self.target_size or self.size
        if sum(self.margins) >= height[1]:
            raise ValueError(f"margins {list(self.margins)} leave nothing of a crop of {height[1]} rows")
        return self


class PseudoLabels(NamedTuple):
    """What the teacher says about the target images of a micro-batch."""

    labels: Tensor  # (B, H, W) int64
    weights: Tensor  # (B, H, W) in 0..1


class Seen(NamedTuple):
    """What the passes without gradients, which come first, have found out about a micro-batch."""

    pseudo: PseudoLabels
    common: Tensor | None = None  # see `common_seed`
    features: Tensor | None = None  # (B, F, h, w) of the frozen encoder
    cells: Tensor | None = None  # (B, h, w) bool: where the feature distance counts


class Confidence(NamedTuple):
    """Pseudo-labels before they are weighed."""

    labels: Tensor  # (B, H, W) int64
    sure: Tensor  # (B,) pixels whose confidence reaches τ
    judged: Tensor  # (B,) pixels among which these were counted


@torch.no_grad()
def predicted(teacher: Segmenter, target: Tensor, settings: MixingSettings) -> Confidence:
    """The teacher's labels of target images (B, 3, H, W), and how many of their pixels are sure."""
    logits = teacher.upsample(precise(teacher(target).logits), target.shape[-2:])
    confidence, labels = logits.softmax(1).max(1)
    sure = confidence >= settings.threshold
    inside = within_margins(settings.margins, labels)
    if not settings.quirk("pseudo_weight_per_batch"):
        sure = sure & inside
    else:
        inside = torch.ones_like(inside)
    return Confidence(labels, precise(sure.sum((1, 2))), precise(inside.expand_as(labels).sum((1, 2))))


def weighed(seen: list[Confidence], settings: MixingSettings, update: Update) -> list[PseudoLabels]:
    """The pseudo-labels of all micro-batches: each image's weigh its share of sure pixels, and nothing in the margins.

    Quirk `pseudo_weight_per_batch`: the share in the whole batch, over all ranks, margins counted.
    """
    shares = [one.sure / one.judged for one in seen]
    if settings.quirk("pseudo_weight_per_batch"):
        sums = [torch.stack([one.sure.double().sum(), one.judged.double().sum()]) for one in seen]
        sure, judged = update.over_ranks(torch.stack(sums).sum(0))
        shares = [(sure / judged).to(one.sure).expand_as(one.sure) for one in seen]
    return [
        PseudoLabels(
            one.labels, (share[:, None, None] * within_margins(settings.margins, one.labels)).expand_as(one.labels)
        )
        for one, share in zip(seen, shares, strict=True)
    ]


def within_margins(margins: tuple[int, int], labels: Tensor) -> Tensor:
    """(1, H, 1) bool: the rows of labels (B, H, W) that are not in the margins at top and bottom."""
    rows = torch.arange(labels.shape[1], device=labels.device)
    return ((rows >= margins[0]) & (rows < labels.shape[1] - margins[1]))[None, :, None]


def seeds_of(batch: Batch, images: Tensor) -> Tensor:
    """The samples' seeds (B,) int64, on the device of the images."""
    return torch.tensor(batch.seeds).to(images.device, non_blocking=True)


def common_seed(batch: Batch, update: Update, settings: MixingSettings) -> Tensor | None:
    """Quirk `decisions_per_step`: one seed () int64 for the whole batch, over all ranks; else None."""
    if not settings.quirk("decisions_per_step"):
        return None
    return update.over_ranks(seeds_of(batch, batch.images("target")).sum())


def augmented(
    images: Tensor, seeds: Tensor, stream: str, settings: MixingSettings, common: Tensor | None, alike: bool = False
) -> Tensor:
    """Images (B, 3, H, W), jittered and blurred; `stream` names the use, `common` is `common_seed`'s."""
    inverted = settings.quirk("jitter_probability")
    strength = settings.model_copy(
        update={"jitter_probability": 1 - settings.jitter_probability if inverted else settings.jitter_probability}
    )
    deciding = None if common is None else common.expand(len(seeds))
    draws = draw_strong(seeds, stream, strength, deciding, alike)
    return strong(images, draws, strength, settings.quirk("published_jitter"))

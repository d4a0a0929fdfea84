"""What DACS and its successors share: pseudo-labels of a mean teacher, mixed and strongly augmented images."""

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.augment.strong import draw_strong, strong
from segadapt.batch import Batch, Images
from segadapt.ema import teacher_of
from segadapt.losses import precise
from segadapt.methods.method import DomainName, Method, Update
from segadapt.methods.optimizers import segmenter_optimizer
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
"""Quirks of the published DACS and of the methods built on it."""


class MixingSettings(WithExtraSource, TeacherSettings):
    """Settings shared by DACS and its successors, with the papers' symbols."""

    known_quirks: ClassVar[tuple[str, ...]] = MIXING_QUIRKS
    auxiliary: float = Field(0.1, ge=0, description="weight of the auxiliary head in each loss, if there is one")
    threshold: float = Field(
        0.968,
        ge=0,
        le=1,
        description="τ: pseudo-labels are weighted by the share of pixels with at least this confidence",
    )
    margins: _Rows = Field(
        (0, 0), description="rows at the top and bottom of the target crop that get no pseudo-labels"
    )
    jitter_strength: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="s: brightness, contrast and saturation are multiplied by 1 ± s, hue is shifted by ± s turns",
    )
    jitter_probability: float = Field(0.8, ge=0, le=1, description="probability of the colour jitter")
    blur_probability: float = Field(0.5, ge=0, le=1, description="probability of the blur (σ 0.15 … 1.15 pixels)")
    result: Literal["student", "teacher"] = Field(
        "student", description="which network is the stage's result: the student, as published, or the teacher"
    )

    @model_validator(mode="after")
    def _one_size(self) -> "MixingSettings":
        source = self.augment.crop or self.size
        target = (self.target_augment or self.augment).crop or self.target_size or self.size
        if source != target:
            raise ValueError(
                f"parts of source images ({source[0]}×{source[1]}) are pasted onto target images "
                f"({target[0]}×{target[1]}): they must have one size. Give both the same `crop`, in augment and "
                "target_augment"
            )
        if sum(self.margins) >= target[1]:
            raise ValueError(f"margins {list(self.margins)} leave nothing of {target[1]} rows. Make them smaller")
        return self


class MixingMethod(Method):
    """Base of DACS and its successors: a student, and a mean teacher of it."""

    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, network: Segmenter, settings: MixingSettings) -> None:
        self.student = network
        self.chosen = settings.result
        network.set_mode(batch_norm=settings.learns_statistics)
        learns = settings.learns_statistics or settings.quirk("teacher_train_mode")
        self.teacher: Segmenter = teacher_of(network, learns_statistics=learns)
        self.modules: dict[str, nn.Module] = {"student": self.student, "teacher": self.teacher}
        self.optimizers: dict[str, Optimizer] = {"student": segmenter_optimizer(self.student, settings)}

    @property
    def result(self) -> Segmenter:
        return self.student if self.chosen == "student" else self.teacher


class PseudoLabels(NamedTuple):
    """The teacher's pseudo-labels for the target images of a micro-batch."""

    labels: Tensor  # (B, H, W) int64
    weights: Tensor  # (B, H, W) in 0..1


class Seen(NamedTuple):
    """Results of the passes without gradients, which come first, for a micro-batch."""

    pseudo: PseudoLabels
    features: Tensor | None = None  # (B, F, h, w) of the frozen encoder
    cells: Tensor | None = None  # (B, h, w) bool: where the feature distance counts


class Confidence(NamedTuple):
    """Pseudo-labels before weighting."""

    labels: Tensor  # (B, H, W) int64
    inside: Tensor  # (B, H, W) bool: not in the margins
    sure: Tensor  # (B,) pixels whose confidence reaches τ
    counted: Tensor  # (B,) number of pixels considered


@torch.no_grad()
def predicted(teacher: Segmenter, target: Images, settings: MixingSettings, mirror: bool = False) -> Confidence:
    """The teacher's pseudo-labels for target images, and how many of their pixels are confident.

    With `mirror`, its probabilities are averaged over the images and their mirror images.
    """
    size = target.images.shape[-2:]
    probabilities = probabilities_of(teacher, target.images)
    if mirror:
        probabilities = (probabilities + probabilities_of(teacher, target.images.flip(-1)).flip(-1)) / 2
    confidence, labels = probabilities.max(1)
    rows = torch.arange(size[0], device=labels.device)
    top, bottom = settings.margins
    inside = ((rows >= top) & (rows < size[0] - bottom))[None, :, None].expand_as(labels)
    if target.valid is not None:
        inside = inside & target.valid
    counted = torch.ones_like(inside) if settings.quirk("pseudo_weight_per_batch") else inside
    sure = (confidence >= settings.threshold) & counted
    return Confidence(labels, inside, precise(sure.sum((1, 2))), precise(counted.sum((1, 2))))


def probabilities_of(network: Segmenter, images: Tensor) -> Tensor:
    """Softmax at the size of the images (B, 3, H, W): (B, C, H, W)."""
    return network.upsample(precise(network(images).logits), images.shape[-2:]).softmax(1)


def weighed(seen: list[Confidence], settings: MixingSettings, update: Update) -> list[PseudoLabels]:
    """Weighted pseudo-labels of all micro-batches: each image's weight is its share of confident pixels, 0 in margins.

    Quirk `pseudo_weight_per_batch`: the share in the whole batch, over all ranks, margins included.
    """
    shares = [one.sure / one.counted.clamp_min(1) for one in seen]
    if settings.quirk("pseudo_weight_per_batch"):
        sums = [torch.stack([one.sure.double().sum(), one.counted.double().sum()]) for one in seen]
        sure, counted = update.over_ranks(torch.stack(sums).sum(0))
        shares = [(sure / counted).to(one.sure).expand_as(one.sure) for one in seen]
    return [
        PseudoLabels(one.labels, share[:, None, None] * one.inside) for one, share in zip(seen, shares, strict=True)
    ]


def augmented(images: Tensor, part: Batch, stream: str, settings: MixingSettings, alike: bool = False) -> Tensor:
    """Images (B, 3, H, W), jittered and blurred; `stream` names the use.

    Quirk `decisions_per_step`: one decision for the whole step whether to apply each; `alike`: also one order of the
    jitter and one strength of the blur.
    """
    seeds, deciding = part.seeds_on(images.device), None
    if settings.quirk("decisions_per_step"):
        deciding = part.step_seeds_on(images.device)
    if settings.quirk("jitter_probability"):
        settings = settings.model_copy(update={"jitter_probability": 1 - settings.jitter_probability})
    draws = draw_strong(seeds, stream, settings, deciding, alike)
    return strong(images, draws, settings, settings.quirk("published_jitter"))

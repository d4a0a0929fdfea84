"""VFM-UDA: self-training of a vision foundation model (Englert et al., CVPR Workshops 2024, arXiv 2406.09896).

student S, teacher T (moving average of S); source (x_s, y_s), target x_t; p = softmax at the size of the image
1  x_s', x_t' = weak jitter of x_s and of x_t
2  p_t = mean of p(T(x_t)) and of p(T(mirrored x_t)), mirrored back
3  ŷ   = argmax p_t,  q = share of the pixels of x_t with max p_t ≥ τ, nothing in the margins
4  M   = pixels of half of the classes of y_s;  x_m, y_m, w = x_s', y_s, 1 on M, and x_t', ŷ, q elsewhere
5  x_m ← jitter and blur of x_m
6  L   = CE(S(x_s'), y_s) + mean of w · CE(S(x_m), y_m) + λ_M · mean of q · CE(S(x_t'|r), ŷ)
       x_t'|r: without a share r of its tokens, drawn at random
7  S   ← optimizer step on L
8  T   ← α T + (1 - α) S
It is designed for encoders with a mask token (dinov2, dinov3). Any other network sees x_t' with blocks of the mean
colour, as in MIC. Unlike MIC it has no feature distance and no HRDA, but a mirrored pass of the teacher.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from segadapt.augment.block_mask import draw_blocks, masked
from segadapt.augment.class_mix import class_mix
from segadapt.augment.colour import draw_jitter, jitter
from segadapt.augment.draw import uniform
from segadapt.batch import Batch
from segadapt.losses import labelled_pixels, precise
from segadapt.methods.method import DomainName, Update
from segadapt.methods.mixing import MixingMethod, MixingSettings, PseudoLabels, augmented, predicted, weighed
from segadapt.methods.segmentation import loss_terms
from segadapt.methods.settings import NetworkChoice, TrainingSettings
from segadapt.models.segmenter import Segmenter, SegOutput


class VfmUdaSettings(MixingSettings):
    """Settings of `vfm_uda`."""

    known_quirks: ClassVar[tuple[str, ...]] = ("pseudo_weight_per_batch", "classes_of_batch", "teacher_train_mode")
    method: Literal["vfm_uda"] = "vfm_uda"
    network: NetworkChoice = Field(
        "dinov2", description="the segmenter: a name, or its name and options as `{name: NAME, OPTION: VALUE}`"
    )
    mirror: bool = Field(True, description="pseudo-labels from the image and its mirror image; false: the image alone")
    masked: float = Field(1.0, ge=0, description="λ_M: weight of the loss of masked images")
    mask_ratio: float = Field(0.7, ge=0, lt=1, description="r: share of tokens (or blocks) that are hidden")
    mask_block: PositiveInt = Field(64, description="side of a block in pixels, for networks without a mask token")
    weak_probability: float = Field(0.9, ge=0, le=1, description="probability of the weak jitter")
    weak_brightness: float = Field(0.1255, ge=0, le=1, description="brightness times 1 ± this (published: 32/255)")
    weak_contrast: float = Field(0.5, ge=0, le=1, description="contrast times 1 ± this")
    weak_saturation: float = Field(0.5, ge=0, le=1, description="saturation times 1 ± this")
    weak_hue: float = Field(0.05, ge=0, le=0.5, description="hue shifted by ± this, in turns")


class VfmUda(MixingMethod):
    """Self-training of a vision foundation model; see the algorithm at the top of this file."""

    settings_type: ClassVar[type[TrainingSettings]] = VfmUdaSettings

    def __init__(self, network: Segmenter, settings: VfmUdaSettings) -> None:
        super().__init__(network, settings)
        self.settings = settings

    def step(self, batch: Batch, update: Update) -> None:
        labelled = labelled_pixels(batch.labels("source"))
        update.count(seg=labelled, seg_detail=labelled)
        settings, auxiliary = self.settings, self.settings.auxiliary
        parts = update.micro_batches(batch)
        predictions = [predicted(self.teacher, part.of("target"), settings, settings.mirror) for part in parts]
        pseudo_labels = weighed(predictions, settings, update)
        for part, pseudo in zip(update.micro_batches(batch), pseudo_labels, strict=True):
            source, target = (self.weakly_jittered(part, domain) for domain in ("source", "target"))
            output = self.student(source)
            update.backward(**loss_terms("seg", self.student, output, part.labels("source"), auxiliary, None))
            images, labels, weights = self.mixed(part, source, target, pseudo)
            output = self.student(images)
            update.backward(**loss_terms("mixed", self.student, output, labels, auxiliary, weights))
            output = self.seen_in_part(part, target)
            terms = loss_terms("masked", self.student, output, pseudo.labels, auxiliary, pseudo.weights)
            update.backward(**{name: settings.masked * term for name, term in terms.items()})
        update.step("student")
        update.follow(self.teacher, self.student, settings.decay)

    def weakly_jittered(self, part: Batch, domain: DomainName) -> Tensor:
        """Line 1: (B, 3, H, W) RGB, float."""
        settings, images = self.settings, precise(part.images(domain))
        seeds, stream = part.seeds_on(images.device), f"weak/{domain}"
        strengths = (settings.weak_brightness, settings.weak_contrast, settings.weak_saturation, settings.weak_hue)
        happens = uniform(seeds, f"{stream}/happens") < settings.weak_probability
        return torch.where(happens[:, None, None, None], jitter(images, draw_jitter(seeds, stream, *strengths)), images)

    def mixed(self, part: Batch, source: Tensor, target: Tensor, pseudo: PseudoLabels) -> tuple[Tensor, Tensor, Tensor]:
        """Lines 4 and 5: x_m (B, 3, H, W), y_m and w (B, H, W)."""
        made = class_mix(
            (source, part.labels("source")),
            (target, pseudo.labels),
            pseudo.weights,
            part.seeds_on(target.device),
            published=self.settings.quirk("classes_of_batch"),
        )
        return augmented(made.images, part, "mixed", self.settings), made.labels, made.weights

    def seen_in_part(self, part: Batch, images: Tensor) -> SegOutput:
        """S(images without a share r of their tokens), or with blocks of the mean colour."""
        settings, seeds, size = self.settings, part.seeds_on(images.device), (images.shape[-2], images.shape[-1])
        grid = self.student.token_grid(size)
        if grid is not None:
            hidden = uniform(seeds, "masked/tokens", grid) < settings.mask_ratio
            return self.student(images, hidden)  # type: ignore[no-any-return]
        keep = draw_blocks(seeds, "masked/blocks", size, settings.mask_block, settings.mask_ratio)
        mean = self.student.pixels.inverse(images.new_zeros(1, 3, 1, 1)).flatten()
        return self.student(masked(images, keep, mean))  # type: ignore[no-any-return]

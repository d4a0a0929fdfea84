"""DACS: domain adaptation via cross-domain mixed sampling (Tranheden et al., WACV 2021, arXiv 2007.08702).

student S, teacher T (moving average of S); source (x_s, y_s), target x_t; p = softmax at the size of the image
1  ŷ   = argmax p(T(x_t)),  q = share of the pixels of x_t with max p ≥ τ
2  M   = pixels of half of the classes of y_s;  x_m, y_m, w = x_s, y_s, 1 on M, and x_t, ŷ, q elsewhere
3  x_m ← jitter and blur of x_m
4  L   = CE(S(x_s), y_s) + mean of w · CE(S(x_m), y_m)
5  S   ← optimizer step on L
6  T   ← α T + (1 - α) S
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from segadapt.augment.class_mix import class_mix
from segadapt.batch import Batch
from segadapt.losses import IGNORE, Loss, labelled_pixels, precise
from segadapt.methods.method import Update
from segadapt.methods.mixing import MixingMethod, MixingSettings, Seen, augmented, predicted, weighed
from segadapt.methods.segmentation import loss_terms
from segadapt.methods.settings import TrainingSettings
from segadapt.models.segmenter import Segmenter, SegOutput


class DacsSettings(MixingSettings):
    """Settings of `dacs`."""

    method: Literal["dacs"] = "dacs"
    ema: float = Field(0.99, ge=0, lt=1, description="α: decay of the teacher's moving average")


class Dacs(MixingMethod):
    """Domain adaptation via cross-domain mixed sampling; see the algorithm at the top of this file."""

    settings_type: ClassVar[type[TrainingSettings]] = DacsSettings

    def __init__(self, network: Segmenter, settings: MixingSettings) -> None:
        super().__init__(network, settings)
        self.settings = settings

    def step(self, batch: Batch, update: Update) -> None:
        for part, seen in zip(update.micro_batches(batch), self.begin(batch, update), strict=True):
            self.backward(part, seen, update)
        self.end(batch, update)

    def begin(self, batch: Batch, update: Update) -> list[Seen]:
        """Line 1 for each micro-batch, and the counts: the passes without gradients come first."""
        if self.settings.quirk("ema_first"):
            self.follow(batch, update)
        if not self.settings.quirk("mean_over_all_pixels"):
            labelled = labelled_pixels(batch.labels("source"))
            update.count(seg=labelled, seg_detail=labelled)
        parts = update.micro_batches(batch)
        predictions = [predicted(self.teacher, part.of("target"), self.settings) for part in parts]
        return [Seen(pseudo) for pseudo in weighed(predictions, self.settings, update)]

    def backward(self, part: Batch, seen: Seen, update: Update) -> None:
        """Lines 2 to 4: `seg`, then `mixed`."""
        update.backward(**self.on_source(part, seen))
        images, labels, weights = self.mixed(part, seen)
        output = self.student(images)
        update.backward(**loss_terms("mixed", self.student, output, labels, self.settings.auxiliary, weights))

    def on_source(self, part: Batch, seen: Seen) -> dict[str, Loss]:
        """CE(S(x_s), y_s)."""
        return self.supervised(self.student(part.images("source")), part.labels("source"))

    def supervised(self, output: SegOutput, labels: Tensor) -> dict[str, Loss]:
        """The cross-entropy of an output with true labels (B, H, W)."""
        weights = precise(labels != IGNORE) if self.settings.quirk("mean_over_all_pixels") else None
        return loss_terms("seg", self.student, output, labels, self.settings.auxiliary, weights)

    def mixed(self, part: Batch, seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
        """x_m (B, 3, H, W), y_m and w (B, H, W): lines 2 and 3."""
        source = part.images("source"), part.labels("source")
        target = part.images("target"), seen.pseudo.labels
        seeds, published = part.seeds_on(target[0].device), self.settings.quirk("classes_of_batch")
        made = class_mix(source, target, seen.pseudo.weights, seeds, "class_mix", published)
        return augmented(made.images, part, "mixed", self.settings), made.labels, made.weights

    def end(self, batch: Batch, update: Update) -> None:
        """Lines 5 and 6."""
        update.step("student")
        if not self.settings.quirk("ema_first"):
            self.follow(batch, update)

    def follow(self, batch: Batch, update: Update) -> None:
        """T ← α T + (1 - α) S."""
        buffers = not self.settings.quirk("ema_parameters_only")
        update.follow(self.teacher, self.student, self.settings.decay, buffers)

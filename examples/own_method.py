"""Class-mix with a mean teacher, after DACS (Tranheden, Olsson, Pinto and Svensson, WACV 2021, arXiv 2007.08702).

student S, teacher T (moving average of S); source (x_s, y_s), target x_t, all of one size
1  ŷ = argmax of softmax(T(x_t));  q = share of an image's pixels whose confidence is at least τ
2  M = the pixels of half of the classes in y_s, drawn for each image
3  x_m, y_m = x_s, y_s in M and x_t, ŷ elsewhere;  w = 1 in M and q elsewhere
4  L = CE(S(x_s), y_s) + λ · mean of w · CE(S(x_m), y_m)
5  S ← optimizer step on L;  T ← α T + (1 - α) S
DACS also changes the colours of x_m and blurs it; that is left out here, and its q is one for the whole batch.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from segadapt import plugin
from segadapt.plugin import Batch, DomainName, Loss, Segmenter, Update, precise


class ClassMixSettings(plugin.TeacherSettings):
    method: Literal["class_mix"] = "class_mix"  # its name in recipes
    mixed: float = Field(1.0, ge=0, description="λ: weight of the loss on mixed images")
    confidence: float = Field(0.968, gt=0, lt=1, description="τ: minimum confidence of a pseudo-label to count for q")

    @model_validator(mode="after")
    def _one_size(self) -> "ClassMixSettings":
        if self.target_size not in (None, self.size):
            raise ValueError("class_mix pastes one image onto another of its size. Leave `target_size` out")
        return self


@plugin.register_method
class ClassMix(plugin.Method):
    settings_type = ClassMixSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, network: Segmenter, settings: ClassMixSettings) -> None:
        self.settings, self.student = settings, network
        network.set_mode(batch_norm=settings.learns_statistics)
        self.teacher = plugin.teacher_of(network, settings.learns_statistics)
        self.modules = {"student": network, "teacher": self.teacher}  # what a checkpoint holds
        self.optimizers = {"student": plugin.segmenter_optimizer(network, settings)}

    def step(self, batch: Batch, update: Update) -> None:
        update.count(seg=plugin.labelled_pixels(batch.labels("source")))  # before the passes: see `Update.count`
        for part in update.micro_batches(batch):
            images, labels = part.images("source"), part.labels("source")
            output = self.student(images)
            update.backward(seg=plugin.segmentation_loss(self.student, output, labels, auxiliary=0.0))
            mixed, targets, weights = self.mix(part)
            logits = self.student.upsample(precise(self.student(mixed).logits), targets.shape[-2:])
            error = weights * F.cross_entropy(logits, targets, reduction="none")
            update.backward(mixed=self.settings.mixed * Loss(error.sum(), float(error.numel())))
        update.step("student")
        update.follow(self.teacher, self.student, self.settings.decay)

    @torch.no_grad()
    def mix(self, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Lines 1 to 3: x_m (B, 3, H, W), y_m and w (B, H, W). No pixel of y_m is ignored."""
        target, labels = part.images("target"), part.labels("source").long()
        logits = self.teacher.upsample(precise(self.teacher(target).logits), target.shape[-2:])
        confidences, pseudo = logits.softmax(1).max(1)
        shares = precise(confidences >= self.settings.confidence).mean((1, 2), keepdim=True)
        chosen = plugin.draw_classes(labels, part.seeds_on(labels.device), "class_mix")  # half of them
        pasted = plugin.pasted_pixels(labels, chosen)
        images = torch.where(pasted[:, None], part.images("source"), target)
        return images, torch.where(pasted, labels, pseudo), torch.where(pasted, 1.0, shares)

    @property
    def result(self) -> Segmenter:
        return self.teacher

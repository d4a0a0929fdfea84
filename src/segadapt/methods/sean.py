"""SEAN: self-ensembling attention network (Xu, Du, Zhang, Zhang, Wang, Zhang; AAAI 2019, 33:5581-5588).

student S, teacher T (moving average of S), both with spatial attention A; source (x_s, y_s), target x_t
1  p' = softmax(T(x_t + n')),  A' = attention of T              noise n', n ~ N(0, σ²), n' drawn first
2  p  = softmax(S(x_t + n))
3  L  = CE(S(x_s), y_s) + λ · mean over {A' > τ} of (p - p')²    at the network's native stride
4  S  ← optimizer step on L
5  T  ← α T + (1 - α) S
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.ema import teacher_of
from segadapt.losses import labelled_pixels, masked_squared_error, masked_values, precise
from segadapt.methods.method import DomainName, Method, Update
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.teacher import TeacherSettings
from segadapt.models.segmenter import Segmenter
from segadapt.noise import SampleNoise


class SeanSettings(TeacherSettings):
    """Settings of `sean`, with the paper's symbols."""

    known_quirks: ClassVar[tuple[str, ...]] = (
        "aspp",
        "positional_load",
        "target_split",
        "target_restart",
        "selection",
        "last_not_saved",
    )
    method: Literal["sean"] = "sean"
    ema: float = Field(0.99, ge=0, lt=1, description="α: decay of the teacher's moving average")
    consistency: float = Field(0.3, ge=0, description="λ: weight of the consistency loss")
    attention_threshold: float = Field(
        0.1, ge=0, lt=1, description="τ: the loss counts pixels where the teacher's A > τ"
    )
    noise: float = Field(
        0.1, ge=0, description="σ: standard deviation of the noise on target images, in units of 0..255"
    )


class TeacherPass(NamedTuple):
    """The teacher's predictions for the target images of a micro-batch."""

    probabilities: Tensor  # p' (B, C, h, w)
    mask: Tensor  # A' > τ (B, 1, h, w)
    noise: SampleNoise  # n' was drawn from it; n is next


class Sean(Method):
    """The self-ensembling attention network; see the algorithm at the top of this file."""

    settings_type = SeanSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")
    attention: ClassVar[bool] = True

    def __init__(self, network: Segmenter, settings: SeanSettings) -> None:
        assert network.attention is not None, "SEAN needs a network with attention"
        self.settings = settings
        self.student = network
        self.student.set_mode(batch_norm=settings.learns_statistics)
        self.teacher: Segmenter = teacher_of(network, learns_statistics=settings.learns_statistics)
        self.modules: dict[str, nn.Module] = {"student": self.student, "teacher": self.teacher}
        self.optimizers: dict[str, Optimizer] = {"student": segmenter_optimizer(self.student, settings)}

    def step(self, batch: Batch, update: Update) -> None:
        settings, student = self.settings, self.student
        seen = [self.teacher_pass(part) for part in update.micro_batches(batch)]  # finds the mask, and so the count
        update.count(
            seg=labelled_pixels(batch.labels("source")),
            consistency=torch.stack([masked_values(one.mask, student.classes) for one in seen]).sum(),
        )
        for part, one in zip(update.micro_batches(batch), seen, strict=True):
            logits = student(one.noise.add(part.images("target"), settings.noise)).logits
            consistency = masked_squared_error(precise(logits).softmax(1), one.probabilities, one.mask)
            update.backward(consistency=settings.consistency * consistency)
            output = student(part.images("source"))
            update.backward(seg=segmentation_loss(student, output, part.labels("source"), auxiliary=0.0))
        update.step("student")
        update.follow(self.teacher, student, settings.decay)

    @torch.no_grad()
    def teacher_pass(self, batch: Batch) -> TeacherPass:
        """p' and the mask A' > τ at the network's native stride."""
        target = batch.images("target")
        noise = SampleNoise(batch, target.device)
        output = self.teacher(noise.add(target, self.settings.noise))
        mask = output.attention > self.settings.attention_threshold
        return TeacherPass(precise(output.logits).softmax(1), mask, noise)

    @property
    def result(self) -> Segmenter:
        return self.teacher

"""SEAN: self-ensembling attention network (Xu, Du, Zhang, Zhang, Wang, Zhang; AAAI 2019, 33:5581-5588).

student S, teacher T (moving average of S), both with spatial attention A; source (x_s, y_s), target x_t
1  p' = softmax(T(x_t + n')),  A' = attention of T              noise n', n ~ N(0, σ²), n' drawn first
2  p  = softmax(S(x_t + n))
3  L  = CE(S(x_s), y_s) + λ · mean over {A' > τ} of (p - p')²    at the network's native stride
4  S  ← optimizer step on L
5  T  ← α T + (1 - α) S
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.ema import teacher_of, warmed_up
from segadapt.losses import cross_entropy, masked_squared_error, precise
from segadapt.methods.method import DomainName, Method, Terms, Updater, Values
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.settings import SegmenterSettings
from segadapt.models.segmenter import Segmenter
from segadapt.noise import SampleNoise


class SeanSettings(SegmenterSettings):
    """Settings of `sean`, with the paper's symbols."""

    method: Literal["sean"] = "sean"
    ema: float = Field(0.99, ge=0, lt=1, description="α: decay of the teacher's moving average")
    ema_warmup: bool = Field(True, description="min(α, 1 - 1/(step + 1)) instead of α")
    consistency: float = Field(0.3, ge=0, description="λ: weight of the consistency loss")
    attention_threshold: float = Field(
        0.1, ge=0, lt=1, description="τ: the loss counts pixels where the teacher's A > τ"
    )
    noise: float = Field(0.1, ge=0, description="σ of the noise on the target images, in units of 0..255")


class Sean(Method):
    """The self-ensembling attention network; see the algorithm at the top of this file."""

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

    def step(self, batch: Batch, update: Updater) -> Values:
        values = update.minimize(["student"], self.losses, batch)
        decay = warmed_up(self.settings.ema, batch.step) if self.settings.ema_warmup else self.settings.ema
        update.follow(self.teacher, self.student, decay)
        return values

    def losses(self, batch: Batch) -> Terms:
        """`seg` on the source, `consistency` on the target."""
        source, target = batch.source, batch.target
        assert source is not None and source.labels is not None and target is not None
        noise = SampleNoise(batch.seeds, target.images.device)

        with torch.no_grad():
            teacher = self.teacher(noise.add(target.images, self.settings.noise))
        student = self.student(noise.add(target.images, self.settings.noise))
        consistency = masked_squared_error(
            precise(student.logits).softmax(1),  # (B, C, h, w)
            precise(teacher.logits).softmax(1),
            mask=teacher.attention > self.settings.attention_threshold,  # (B, 1, h, w)
        )
        yield {"consistency": consistency.weighted(self.settings.consistency)}

        logits = self.student(source.images).logits
        seg = cross_entropy(self.student.upsample(precise(logits), source.labels.shape[-2:]), source.labels)
        yield {"seg": seg}

    @property
    def result(self) -> Segmenter:
        return self.teacher

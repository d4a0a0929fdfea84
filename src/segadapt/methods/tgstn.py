"""TGSTN: task-guided style transfer network, the first stage of SE-GAN (TMM 2022, arXiv 2112.07999).

generator T, image discriminator D, frozen segmenter F trained on the source; source (x_s, y_s), target x_t
1  L   = 10 · CE(F(T(x_s)), y_s) + MSE(features of F(T(x_s)), features of F(x_s)) + BCE(D(T(x_s)), target)
2  T   ← optimizer step on L
3  L_D = ½ (BCE(D(T(x_s)), source) + BCE(D(x_s), source)) + BCE(D(x_t), target)          with the updated T, detached
4  D   ← optimizer step on L_D
T and D work on Caffe pixels (BGR minus mean, about -123..151).
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import cross_entropy, domain_loss, precise, squared_error
from segadapt.methods.method import DomainName, Method, Terms, Updater, Values, frozen
from segadapt.methods.optimizers import discriminator_optimizer, make_optimizer
from segadapt.methods.settings import TrainingSettings
from segadapt.models.discriminators import WIDTH, Discriminator, doubling
from segadapt.models.segmenter import CAFFE, Segmenter
from segadapt.models.style_transfer import StyleTransfer


class TgstnSettings(TrainingSettings):
    """Settings of `tgstn`."""

    method: Literal["tgstn"] = "tgstn"
    segmenter: str = Field(description="the frozen segmenter: `@stage`, a model or a published checkpoint")
    residual: bool = Field(
        False, description="the generator adds to its input and so begins as the identity: for short trainings"
    )
    semantic: float = Field(10.0, ge=0, description="weight of the segmenter's cross-entropy on the stylized image")
    perceptual: float = Field(1.0, ge=0, description="weight of the distance of the segmenter's features")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial loss")
    lr_discriminator: float = Field(5e-5, gt=0, description="learning rate of the discriminator (Adam)")
    discriminator_width: PositiveInt | None = Field(
        None,
        description="channels of the discriminator's first convolution (the next have 2, 4, 8 times as many); null: 32",
    )
    discriminator: str | None = Field(
        None, description="starting weights of the discriminator: a published file; null: fresh"
    )


class Tgstn(Method):
    """The task-guided style transfer network; see the algorithm at the top of this file."""

    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, generator: StyleTransfer, segmenter: Segmenter, settings: TgstnSettings) -> None:
        self.settings, self.generator = settings, generator
        generator.fuse_norms(not settings.official)
        self.segmenter = segmenter.eval().requires_grad_(False)
        self.discriminator = Discriminator(3, doubling(settings.discriminator_width or WIDTH))
        self.modules: dict[str, nn.Module] = {"generator": generator, "discriminator": self.discriminator}
        self.helpers = {"segmenter": segmenter}
        rate, decay = settings.lr_discriminator, settings.weight_decay
        self.optimizers: dict[str, Optimizer] = {
            "generator": make_optimizer(generator.parameters(), settings),
            "discriminator": discriminator_optimizer(self.discriminator, settings, rate, weight_decay=decay),
        }

    def step(self, batch: Batch, update: Updater) -> Values:
        values = update.minimize(["generator"], self.generator_losses, batch)
        others = update.minimize(["discriminator"], self.discriminator_losses, batch)
        return {**values, "discriminator": others["discriminator"]}

    def generator_losses(self, batch: Batch) -> Terms:
        """`semantic`, `perceptual`, `adversarial`."""
        source = batch.source
        assert source is not None and source.labels is not None
        pixels = CAFFE(source.images)
        stylized = precise(self.generator(pixels))
        seen = self.segmenter.segment(self.for_segmenter(stylized))
        with torch.no_grad():
            before = self.segmenter.segment(self.for_segmenter(pixels)).features
        logits = self.segmenter.upsample(precise(seen.logits), source.labels.shape[-2:])
        with frozen(self.discriminator):
            adversarial = domain_loss(self.discriminator(stylized), "target")
        yield {
            "semantic": cross_entropy(logits, source.labels).weighted(self.settings.semantic),
            "perceptual": squared_error(seen.features, before).weighted(self.settings.perceptual),
            "adversarial": adversarial.weighted(self.settings.adversarial),
        }

    def discriminator_losses(self, batch: Batch) -> Terms:
        """`discriminator`, with the updated generator."""
        source, target = batch.source, batch.target
        assert source is not None and target is not None
        pixels = CAFFE(source.images)
        with torch.no_grad():
            generator = self.generator if self.settings.official else self.generator.for_inference()
            stylized = precise(generator(pixels))
        fake, real = (domain_loss(self.discriminator(x), "source") for x in (stylized, pixels))
        wanted = domain_loss(self.discriminator(CAFFE(target.images)), "target")
        yield {"discriminator": fake.plus(real).times(0.5).plus(wanted)}

    def for_segmenter(self, pixels: Tensor) -> Tensor:
        """Caffe pixels (B, 3, H, W) in the segmenter's own format."""
        return pixels if self.segmenter.pixels == CAFFE else self.segmenter.pixels(CAFFE.inverse(pixels))

    @property
    def result(self) -> StyleTransfer:
        return self.generator

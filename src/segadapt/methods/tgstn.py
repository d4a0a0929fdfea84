"""TGSTN: task-guided style transfer network, the first stage of SE-GAN (TMM 2022, arXiv 2112.07999).

generator T, image discriminator D, frozen segmenter F trained on the source; source (x_s, y_s), target x_t
1  L   = 10 · CE(F(T(x_s)), y_s) + MSE(features of F(T(x_s)), features of F(x_s)) + BCE(D(T(x_s)), target)
2  T   ← optimizer step on L
3  L_D = ½ (BCE(D(T(x_s)), source) + BCE(D(x_s), source)) + BCE(D(x_t), target)          with the updated T, detached
4  D   ← optimizer step on L_D
T and D work on Caffe pixels (BGR minus mean, about -123..151).
"""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import cross_entropy, domain_loss, labelled_pixels, precise, squared_error
from segadapt.methods.method import DomainName, Method, Networks, Update, frozen
from segadapt.methods.optimizers import discriminator_optimizer, make_optimizer
from segadapt.methods.settings import TrainingSettings
from segadapt.models.discriminators import WIDTH, Discriminator, doubling
from segadapt.models.segmenter import CAFFE, Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.references import SEGMENTER, Names


class TgstnSettings(TrainingSettings):
    """Settings of `tgstn`."""

    known_quirks: ClassVar[tuple[str, ...]] = ("target_restart",)
    method: Literal["tgstn"] = "tgstn"
    segmenter: Annotated[str, Names("the segmenter", SEGMENTER)] = Field(
        description="the frozen segmenter: `@stage`, a model or a published checkpoint"
    )
    residual: bool = Field(
        False,
        description="the generator predicts a residual of its input and so begins as the identity: for short trainings",
    )
    semantic: float = Field(10.0, ge=0, description="weight of the segmenter's cross-entropy on the stylized image")
    perceptual: float = Field(1.0, ge=0, description="weight of the distance of the segmenter's features")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial loss")
    lr_discriminator: float = Field(5e-5, gt=0, description="learning rate of the discriminator (Adam)")
    discriminator_width: PositiveInt | None = Field(
        None,
        description="channels of the discriminator's first convolution (the next have 2, 4, 8 times as many); null: 32",
    )
    discriminator: Annotated[str | None, Names("the discriminator's file")] = Field(
        None, description="initial weights of the discriminator: a published file; null: fresh"
    )


class Tgstn(Method):
    """The task-guided style transfer network; see the algorithm at the top of this file."""

    settings_type = TgstnSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, generator: StyleTransfer, segmenter: Segmenter, settings: TgstnSettings) -> None:
        self.settings, self.generator = settings, generator
        self._copy: StyleTransfer | None = None  # of the generator, made for inference
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

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        segmenter = networks.saved_segmenter(settings.segmenter)
        generator = StyleTransfer(settings.residual)
        networks.fill(generator, "generator", settings.start)
        method = cls(generator, segmenter, settings)
        networks.fill(method.discriminator, "discriminator", settings.discriminator)
        return method

    def step(self, batch: Batch, update: Update) -> None:
        update.count(semantic=labelled_pixels(batch.labels("source")))
        for part in update.micro_batches(batch):
            self.generator_backward(part, update)
        update.step("generator")
        for part in update.micro_batches(batch):
            self.discriminator_backward(part, update)
        update.step("discriminator")

    def generator_backward(self, batch: Batch, update: Update) -> None:
        """Line 1 of the algorithm: `semantic`, `perceptual`, `adversarial`."""
        settings, labels = self.settings, batch.labels("source")
        pixels = CAFFE(batch.images("source"))
        stylized = precise(self.generator(pixels))
        seen = self.segmenter.segment(self.for_segmenter(stylized))
        with torch.no_grad():
            before = self.segmenter.segment(self.for_segmenter(pixels)).features
        logits = self.segmenter.upsample(precise(seen.logits), labels.shape[-2:])
        with frozen(self.discriminator):
            adversarial = domain_loss(self.discriminator(stylized), "target")
        update.backward(
            semantic=settings.semantic * cross_entropy(logits, labels),
            perceptual=settings.perceptual * squared_error(seen.features, before),
            adversarial=settings.adversarial * adversarial,
        )

    def discriminator_backward(self, batch: Batch, update: Update) -> None:
        """Line 3 of the algorithm: `discriminator`, with the updated generator."""
        pixels = CAFFE(batch.images("source"))
        with torch.no_grad():
            stylized = precise(self.updated_generator()(pixels))
        fake, real = (domain_loss(self.discriminator(x), "source") for x in (stylized, pixels))
        wanted = domain_loss(self.discriminator(CAFFE(batch.images("target"))), "target")
        update.backward(discriminator=fake.plus(real).times(0.5).plus(wanted))

    def updated_generator(self) -> StyleTransfer:
        """The generator as it is now, for a pass without gradients: a quicker copy, which is made once and kept."""
        if self.settings.official:
            return self.generator
        if self._copy is None:
            self._copy = self.generator.for_inference()
        else:
            self._copy.take_weights(self.generator)
        return self._copy

    def for_segmenter(self, pixels: Tensor) -> Tensor:
        """Caffe pixels (B, 3, H, W) converted to the segmenter's own format."""
        return pixels if self.segmenter.pixels == CAFFE else self.segmenter.pixels(CAFFE.inverse(pixels))

    @property
    def result(self) -> StyleTransfer:
        return self.generator

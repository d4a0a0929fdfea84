"""SE-GAN: self-ensembling GAN (Xu, He, Du, Tao, Zhang; IEEE TMM 2022, arXiv 2112.07999).

student S with heads 1 (auxiliary) and 2 (main), teacher T (moving average of S), a discriminator D_i per head;
source (x_s, y_s), including stylized copies; target x_t; p_i = softmax of head i at the size of its image
1  L_seg = wCE(S_2(x_s), y_s) + 0.1 · wCE(S_1(x_s), y_s)                     w: running class weights
2  L_con = mean (p_2(S, x_t + n) - p_2(T, x_t + n'))² + μ · the same for head 1     noise n', n ~ N(0, σ²), n' first
3  L_adv = BCE(D_2(p_2(S, x_t)), source) + 0.1 · BCE(D_1(p_1(S, x_t)), source)
4  L     = L_seg + λ_con L_con + λ_adv (1 - step/total) L_adv
5  L_D_i = ½ BCE(D_i(p_i(S, x_s)), source) + ½ BCE(D_i(p_i(S, x_t)), target)      on the same softmax outputs, detached
6  S, D_1, D_2 ← optimizer steps on L, L_D_1, L_D_2
7  T ← α T + (1 - α) S
A network with one head has neither D_1 nor the terms of head 1; with more than two heads, the last is the main one, and
each of the others has the weight of head 1.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.ema import teacher_of
from segadapt.errors import UsageError
from segadapt.losses import (
    Loss,
    cross_entropy,
    domain_loss,
    head_numbers,
    joint,
    labelled_pixels,
    precise,
    squared_error,
)
from segadapt.methods.class_balance import BalancedSettings, ClassBalance
from segadapt.methods.method import DomainName, Method, Networks, Update, frozen
from segadapt.methods.optimizers import discriminator_optimizer, segmenter_optimizer
from segadapt.methods.settings import WithExtraSource
from segadapt.methods.teacher import TeacherSettings
from segadapt.models.discriminators import WIDTH, Discriminator, doubling
from segadapt.models.segmenter import Segmenter
from segadapt.noise import SampleNoise
from segadapt.references import Names


class SeGanSettings(WithExtraSource, BalancedSettings, TeacherSettings):
    """Settings of `se_gan`, with the paper's symbols."""

    known_quirks: ClassVar[tuple[str, ...]] = ("aspp", "selection", "repeated_updates", "d2_head1")
    method: Literal["se_gan"] = "se_gan"
    auxiliary: float = Field(0.1, ge=0, description="weight of head 1 in L_seg and L_adv")
    consistency: float = Field(3.0, ge=0, description="λ_con: weight of the consistency loss")
    auxiliary_consistency: float = Field(0.0, ge=0, description="μ: weight of head 1 in L_con")
    adversarial: float = Field(1e-3, ge=0, description="λ_adv: weight of the adversarial loss, which decays to 0")
    noise: float = Field(
        0.0, ge=0, description="σ: standard deviation of the noise on target images, in units of 0..255"
    )
    lr_discriminator: float = Field(1e-5, gt=0, description="learning rate of the discriminators (Adam, β2 0.99)")
    discriminator_width: PositiveInt | None = Field(
        None,
        description="channels of a discriminator's first convolution (the next have 2, 4, 8 times as many); null: 32",
    )
    discriminators: Annotated[list[str] | None, Names("the discriminators' file")] = Field(
        None, description="initial weights of the discriminators of heads 1, 2 …: published files; null: fresh"
    )

    def discriminator_files(self, names: list[str]) -> dict[str, str | None]:
        """Each discriminator's file of initial weights. Raises UsageError if the number of files differs."""
        if self.discriminators is None:
            return dict.fromkeys(names)
        files = self.discriminators
        if len(names) == 1 and len(files) == 2:  # the published pair, for a network that has the main head alone
            files = files[1:]
        if len(files) != len(names):
            raise UsageError(
                f"has {len(files)} files, but network '{self.network_name}' has {len(names)} heads",
                where="discriminators",
                remedy="Give one file for each head, the main head's last.",
            )
        return dict(zip(names, files, strict=True))


class SeGan(Method):
    """The self-ensembling GAN; see the algorithm at the top of this file."""

    settings_type = SeGanSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")
    scheduled: ClassVar[bool] = True  # the adversarial term decays

    def __init__(self, network: Segmenter, settings: SeGanSettings, length: int) -> None:
        """`length`: the steps over which the adversarial term decays."""
        self.settings, self.length = settings, length
        self.student = network
        self.student.set_mode(batch_norm=settings.learns_statistics)
        self.teacher: Segmenter = teacher_of(network, learns_statistics=settings.learns_statistics)
        self.balance = ClassBalance(network.classes, settings)
        numbers = head_numbers(network.number_of_heads)  # in the heads' order
        widths = doubling(settings.discriminator_width or WIDTH)
        self.discriminators = {f"discriminator{i}": Discriminator(network.classes, widths) for i in numbers}
        self.modules: dict[str, nn.Module] = {"student": network, "teacher": self.teacher, "balance": self.balance}
        self.modules.update(self.discriminators)
        self.optimizers: dict[str, Optimizer] = {"student": segmenter_optimizer(network, settings)}
        for name, d in self.discriminators.items():
            self.optimizers[name] = discriminator_optimizer(d, settings, settings.lr_discriminator, beta2=0.99)

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        method = cls(networks.segmenter(settings), settings, networks.length)
        for name, file in settings.discriminator_files(list(method.discriminators)).items():
            networks.fill(method.discriminators[name], name, file)
        return method

    def step(self, batch: Batch, update: Update) -> None:
        weights = self.balance.of_batch(batch.labels("source"), update)
        update.count(seg=labelled_pixels(batch.labels("source"), weights))
        for part in update.micro_batches(batch):
            self.backward(part, update, weights)
        update.step("student", *self.discriminators)
        update.follow(self.teacher, self.student, self.settings.decay)

    def backward(self, batch: Batch, update: Update, weights: Tensor | None) -> None:
        """Lines 1 to 5 of the algorithm: `consistency`, `adversarial` and `seg`, then each discriminator's own."""
        settings, discriminators = self.settings, list(self.discriminators.values())
        target, labels, heads = batch.images("target"), batch.labels("source"), len(discriminators)

        noise = SampleNoise(batch, target.device)
        with torch.no_grad():
            wanted = self.teacher(noise.add(target, settings.noise))
        output = self.student(noise.add(target, settings.noise))
        on_target = [logits.softmax(1) for logits in self.student.logits_at(output, target.shape[-2:])]

        def disagreement(i: int) -> Loss:
            with torch.no_grad():
                theirs = self.student.upsample(precise(wanted.heads[i]), target.shape[-2:]).softmax(1)
            return squared_error(on_target[i], theirs)

        def fooling(i: int) -> Loss:
            return domain_loss(discriminators[i](on_target[i]), "source")

        consistency = joint(disagreement, heads, settings.auxiliary_consistency)
        with frozen(*discriminators):
            adversarial = joint(fooling, heads, settings.auxiliary)
        weight = update.number(lambda step: settings.adversarial * max(0.0, 1 - step / self.length))
        update.backward(consistency=settings.consistency * consistency, adversarial=weight * adversarial)
        on_target = [p.detach() for p in on_target]

        on_source = self.student.logits_at(self.student(batch.images("source")), labels.shape[-2:])
        update.backward(seg=joint(lambda i: cross_entropy(on_source[i], labels, weights), heads, settings.auxiliary))

        for i, (name, d) in enumerate(self.discriminators.items()):
            # Quirk `d2_head1`: the target example of D_2 is head 1's.
            example = on_target[0 if settings.quirk("d2_head1") else i]
            of_source = domain_loss(d(on_source[i].detach().softmax(1)), "source")
            update.backward(**{name: of_source.plus(domain_loss(d(example), "target")).times(0.5)})

    @property
    def result(self) -> Segmenter:
        return self.teacher

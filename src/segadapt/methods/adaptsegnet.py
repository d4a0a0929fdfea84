"""AdaptSegNet: learning to adapt structured output space (Tsai et al., CVPR 2018, arXiv 1802.10349).

The adversarial baseline that SE-GAN descends from. Network G with heads 1 (auxiliary) and 2 (main), a discriminator D_i
per head; source (x_s, y_s), target x_t; p_i = softmax of head i at the size of its image
1  L_seg = CE(G_2(x_s), y_s) + 0.1 · CE(G_1(x_s), y_s)
2  L_adv = λ_2 · d(D_2(p_2(x_t)), source) + λ_1 · d(D_1(p_1(x_t)), source)       d: BCE, or MSE (least squares)
3  L     = L_seg + L_adv
4  L_D_i = ½ d(D_i(p_i(x_s)), source) + ½ d(D_i(p_i(x_t)), target)                 on the same softmax outputs, detached
5  G, D_1, D_2 ← optimizer steps on L, L_D_1, L_D_2
With more than two heads, the last is the main one, and all others are treated like head 1.
Two-level: λ_2 1e-3, λ_1 2e-4. Single level (least squares): λ_2 0.01, λ_1 0 and no auxiliary CE; there is no D_1 then.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss, cross_entropy, domain_loss, head_numbers, joint, labelled_pixels
from segadapt.methods.method import DomainName, Method, Update, frozen
from segadapt.methods.optimizers import discriminator_optimizer, segmenter_optimizer
from segadapt.methods.settings import WithExtraSource
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import Segmenter

STRONG_UNDER_ADAM = 1e-4
"""From this λ_2 on, training with Adam was observed to lose more than it gains (docs/methods/adaptsegnet.md)."""
WIDTHS = (64, 128, 256, 512)
"""Channels of its discriminators: twice those of SE-GAN."""


class AdaptSegNetSettings(WithExtraSource):
    """Settings of `adaptsegnet`, with the paper's symbols."""

    known_quirks: ClassVar[tuple[str, ...]] = ("aspp", "train_bn", "repeated_updates")
    method: Literal["adaptsegnet"] = "adaptsegnet"
    least_squares: bool = Field(False, description="MSE instead of BCE in the adversarial losses")
    auxiliary: float = Field(0.1, ge=0, description="weight of head 1 in L_seg")
    adversarial: float = Field(1e-3, ge=0, description="λ_2: weight of the adversarial loss of head 2")
    auxiliary_adversarial: float = Field(
        2e-4, ge=0, description="λ_1: weight of the adversarial loss of head 1; 0: no D_1"
    )
    lr_discriminator: float = Field(1e-4, gt=0, description="learning rate of the discriminators (Adam, β2 0.99)")

    def cautions(self) -> list[str]:
        # Adam divides by the noise of the whole gradient, so that its small but steady adversarial component moves the
        # weights as much as the cross-entropy does; with the published SGD it acts in proportion to its norm.
        if self.optimizer != "adam" or self.adversarial < STRONG_UNDER_ADAM:
            return []
        return [
            f"adversarial {self.adversarial:g} was published with SGD; under Adam it makes the target's predictions "
            "follow the source's class shares and can cost many points. Use optimizer: sgd (lr 2.5e-4, head_lr 10), or "
            "adversarial: 1e-5, and compare with source_only"
        ]


class AdaptSegNet(Method):
    """Output-space adversarial adaptation; see the algorithm at the top of this file."""

    settings_type = AdaptSegNetSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, network: Segmenter, settings: AdaptSegNetSettings) -> None:
        self.network, self.settings = network, settings
        network.set_mode(batch_norm=settings.learns_statistics)
        *auxiliary, main = head_numbers(network.number_of_heads)
        self.heads = {i: head for head, i in enumerate([*auxiliary, main])}  # level -> its head
        self.levels = {i: settings.auxiliary_adversarial for i in auxiliary if settings.auxiliary_adversarial > 0}
        self.levels[main] = settings.adversarial  # level -> λ
        self.discriminators = {i: Discriminator(network.classes, WIDTHS) for i in self.levels}
        self.modules: dict[str, nn.Module] = {"network": network}
        self.optimizers: dict[str, Optimizer] = {"network": segmenter_optimizer(network, settings)}
        for i, d in self.discriminators.items():
            self.modules[f"discriminator{i}"] = d
            self.optimizers[f"discriminator{i}"] = discriminator_optimizer(
                d, settings, settings.lr_discriminator, beta2=0.99
            )

    def step(self, batch: Batch, update: Update) -> None:
        update.count(seg=labelled_pixels(batch.labels("source")))
        for part in update.micro_batches(batch):
            self.backward(part, update)
        update.step(*self.optimizers)

    def backward(self, batch: Batch, update: Update) -> None:
        """Lines 1 to 4 of the algorithm: `seg`, `adversarial1`, `adversarial2`, then each discriminator's own."""
        network, settings, target = self.network, self.settings, batch.images("target")
        labels, heads = batch.labels("source"), network.number_of_heads
        on_source = network.logits_at(network(batch.images("source")), labels.shape[-2:])
        update.backward(seg=joint(lambda i: cross_entropy(on_source[i], labels), heads, settings.auxiliary))

        of_heads = network.logits_at(network(target), target.shape[-2:])
        on_target = {i: of_heads[self.heads[i]].softmax(1) for i in self.levels}
        adversarial: dict[str, Loss] = {}
        for i, weight in self.levels.items():
            d = self.discriminators[i]
            with frozen(d):
                adversarial[f"adversarial{i}"] = weight * domain_loss(d(on_target[i]), "source", settings.least_squares)
        update.backward(**adversarial)

        for i, d in self.discriminators.items():
            softmax = on_source[self.heads[i]].detach().softmax(1)
            of_source = domain_loss(d(softmax), "source", settings.least_squares)
            of_target = domain_loss(d(on_target[i].detach()), "target", settings.least_squares)
            update.backward(**{f"discriminator{i}": of_source.plus(of_target).times(0.5)})

    @property
    def result(self) -> Segmenter:
        return self.network

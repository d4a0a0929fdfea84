"""Self-training, the last stage of SE-GAN (TMM 2022): the target's own pseudo-labels as labels.

    L = wCE(network_2(x_t), ŷ_t) + 0.1 · wCE(network_1(x_t), ŷ_t)          w: running class weights

x_t are target images, ŷ_t the labels that an earlier stage predicted for them. No true labels are used.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import labelled_pixels
from segadapt.methods.class_balance import BalancedSettings, ClassBalance
from segadapt.methods.method import DomainName, Method, Update
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.segmentation import segmentation_loss
from segadapt.models.segmenter import Segmenter
from segadapt.references import PSEUDO_LABELS, Names


class SelfTrainingSettings(BalancedSettings):
    """Settings of `self_training`."""

    known_quirks: ClassVar[tuple[str, ...]] = (
        "aspp",
        "selection",
        "train_bn",
        "bn_until_first_eval",
        "repeated_updates",
    )
    method: Literal["self_training"] = "self_training"
    labels: Annotated[str, Names("the folder of pseudo-labels", PSEUDO_LABELS)] = Field(
        description="pseudo-labels: `@stage`, or a folder of label files with the target images' names"
    )
    auxiliary: float = Field(0.1, ge=0, description="weight of head 1")


class SelfTraining(Method):
    """Class-balanced cross-entropy on pseudo-labels; see the top of this file."""

    settings_type = SelfTrainingSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("target",)
    labelled: ClassVar[DomainName] = "target"

    def __init__(self, network: Segmenter, settings: SelfTrainingSettings) -> None:
        self.network, self.settings = network, settings
        self.balance = ClassBalance(network.classes, settings)
        self.modules: dict[str, nn.Module] = {"network": network, "balance": self.balance}
        self.optimizers: dict[str, Optimizer] = {"network": segmenter_optimizer(network, settings)}

    def step(self, batch: Batch, update: Update) -> None:
        self.network.set_mode(batch_norm=update.choice(self.learning_statistics))
        weights = self.balance.of_batch(batch.labels("target"), update)
        update.count(seg=labelled_pixels(batch.labels("target"), weights))
        for part in update.micro_batches(batch):
            output, labels = self.network(part.images("target")), part.labels("target")
            update.backward(seg=segmentation_loss(self.network, output, labels, self.settings.auxiliary, weights))
        update.step("network")

    def learning_statistics(self, step: int) -> bool:
        """Whether batch norm is in train mode; quirk `bn_until_first_eval`: only until the first evaluation."""
        ended = self.settings.quirk("bn_until_first_eval") and 0 < self.settings.evaluate_every <= step
        return self.settings.learns_statistics and not ended

    @property
    def result(self) -> Segmenter:
        return self.network

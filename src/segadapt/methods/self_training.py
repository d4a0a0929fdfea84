"""Self-training, the last stage of SE-GAN (TMM 2022): the target's own pseudo-labels as labels.

    L = wCE(network_2(x_t), ŷ_t) + 0.1 · wCE(network_1(x_t), ŷ_t)          w: class weights that follow the batches

x_t are target images, ŷ_t the labels that the stage before has predicted for them. True labels have no part in it.
"""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss, cross_entropy, joint, precise
from segadapt.methods.class_balance import BalancedSettings, ClassBalance, class_counts
from segadapt.methods.method import DomainName, Method, Terms, Updater, Values
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.models.segmenter import Segmenter


class SelfTrainingSettings(BalancedSettings):
    """Settings of `self_training`."""

    method: Literal["self_training"] = "self_training"
    labels: str = Field(description="`@stage` of pseudo-labels, or a folder of them, named as the target images")
    auxiliary: float = Field(0.1, ge=0, description="share of head 1")


class SelfTraining(Method):
    """Class-balanced cross-entropy on pseudo-labels; see the top of this file."""

    domains: ClassVar[tuple[DomainName, ...]] = ("target",)
    labelled: ClassVar[DomainName] = "target"

    def __init__(self, network: Segmenter, settings: SelfTrainingSettings) -> None:
        self.network, self.settings = network, settings
        self.balance = ClassBalance(network.classes, settings)
        self.modules: dict[str, nn.Module] = {"network": network, "balance": self.balance}
        self.optimizers: dict[str, Optimizer] = {"network": segmenter_optimizer(network, settings)}

    def step(self, batch: Batch, update: Updater) -> Values:
        assert batch.target is not None and batch.target.labels is not None
        self.network.set_mode(batch_norm=self.learning_statistics(batch.step))
        weights = None
        if self.settings.balance:
            counts = update.over_ranks(class_counts(batch.target.labels))
            weights = self.balance.weights(counts, self.settings.batch)
        return update.minimize(["network"], partial(self.losses, weights=weights), batch)

    def losses(self, batch: Batch, weights: Tensor | None) -> Terms:
        """`seg`, on the pseudo-labels."""
        target = batch.target
        assert target is not None and target.labels is not None
        labels, heads = target.labels, self.network(target.images).heads

        def seg(head: int) -> Loss:
            return cross_entropy(self.network.upsample(precise(heads[head]), labels.shape[-2:]), labels, weights)

        yield {"seg": joint(seg, len(heads), self.settings.auxiliary)}

    def learning_statistics(self, step: int) -> bool:
        """Whether batch norm is in train mode; quirk `bn_until_first_eval`: only until the first evaluation."""
        ended = self.settings.quirk("bn_until_first_eval") and 0 < self.settings.evaluate_every <= step
        return self.settings.learns_statistics and not ended

    @property
    def result(self) -> Segmenter:
        return self.network

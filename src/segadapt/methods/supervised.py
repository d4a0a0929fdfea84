"""Training on the labels of one domain: `source_only`, the honest baseline, and `target_trained`, the upper bound.

    L = CE(network(x), y)

Nothing of the target enters `source_only`: no image, and no statistics either, since pretrained batch norm stays frozen
and networks from scratch use group norm.
"""

from typing import ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import Loss, cross_entropy
from segadapt.methods.method import DomainName, Method, Updater, Values
from segadapt.methods.optimizers import make_optimizer
from segadapt.methods.settings import TrainingSettings
from segadapt.models.segmenter import Segmenter


class SourceOnlySettings(TrainingSettings):
    """Settings of `source_only`."""

    method: Literal["source_only"] = "source_only"


class TargetTrainedSettings(TrainingSettings):
    """Settings of `target_trained`: it uses target labels, and is there to be compared with."""

    method: Literal["target_trained"] = "target_trained"


class SourceOnly(Method):
    """Cross-entropy on labelled source images."""

    domains: ClassVar[tuple[DomainName, ...]] = ("source",)

    def __init__(self, network: Segmenter, settings: TrainingSettings) -> None:
        self.network = network.train()
        self.modules: dict[str, nn.Module] = {"network": network}
        self.optimizers: dict[str, Optimizer] = {"network": make_optimizer(network.parameters(), settings)}

    def step(self, batch: Batch, update: Updater) -> Values:
        return update.minimize(["network"], self.losses, batch)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """`seg`: the cross-entropy at the size of the labels."""
        labelled = batch.source if batch.source is not None else batch.target
        assert labelled is not None and labelled.labels is not None
        output = self.network(labelled.images)
        logits = self.network.upsample(output.logits.float(), labelled.labels.shape[-2:])  # (B, C, H, W)
        return {"seg": cross_entropy(logits, labelled.labels)}

    @property
    def result(self) -> Segmenter:
        return self.network


class TargetTrained(SourceOnly):
    """The same on labelled target images."""

    domains: ClassVar[tuple[DomainName, ...]] = ("target",)

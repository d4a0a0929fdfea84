"""Training on the labels of one domain: `source_only`, the baseline, and `target_trained`, the upper bound.

    L = CE(network_2(x), y) + 0.1 · CE(network_1(x), y)          head 1, the auxiliary one, if the network has it

`source_only` uses nothing of the target: neither images nor statistics, since batch norm uses the source's statistics
or, if frozen, those of the initial weights.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.losses import labelled_pixels
from segadapt.methods.method import DomainName, Method, Update
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.settings import SegmenterSettings, TrainingSettings, WithExtraSource
from segadapt.models.segmenter import Segmenter

QUIRKS = ("aspp", "positional_load", "selection", "main_head_only", "train_bn", "repeated_updates")


class SourceOnlySettings(WithExtraSource):
    """Settings of `source_only`."""

    known_quirks: ClassVar[tuple[str, ...]] = QUIRKS
    method: Literal["source_only"] = "source_only"
    auxiliary: float = Field(0.1, ge=0, description="weight of the auxiliary head, if the network has one")


class TargetTrainedSettings(SegmenterSettings):
    """Settings of `target_trained`, which uses target labels and serves for comparison."""

    known_quirks: ClassVar[tuple[str, ...]] = QUIRKS
    method: Literal["target_trained"] = "target_trained"
    auxiliary: float = Field(0.1, ge=0, description="weight of the auxiliary head, if the network has one")


class SourceOnly(Method):
    """Cross-entropy on labelled source images."""

    settings_type: ClassVar[type[TrainingSettings]] = SourceOnlySettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source",)

    def __init__(self, network: Segmenter, settings: SourceOnlySettings | TargetTrainedSettings) -> None:
        self.network = network
        network.set_mode(batch_norm=settings.learns_statistics)
        self.auxiliary = 0.0 if settings.quirk("main_head_only") else settings.auxiliary
        self.modules: dict[str, nn.Module] = {"network": network}
        self.optimizers: dict[str, Optimizer] = {"network": segmenter_optimizer(network, settings)}

    def step(self, batch: Batch, update: Update) -> None:
        update.count(seg=labelled_pixels(batch.labels(self.labelled)))
        for part in update.micro_batches(batch):
            output = self.network(part.images(self.labelled))
            update.backward(seg=segmentation_loss(self.network, output, part.labels(self.labelled), self.auxiliary))
        update.step("network")

    @property
    def result(self) -> Segmenter:
        return self.network


class TargetTrained(SourceOnly):
    """The same on labelled target images."""

    settings_type: ClassVar[type[TrainingSettings]] = TargetTrainedSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("target",)
    labelled: ClassVar[DomainName] = "target"
    uses_target_labels: ClassVar[bool] = True

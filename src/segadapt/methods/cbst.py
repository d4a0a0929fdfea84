"""Self-training beside the source, as in class-balanced self-training (CBST: Zou, Yu, Kumar, Wang; ECCV 2018).

    L = CE(network(x_s), y_s) + λ · CE(network(x_t), ŷ_t)        each CE with its auxiliary head's, times 0.1

x_s, y_s are source images and labels, x_t target images, ŷ_t the labels that an earlier stage predicted for their most
confident pixels, class by class (`pseudo_labels`). No true labels of the target are used. In SE-GAN's `self_training`
the network sees the target alone; here the source's labels, which are right, stay beside the pseudo-labels.
Batch norm that learns normalizes each domain by its own statistics; the running ones are the target's alone.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn
from torch.optim import Optimizer

from segadapt.batch import Batch
from segadapt.batch_norm import keeping_statistics
from segadapt.losses import labelled_pixels
from segadapt.methods.method import DomainName, Method, Update
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.settings import WithExtraSource
from segadapt.models.segmenter import Segmenter
from segadapt.references import PSEUDO_LABELS, Names


class CbstSettings(WithExtraSource):
    """Settings of `cbst`."""

    method: Literal["cbst"] = "cbst"
    labels: Annotated[str, Names("the folder of pseudo-labels", PSEUDO_LABELS)] = Field(
        description="pseudo-labels: `@stage`, or a folder of label files with the target images' names"
    )
    pseudo_weight: float = Field(1.0, ge=0, description="λ: weight of the target's loss")
    auxiliary: float = Field(0.1, ge=0, description="weight of head 1, if the network has it, in both losses")

    @model_validator(mode="after")
    def _has_no_published_form(self) -> "CbstSettings":
        if self.official:
            raise ValueError("`official` is not there for cbst, whose program is not reproduced. Leave it out")
        return self


class Cbst(Method):
    """Cross-entropy on source labels and on the target's pseudo-labels; see the top of this file."""

    settings_type = CbstSettings
    domains: ClassVar[tuple[DomainName, ...]] = ("source", "target")

    def __init__(self, network: Segmenter, settings: CbstSettings) -> None:
        self.network, self.settings = network, settings
        network.set_mode(batch_norm=settings.learns_statistics)
        self.modules: dict[str, nn.Module] = {"network": network}
        self.optimizers: dict[str, Optimizer] = {"network": segmenter_optimizer(network, settings)}

    def step(self, batch: Batch, update: Update) -> None:
        update.count(seg=labelled_pixels(batch.labels("source")), pseudo=labelled_pixels(batch.labels("target")))
        for part in update.micro_batches(batch):
            with keeping_statistics(self.network):
                output = self.network(part.images("source"))
                loss = segmentation_loss(self.network, output, part.labels("source"), self.settings.auxiliary)
                update.backward(seg=loss)
            output = self.network(part.images("target"))
            loss = segmentation_loss(self.network, output, part.labels("target"), self.settings.auxiliary)
            update.backward(pseudo=self.settings.pseudo_weight * loss)
        update.step("network")

    @property
    def result(self) -> Segmenter:
        return self.network

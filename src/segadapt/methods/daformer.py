"""DAFormer's training (Hoyer, Dai, Van Gool; CVPR 2022, arXiv 2111.14887): DACS with three additional strategies.

student S, its teacher, and all of DACS's algorithm (dacs.py) with its L; F frozen ImageNet-pretrained encoder
1  source images by rare-class sampling with P(c) = softmax((1 - f_c) / T)       f_c: share of class c; `sampler`
2  d    = |F(x_s) - S's encoder(x_s)|, for the deepest features, per position
3  L_FD = mean of d where at least a share r of the surrounding labels is one thing class
4  L    ← L + λ_FD · L_FD
5  the learning rate rises linearly before it decays                               `warmup_steps`
"""

import copy
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from segadapt.batch import Batch
from segadapt.losses import Loss, precise
from segadapt.methods.dacs import Dacs
from segadapt.methods.feature_distance import feature_distance, thing_cells
from segadapt.methods.method import Networks, Update
from segadapt.methods.mixing import MixingSettings, Seen
from segadapt.methods.settings import TrainingSettings
from segadapt.models.segmenter import Segmenter
from segadapt.references import Names


class FeatureSettings(MixingSettings):
    """Settings of the feature distance."""

    feature_distance: float = Field(0.005, ge=0, description="λ_FD: weight of the feature distance; 0: none")
    thing_ratio: float = Field(
        0.75,
        gt=0.5,
        le=1,
        description="r: minimum share of one thing class in the labels around a position for it to count",
    )
    feature_start: Annotated[str | None, Names("the start file of the frozen encoder", initial=True)] = Field(
        None, description="weights of the frozen encoder F, named as in `start`; null: those of `start`"
    )

    def cautions(self) -> list[str]:
        if self.feature_distance == 0 or self.start is not None or self.feature_start is not None:
            return super().cautions()
        return [
            *super().cautions(),
            "feature_distance keeps features near those of the start, and there is none: set `start` to ImageNet "
            "weights, or feature_distance: 0",
        ]


class DaformerSettings(FeatureSettings):
    """Settings of `daformer`."""

    method: Literal["daformer"] = "daformer"


class Daformer(Dacs):
    """DACS with the feature distance; see the algorithm at the top of this file."""

    settings_type: ClassVar[type[TrainingSettings]] = DaformerSettings
    tells_things: ClassVar[bool] = True

    def __init__(
        self, network: Segmenter, settings: FeatureSettings, frozen: Segmenter, things: tuple[int, ...]
    ) -> None:
        super().__init__(network, settings)
        self.distance, self.ratio, self.things = settings.feature_distance, settings.thing_ratio, things
        if self.distance > 0:
            self.helpers = {"frozen": frozen.eval().requires_grad_(False)}

    @classmethod
    def build(cls, networks: Networks, settings: Any) -> Self:
        network = networks.segmenter(settings)
        if settings.feature_start is None:
            frozen = copy.deepcopy(network)
        else:
            frozen = networks.segmenter(settings.model_copy(update={"start": settings.feature_start}))
        return cls(network, settings, frozen, networks.things)

    def begin(self, batch: Batch, update: Update) -> list[Seen]:
        """As in DACS, plus the features of F for the source images."""
        seen = super().begin(batch, update)
        if self.distance == 0:
            return seen
        for i, part in enumerate(update.micro_batches(batch)):
            features = self.frozen_features(part.images("source"))
            cells = thing_cells(part.labels("source"), self.things, features.shape, self.ratio)
            seen[i] = seen[i]._replace(features=features, cells=cells)
        update.count(feature=torch.stack([precise(one.cells.sum()) for one in seen if one.cells is not None]).sum())
        return seen

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """F(x_s): the deepest features (B, F, h, w)."""
        frozen = self.helpers["frozen"]
        assert isinstance(frozen, Segmenter)
        return frozen.encode_scales(frozen.pixels(images))[-1]

    def on_source(self, part: Batch, seen: Seen) -> dict[str, Loss]:
        """`seg` and `feature`, from the same pass."""
        output = self.student(part.images("source"))
        losses = self.supervised(output, part.labels("source"))
        if seen.features is None or seen.cells is None:
            return losses
        distance = feature_distance(output.scales[-1], seen.features, seen.cells)
        return losses | {"feature": self.distance * distance}

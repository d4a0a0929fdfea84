"""What every training stage can be told; each method adds its own settings beside its code."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, PositiveInt, field_validator, model_validator

from segadapt.data.transforms import Augmentation
from segadapt.errors import nearest
from segadapt.models.networks import NETWORKS
from segadapt.quirks import QUIRKS, quirks_of
from segadapt.settings import Settings, Size

NOT_A_RESULT: dict[str, JsonValue] = {"result": False}
"""Marks settings that do not change the weights: they may differ when a run goes on."""


def _known_network(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}'. {nearest(name, list(NETWORKS))}")
    return name


class TrainingSettings(Settings):
    """Settings shared by all methods that train."""

    method: str
    network: Annotated[str, AfterValidator(_known_network)] = Field(
        "deeplab_vgg16", description="the segmenter: a name that `segadapt.models.networks` knows"
    )
    start: str | None = Field(
        None, description="starting weights: a file, `vgg16_hub`, `@stage`, or null for a fresh network"
    )
    fresh_head: bool = Field(
        False, description="leave a head of another class count fresh instead of refusing the start"
    )
    size: Size = Field((1024, 512), description="training size of the labelled images, [width, height]")
    target_size: Size | None = Field(
        None, description="size of the target images, here and in evaluation; null: as `size`"
    )
    batch: PositiveInt = Field(1, description="images per domain and update, over all ranks and accumulation steps")
    accumulate: PositiveInt = Field(
        1, description="pieces that each rank's share of a batch is computed in, one after another"
    )
    steps: PositiveInt | None = Field(None, description="number of updates; or give `epochs`")
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the labelled images, instead of `steps`"
    )
    optimizer: Literal["adam", "sgd"] = Field(
        "adam", description="Adam (weight decay in the gradient) or SGD with momentum 0.9"
    )
    lr: float = Field(1e-5, gt=0, description="learning rate")
    weight_decay: float = Field(5e-5, ge=0, description="L2 in the gradient")
    schedule: Literal["constant", "polynomial"] = Field(
        "constant", description="lr, or lr · (1 - step/schedule_steps)^0.9"
    )
    schedule_steps: PositiveInt | None = Field(None, description="length of the schedule; null: as `steps`")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the whole gradient; null: no clipping")
    optimizer_path: Literal["fused", "foreach", "single"] = Field(
        "fused", description="PyTorch's implementation of the optimizer; the numbers differ in the last bits"
    )
    shuffle: bool = Field(True, description="a new order of the images for each pass; false: the order of the index")
    augment: Augmentation = Field(
        Augmentation(), description="random scale, crop, mirror and colours of training images"
    )
    evaluate_every: int = Field(500, ge=0, description="steps between evaluations during training; 0: only at the end")
    evaluate_images: PositiveInt | None = Field(None, description="images per domain in these evaluations; null: all")
    select: Literal["last", "best_target", "label_free"] = Field(
        "last",
        description="the model kept: the last; the best on target val labels; the best by InfoMax without labels",
    )
    checkpoint_every: PositiveInt = Field(500, description="steps between checkpoints", json_schema_extra=NOT_A_RESULT)
    keep: PositiveInt = Field(2, description="checkpoints kept", json_schema_extra=NOT_A_RESULT)
    log_every: PositiveInt = Field(
        10, description="steps between fetches of the losses", json_schema_extra=NOT_A_RESULT
    )
    tensorboard: bool = Field(False, description="also write TensorBoard files", json_schema_extra=NOT_A_RESULT)
    official: bool = Field(False, description="do as the published program: turns on all quirks of the method")
    quirks: dict[str, bool] = Field({}, description="quirks one by one; `segadapt quirks` lists them")

    @model_validator(mode="before")
    @classmethod
    def _resolve_quirks(cls, values: Any) -> Any:
        """Write out every quirk of the method, so that a resolved recipe hides nothing behind `official`."""
        if not isinstance(values, dict) or not isinstance(values.get("quirks", {}), dict):
            return values
        official = values.get("official", False) is True
        known = dict.fromkeys(quirks_of(str(values.get("method", ""))), official)
        return {**values, "quirks": {**known, **values.get("quirks", {})}}

    @field_validator("quirks")
    @classmethod
    def _known_quirks(cls, quirks: dict[str, bool], info: Any) -> dict[str, bool]:
        known = quirks_of(str(info.data.get("method", "")))
        for name in quirks:
            if name not in known:
                there = "no such quirk" if name not in QUIRKS else "not a quirk of this method"
                raise ValueError(f"'{name}' is {there}; known here: {', '.join(known) or 'none'}")
        return quirks

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSettings":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be split into {self.accumulate} equal pieces (`accumulate`)")
        return self

    def quirk(self, name: str) -> bool:
        """Whether the quirk is on."""
        return self.quirks[name]

    def number_of_steps(self, source_images: int) -> int:
        """`steps`, or as many as `epochs` passes over the labelled images take."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * source_images / self.batch))

"""What every training stage can be told; each method adds its own settings beside its code."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from segadapt.data.transforms import Augmentation
from segadapt.errors import nearest
from segadapt.models.networks import NETWORKS
from segadapt.quirks import QuirkySettings
from segadapt.references import STYLIZED, Names
from segadapt.settings import NOT_A_RESULT, Size


def _known_network(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}'. {nearest(name, list(NETWORKS))}")
    return name


class TrainingSettings(QuirkySettings):
    """Settings shared by all methods that train."""

    start: Annotated[str | None, Names("the start file", initial=True)] = Field(
        None, description="starting weights: a file, a name as `vgg16_hub`, `@stage`, or null for a fresh network"
    )
    stand_in: Annotated[str | None, Names("the checkpoint that stands in")] = Field(
        None,
        description="a checkpoint, published or one's own, that stands in for this stage: nothing is trained",
    )
    size: Size = Field((1024, 512), description="training size of the source images, [width, height]")
    target_size: Size | None = Field(
        None, description="size of the target images, here and in evaluation; null: as `size`"
    )
    batch: PositiveInt = Field(1, description="images per domain and update, over all ranks and accumulation steps")
    accumulate: PositiveInt = Field(
        1, description="micro-batches that each rank's share of a batch is computed in, one after another"
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
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of each player's whole gradient; null: no clipping"
    )
    optimizer_path: Literal["fused", "foreach", "single"] = Field(
        "fused", description="PyTorch's implementation of the optimizer; the numbers differ in the last bits"
    )
    shuffle: bool = Field(True, description="a new order of the images for each pass; false: the order of the index")
    augment: Augmentation = Field(
        Augmentation(), description="random scale, crop, mirror and colours of training images"
    )
    checkpoint_every: PositiveInt = Field(500, description="steps between checkpoints", json_schema_extra=NOT_A_RESULT)
    keep: PositiveInt = Field(2, description="checkpoints kept", json_schema_extra=NOT_A_RESULT)
    log_every: PositiveInt = Field(
        10, description="steps between fetches of the losses", json_schema_extra=NOT_A_RESULT
    )
    tensorboard: bool = Field(False, description="also write TensorBoard files", json_schema_extra=NOT_A_RESULT)

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSettings":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`. Set the other one to null")
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch {self.batch} cannot be split into {self.accumulate} equal micro-batches (`accumulate`)"
            )
        if self.steps is not None:
            self.need_long_schedule(self.steps)
        return self

    def cautions(self) -> list[str]:
        """What is allowed here but known to go wrong, in sentences; said when the stage begins."""
        return []

    def need_long_schedule(self, steps: int) -> None:
        """Raise ValueError when the learning rate would be 0 before so many steps are done."""
        length = self.schedule_steps
        if self.schedule == "polynomial" and length is not None and length < steps:
            raise ValueError(
                f"schedule_steps is {length}, but the stage has {steps} steps: from step {length} on the learning rate "
                f"would be 0. Set schedule_steps to at least {steps}, or to null"
            )

    def number_of_steps(self, images: int) -> int:
        """`steps`, or as many as `epochs` passes over so many labelled images take."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch))


class SegmenterSettings(TrainingSettings):
    """Settings shared by all methods that train a segmenter."""

    network: Annotated[str, AfterValidator(_known_network)] = Field(
        "deeplab_vgg16", description="the segmenter: a name that `segadapt.models.networks` knows"
    )
    fresh_head: bool = Field(
        False, description="leave a head of another class count fresh instead of refusing the start"
    )
    align_corners: bool | None = Field(
        None, description="corner rule when logits are upsampled, here and later; null: the network's own"
    )
    head_lr: float = Field(1.0, gt=0, description="the heads' learning rate, as a multiple of `lr`")
    batch_norm: Literal["frozen", "learn"] = Field(
        "frozen",
        description="frozen: by the running statistics of the initial weights; learn: by those of each pass's own "
        "images on all ranks (of one micro-batch, with `accumulate`), and the running ones follow (a teacher's: those "
        "of the target). A fresh network needs `learn`",
    )
    checkpointing: bool = Field(
        False,
        description="compute activations again in the backward pass instead of keeping them: less memory, about one "
        "forward pass more",
        json_schema_extra=NOT_A_RESULT,
    )
    evaluate_every: int = Field(500, ge=0, description="steps between evaluations during training; 0: only at the end")
    evaluate_images: PositiveInt | None = Field(None, description="images per domain in these evaluations; null: all")
    select: Literal["last", "best_target", "label_free"] = Field(
        "last",
        description="the model kept: the last; the best on target val labels; the best by InfoMax without labels",
    )

    @property
    def learns_statistics(self) -> bool:
        """Whether batch norm is in train mode: by the setting, or as published (quirk `train_bn`)."""
        return self.batch_norm == "learn" or self.quirk("train_bn")


class WithExtraSource(SegmenterSettings):
    """Settings of methods that can learn from stylized copies beside the source images."""

    extra_source: Annotated[str | None, Names("the folder of stylized images", STYLIZED)] = Field(
        None,
        description="`@stage` of stylized copies, or a folder of images named as the source's: they join the source "
        "images, with the same labels",
    )

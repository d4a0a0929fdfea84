"""The settings common to all training stages; each method defines its own settings beside its code."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, PositiveInt, model_validator

from segadapt.data.samplers import SAMPLERS, RareClassSettings
from segadapt.data.transforms import Augmentation
from segadapt.data.views import View
from segadapt.errors import UsageError, nearest
from segadapt.models import networks
from segadapt.quirks import QuirkySettings
from segadapt.references import STYLIZED, Names
from segadapt.schedules import ScheduleName
from segadapt.settings import NOT_A_RESULT, Size

_Share = Annotated[float, Field(ge=0, lt=1)]


def _plain_network(choice: Any) -> networks.PlainChoice:
    try:
        return networks.plain(choice)
    except UsageError as error:
        raise ValueError(f"{error.what}. {error.remedy}") from None


NetworkChoice = Annotated[str | dict[str, JsonValue], BeforeValidator(_plain_network)]
"""A network's name, or a mapping of `name` and options: see `segadapt.models.networks`."""


def _known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler '{name}'. {nearest(name, list(SAMPLERS))}")
    return name


_Sampler = Annotated[str, AfterValidator(_known_sampler)]
PASSES = ("shuffled", "in_order")
"""The samplers that go through all images in passes."""


class TrainingSettings(QuirkySettings):
    """Settings shared by all methods that train."""

    start: Annotated[str | None, Names("the start file", initial=True)] = Field(
        None, description="initial weights: a file, a name such as `vgg16_hub`, or `@stage`; null: a fresh network"
    )
    stand_in: Annotated[str | None, Names("the checkpoint that stands in")] = Field(
        None,
        description="a checkpoint, published or your own, that replaces the training of this stage",
    )
    size: Size = Field((1024, 512), description="training size of the source images, [width, height]")
    target_size: Size | None = Field(
        None, description="size of the target images, here and in evaluation; null: as `size`"
    )
    batch: PositiveInt = Field(1, description="images per domain and update, over all ranks and accumulation steps")
    accumulate: PositiveInt = Field(
        1, description="number of micro-batches into which each rank's share of a batch is split"
    )
    steps: PositiveInt | None = Field(None, description="number of updates; or give `epochs`")
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the labelled images, instead of `steps`"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        "adam", description="Adam and SGD add weight decay to the gradient, AdamW decouples it"
    )
    betas: tuple[_Share, _Share] | None = Field(None, description="betas of Adam and AdamW; null: [0.9, 0.999]")
    momentum: _Share | None = Field(None, description="momentum of SGD; null: 0.9")
    lr: float = Field(1e-5, gt=0, description="learning rate")
    weight_decay: float = Field(
        5e-5, ge=0, description="L2 term in the gradient; AdamW: decoupled, subtracts lr · weight_decay · weight"
    )
    schedule: ScheduleName = Field(
        "constant",
        description="lr, lr · (1 - step/schedule_steps)^power, or lr · (1 + cos(π · step/schedule_steps)) / 2",
    )
    power: float | None = Field(None, gt=0, description="exponent of the polynomial schedule; null: 0.9")
    schedule_steps: PositiveInt | None = Field(None, description="length of the schedule; null: as `steps`")
    warmup_steps: PositiveInt | None = Field(
        None, description="updates over which the learning rate rises linearly to the schedule's; null: none"
    )
    warmup_ratio: float | None = Field(
        None, ge=0, le=1, description="factor at the first update of the warm-up; null: 1e-6"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="clips the gradient of each optimizer to this norm; null: no clipping"
    )
    optimizer_path: Literal["fused", "foreach", "single"] = Field(
        "fused", description="PyTorch's implementation of the optimizer; the numbers differ in the last bits"
    )
    shuffle: bool = Field(True, description="shuffle the images for each pass; false: the order of the index")
    sampler: _Sampler | None = Field(
        None,
        description="how source images are sampled: `shuffled` or `in_order` passes, or `rare_classes` more often; "
        "null: set by `shuffle`",
    )
    target_sampler: _Sampler | None = Field(None, description="the same for the target images")
    rare_classes: RareClassSettings | None = Field(
        None, description="temperature and minimum pixels of sampler `rare_classes`; null: DAFormer's"
    )
    augment: Augmentation = Field(
        Augmentation(), description="random scale, crop, mirror and colours of training images"
    )
    target_augment: Augmentation | None = Field(None, description="the same for target images; null: as `augment`")
    fda: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="source images take on the low-frequency amplitudes of their target images (FDA), up to this "
        "share of the shorter side, published 0.01 to 0.09; null: off",
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

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "TrainingSettings":
        for key, belongs_to, there in (
            ("betas", "optimizer adam or adamw", self.optimizer != "sgd"),
            ("momentum", "optimizer sgd", self.optimizer == "sgd"),
            ("power", "schedule polynomial", self.schedule == "polynomial"),
            ("warmup_ratio", "a warm-up (`warmup_steps`)", self.warmup_steps is not None),
        ):
            if getattr(self, key) is not None and not there:
                raise ValueError(f"`{key}` applies only with {belongs_to}. Leave it out, or set that")
        return self

    @model_validator(mode="after")
    def _samplers_agree(self) -> "TrainingSettings":
        given = (self.sampler, self.target_sampler)
        if not self.shuffle and any(name not in (None, "in_order") for name in given):
            raise ValueError("`shuffle: false` means in_order, but a sampler is set. Leave `shuffle` out")
        if self.rare_classes is not None and all(name in (None, *PASSES) for name in given):
            raise ValueError("`rare_classes` applies only with sampler rare_classes. Leave it out, or set that")
        if self.quirk("target_restart") and self.target_sampler not in (None, *PASSES):
            raise ValueError(f"quirk `target_restart` concerns passes, but sampler {self.target_sampler} makes none")
        return self

    @property
    def source_view(self) -> View:
        """The training's view of the source."""
        return View(self.size, self.augment, self._named(self.sampler))

    @property
    def target_view(self) -> View:
        """The training's view of the target."""
        size, augment = self.target_size or self.size, self.target_augment or self.augment
        return View(size, augment, self._named(self.target_sampler), labels=False)

    def _named(self, sampler: str | None) -> str:
        return sampler or ("shuffled" if self.shuffle else "in_order")

    def cautions(self) -> list[str]:
        """Warnings about settings that are allowed but known to work badly; printed when the stage begins."""
        return []

    def need_long_schedule(self, steps: int) -> None:
        """Raise ValueError if the learning rate would reach 0 before this many steps are done."""
        length = self.schedule_steps
        if self.schedule != "constant" and length is not None and length < steps:
            raise ValueError(
                f"schedule_steps is {length}, but the stage has {steps} steps: from step {length} on the learning rate "
                f"would be 0. Set schedule_steps to at least {steps}, or to null"
            )

    def number_of_steps(self, images: int) -> int:
        """`steps`, or the number of steps that `epochs` passes over this many labelled images take."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * images / self.batch))


class SegmenterSettings(TrainingSettings):
    """Settings shared by all methods that train a segmenter."""

    network: NetworkChoice = Field(
        "deeplab_vgg16", description="the segmenter: a name, or its name and options as `{name: NAME, OPTION: VALUE}`"
    )
    fresh_head: bool = Field(
        False, description="leave a head with another number of classes fresh instead of refusing the initial weights"
    )
    ignore_labelled: bool = Field(
        False,
        description="train as if `data.target.labelled` were not set: without the few labelled target images "
        "(target_trained: with all of them)",
        json_schema_extra=NOT_A_RESULT,  # the images that are learned from say it
    )
    align_corners: bool | None = Field(
        None, description="align corners when logits are upsampled, in training and later; null: the network's own rule"
    )
    head_lr: float = Field(1.0, gt=0, description="the heads' learning rate, as a multiple of `lr`")
    no_norm_decay: bool = Field(
        False,
        description="no weight decay for parameters that the network exempts: scale and shift of norms, and biases",
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="layer-wise learning rate decay: the factor from each depth of the body to the next shallower one, "
        "counted from the heads; null: one rate for all",
    )
    batch_norm: Literal["frozen", "learn"] = Field(
        "frozen",
        description="frozen: normalize by the running statistics of the initial weights; learn: normalize by the "
        "statistics of each pass's images on all ranks (of one micro-batch, with `accumulate`) and update the running "
        "ones (a teacher's from the target). A fresh network needs `learn`",
    )
    checkpointing: bool = Field(
        False,
        description="recompute activations in the backward pass instead of keeping them: saves memory, costs about one "
        "more forward pass",
        json_schema_extra=NOT_A_RESULT,
    )
    evaluate_every: int = Field(500, ge=0, description="steps between evaluations during training; 0: only at the end")
    evaluate_images: PositiveInt | None = Field(None, description="images per domain in these evaluations; null: all")
    select: Literal["last", "best_target", "label_free"] = Field(
        "last",
        description="the model to keep: the last, the best on target val labels or the best by `criterion`, label-free",
    )
    criterion: Literal["infomax", "snd", "bnm"] | None = Field(
        None,
        description="criterion of `select: label_free`: InfoMax, soft neighbourhood density or nuclear norm; "
        "null: InfoMax",
    )

    @model_validator(mode="after")
    def _criterion_is_asked_for(self) -> "SegmenterSettings":
        if self.criterion is not None and self.select != "label_free":
            raise ValueError("`criterion` applies only with select: label_free. Leave it out, or set that")
        return self

    @model_validator(mode="after")
    def _quirk_fits_the_network(self) -> "SegmenterSettings":
        if self.quirk("aspp") and "aspp" not in networks.chosen(self.network)[0].Options.model_fields:
            raise ValueError(
                f"quirk aspp is of DeepLab's head, which {self.network_name} lacks. Set quirks: {{aspp: false}}, "
                "or use a DeepLab network"
            )
        return self

    @property
    def network_name(self) -> str:
        """The network's name alone."""
        return networks.name_of(self.network)

    @property
    def chosen_network(self) -> networks.PlainChoice:
        """The network as it is built: with its options, and with what the quirks set among them."""
        return networks.with_option(self.network, "aspp", "published") if self.quirk("aspp") else self.network

    @property
    def learns_statistics(self) -> bool:
        """Whether batch norm is in train mode: by the setting, or as published (quirk `train_bn`)."""
        return self.batch_norm == "learn" or self.quirk("train_bn")


class WithExtraSource(SegmenterSettings):
    """Settings of methods that can learn from stylized copies beside the source images."""

    extra_source: Annotated[str | None, Names("the folder of stylized images", STYLIZED)] = Field(
        None,
        description="stylized copies to train on beside the source images, with the same labels: `@stage`, or a folder "
        "of images with the source's names",
    )

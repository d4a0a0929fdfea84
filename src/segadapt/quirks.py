"""Every behaviour of the published programs that a reader of the papers would not expect, one switch each.

Settings say which of them their method has.

`official: true` on a stage turns on all quirks of its method; `quirks: {aspp: false}` sets one alone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from segadapt.settings import Settings


@dataclass(frozen=True)
class Quirk:
    """One quirk: what the published program does, and what segadapt does when the switch is off."""

    name: str
    published: str
    default: str


QUIRKS: dict[str, Quirk] = {
    quirk.name: quirk
    for quirk in (
        Quirk(
            "aspp",
            "Only the dilations 6 and 12 of the head are used: its function returns inside its loop.",
            "All four dilations (6, 12, 18, 24) are summed, as DeepLab-v2 describes.",
        ),
        Quirk(
            "positional_load",
            "The Caffe VGG-16 start is loaded by position; keys that start with f, s or u are skipped.",
            "It is loaded by name, and every shape is checked.",
        ),
        Quirk(
            "target_split",
            "The unlabelled target images are the validation images, on which the result is then scored.",
            "The unlabelled target images are the train split; validation images are only evaluated on.",
        ),
        Quirk(
            "target_restart",
            "The target order starts again with each pass over the source.",
            "Source and target each go through passes of their own.",
        ),
        Quirk(
            "selection",
            "The network with the best mIoU on labelled target validation images is kept, if above 20 %.",
            "The last network is kept; a choice by target labels must be asked for and is marked wherever it shows.",
        ),
        Quirk(
            "last_not_saved",
            "The program returns after its sixth epoch without saving the last teacher.",
            "The last teacher is saved.",
        ),
        Quirk(
            "main_head_only",
            "Of a network with two heads only the main one is trained: the other is still random when SE-GAN starts.",
            "Both heads are trained, the auxiliary one with share 0.1.",
        ),
        Quirk(
            "train_bn",
            "Batch norm is in train mode: batch statistics (of a single image, mostly), and running ones that follow; "
            "in AdaptSegNet those of the target too.",
            "Pretrained batch norm is frozen.",
        ),
        Quirk(
            "bn_until_first_eval",
            "Batch norm in train mode lasts until the first evaluation (step 500), which ends it for good (GTA5).",
            "Pretrained batch norm is frozen from the first step.",
        ),
        Quirk(
            "repeated_updates",
            "The list of ResNet-101's body names the convolutions of its blocks 3 times and those of its shortcuts 4 "
            "times, and the optimizer walks it entry by entry: they learn so many times a step.",
            "Each parameter is updated once a step.",
        ),
        Quirk(
            "d2_head1",
            "In its own update the discriminator of head 2 sees head 1's softmax map of the target (GTA5).",
            "It sees head 2's.",
        ),
        Quirk(
            "quadrants",
            "With several views, inputs of scale 1.5 and more run as four quadrants that know nothing of each other.",
            "They run whole (or through a sliding window, if asked for).",
        ),
        Quirk(
            "softmax_order",
            "Of several views, only the plain one is upsampled before softmax, all others after it.",
            "All views are upsampled, then softmax makes probabilities of them.",
        ),
        Quirk(
            "sum_at_input",
            "The softmax maps of several views are summed at the network's input size, and the sum is upsampled.",
            "Each view is upsampled to the size of the labels at once.",
        ),
        Quirk(
            "half_windows",
            "Sliding windows begin half a window apart, and the mean of their logits is taken.",
            "They overlap by a third at least, and a window counts less towards its borders, where it sees least.",
        ),
        Quirk(
            "truncated",
            "Stylized pixels are cut to whole numbers: darker by half a grey level on average.",
            "They are rounded.",
        ),
        Quirk(
            "pseudo_weight_per_batch",
            "Pseudo-labels have one weight for the batch: the share of its pixels that are sure, the margins' counted.",
            "Each image has its own, of its pixels within the margins: defined for any batch and number of ranks.",
        ),
        Quirk(
            "classes_of_batch",
            "The classes of which half are pasted are those of the whole source batch, the ignored 255 among them.",
            "They are those of the image itself; ignored pixels are never pasted.",
        ),
        Quirk(
            "jitter_probability",
            "The jitter happens when a draw is above `jitter_probability`: a setting of 0.2 means 0.8.",
            "It happens with `jitter_probability`.",
        ),
        Quirk(
            "published_jitter",
            "Jitter as in kornia 0.5.8: brightness adds, contrast multiplies about 0, saturation multiplies in HSV.",
            "As torchvision's: brightness multiplies, contrast is about the mean grey, saturation about grey.",
        ),
        Quirk(
            "decisions_per_step",
            "One draw per step decides for all images whether they are jittered, one whether they are blurred; "
            "masked images share order and strength of the blur, too.",
            "Each image draws for itself.",
        ),
        Quirk(
            "mean_over_all_pixels",
            "The cross-entropy of the source is a mean over all pixels: ignored ones make it smaller.",
            "A mean over the labelled pixels.",
        ),
        Quirk(
            "teacher_train_mode",
            "The teacher's batch norms are in train mode, whatever the student's are: it normalizes by each batch of "
            "target images.",
            "As `batch_norm` says.",
        ),
        Quirk(
            "ema_parameters_only",
            "The teacher's moving average is of parameters alone: buffers are neither averaged nor copied.",
            "Buffers are copied, but for statistics that the teacher learns itself.",
        ),
        Quirk(
            "ema_first",
            "The teacher follows at the beginning of a step: it lags one update behind, and step 0 copies the student.",
            "It follows after the update.",
        ),
        Quirk(
            "blur_ignores_switch",
            "Masked images are blurred with probability 0.5, whatever `blur_probability` says.",
            "With `blur_probability`, as the mixed ones.",
        ),
        Quirk(
            "masked_pair",
            "With `masked_domains: both`, the source and the target image of the first of each two samples are masked.",
            "Each sample draws which of its two images is masked: any batch will do.",
        ),
        Quirk(
            "masked_main_only",
            "The weight of the masked loss is that of its main term alone: HRDA's detail term keeps its own.",
            "It is the weight of both.",
        ),
    )
}


class QuirkySettings(Settings):
    """Base of the settings of everything that a published program does in a way of its own."""

    known_quirks: ClassVar[tuple[str, ...]] = ()
    """Names in `QUIRKS` of those that the method has."""

    method: str
    official: bool = Field(False, description="do as the published program: turns on all quirks of the method")
    quirks: dict[str, bool] = Field({}, description="quirks one by one; `segadapt quirks` lists them")

    @model_validator(mode="before")
    @classmethod
    def _resolve_quirks(cls, values: Any) -> Any:
        """Write out every quirk of the method, so that a resolved recipe hides nothing behind `official`."""
        if not isinstance(values, dict) or not isinstance(values.get("quirks", {}), dict):
            return values
        official = values.get("official", False) is True
        known = dict.fromkeys(cls.known_quirks, official)
        return {**values, "quirks": {**known, **values.get("quirks", {})}}

    @field_validator("quirks")
    @classmethod
    def _known_quirks(cls, quirks: dict[str, bool]) -> dict[str, bool]:
        known = cls.known_quirks
        for name in quirks:
            if name not in known:
                there = "no such quirk" if name not in QUIRKS else "not a quirk of this method"
                raise ValueError(f"'{name}' is {there}; known here: {', '.join(known) or 'none'}")
        return quirks

    def quirk(self, name: str) -> bool:
        """Whether the quirk is on; False for one that the method does not have."""
        return self.quirks.get(name, False)

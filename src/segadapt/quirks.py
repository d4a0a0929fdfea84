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
            "Only the head's dilations 6 and 12 are used: the function returns inside the loop.",
            "All four dilations (6, 12, 18, 24) are summed, as described for DeepLab-v2.",
        ),
        Quirk(
            "positional_load",
            "The Caffe VGG-16 weights are loaded by position; keys that start with f, s or u are skipped.",
            "They are loaded by name, and every shape is checked.",
        ),
        Quirk(
            "target_split",
            "The unlabelled target images are the validation images, on which the result is then scored.",
            "The unlabelled target images are the train split; validation images are only evaluated on.",
        ),
        Quirk(
            "target_restart",
            "The order of target images restarts with each pass over the source.",
            "Source and target each go through their own passes.",
        ),
        Quirk(
            "selection",
            "The network with the best mIoU on labelled target validation images is kept, if above 20 %.",
            "The last network is kept; choosing by target labels must be requested explicitly and is always recorded.",
        ),
        Quirk(
            "last_not_saved",
            "The program returns after its sixth epoch without saving the last teacher.",
            "The last teacher is saved.",
        ),
        Quirk(
            "main_head_only",
            "Only the main head of a two-head network is trained: the other is still random when SE-GAN starts.",
            "Both heads are trained, the auxiliary one with weight 0.1.",
        ),
        Quirk(
            "train_bn",
            "Batch norm runs in train mode: batch statistics (mostly of a single image), with running statistics "
            "updated; in AdaptSegNet with the target's too.",
            "Pretrained batch norm is frozen.",
        ),
        Quirk(
            "bn_until_first_eval",
            "Batch norm in train mode lasts until the first evaluation (step 500), which ends it for good (GTA5).",
            "Pretrained batch norm is frozen from the first step.",
        ),
        Quirk(
            "repeated_updates",
            "The optimizer's parameter list has the convolutions of ResNet-101's blocks 3 times and those of its "
            "shortcuts 4 times, and is processed entry by entry: they are updated that many times per step.",
            "Each parameter is updated once per step.",
        ),
        Quirk(
            "d2_head1",
            "In its own update, the discriminator of head 2 is given head 1's softmax output for the target (GTA5).",
            "It is given head 2's.",
        ),
        Quirk(
            "quadrants",
            "With several views, inputs at scale 1.5 and above are run as four independent quadrants.",
            "They are run whole (or with a sliding window, if requested).",
        ),
        Quirk(
            "softmax_order",
            "With several views, only the unscaled, unmirrored one is upsampled before softmax, all others after it.",
            "All views are upsampled before softmax.",
        ),
        Quirk(
            "sum_at_input",
            "The softmax outputs of several views are summed at the network's input size, and the sum is upsampled.",
            "Each view is upsampled directly to the size of the labels.",
        ),
        Quirk(
            "half_windows",
            "Sliding windows start half a window apart, and their logits are averaged with equal weight.",
            "They overlap by at least a third; a window's weight decreases towards its borders, where it sees least.",
        ),
        Quirk(
            "truncated",
            "Stylized pixels are truncated to whole numbers: darker by half a grey level on average.",
            "They are rounded.",
        ),
        Quirk(
            "pseudo_weight_per_batch",
            "Pseudo-labels share one weight per batch: the share of its confident pixels, margins included.",
            "Each image has its own weight, margins excluded: well defined for any batch and number of ranks.",
        ),
        Quirk(
            "classes_of_batch",
            "Half of the classes of the whole source batch are pasted, and the ignored id 255 counts as a class.",
            "Half of each image's own classes are pasted; ignored pixels never are.",
        ),
        Quirk(
            "jitter_probability",
            "Jitter is applied when a random number exceeds `jitter_probability`: a setting of 0.2 means 0.8.",
            "It is applied with probability `jitter_probability`.",
        ),
        Quirk(
            "published_jitter",
            "Jitter as in kornia 0.5.8: brightness is added, contrast scales about 0, saturation scales in HSV.",
            "As in torchvision: brightness scales, contrast scales about the mean grey, saturation about grey.",
        ),
        Quirk(
            "decisions_per_step",
            "All images of a step share one random decision whether to jitter and one whether to blur; masked images "
            "also share the order of the jitter and the strength of the blur.",
            "Each image draws its own.",
        ),
        Quirk(
            "mean_over_all_pixels",
            "The source cross-entropy is a mean over all pixels: ignored ones make it smaller.",
            "It is a mean over the labelled pixels.",
        ),
        Quirk(
            "teacher_train_mode",
            "The teacher's batch norm is always in train mode, whatever the student's mode: it uses the statistics of "
            "each batch of target images.",
            "It follows `batch_norm`.",
        ),
        Quirk(
            "ema_parameters_only",
            "The teacher's moving average covers parameters only: buffers are neither averaged nor copied.",
            "Buffers are copied, except for running statistics that the teacher computes itself.",
        ),
        Quirk(
            "ema_first",
            "The teacher is updated at the start of a step: it lags one update behind, and step 0 copies the student.",
            "It is updated after the student.",
        ),
        Quirk(
            "blur_ignores_switch",
            "Masked images are blurred with probability 0.5, whatever `blur_probability` says.",
            "They are blurred with `blur_probability`, like the mixed images.",
        ),
        Quirk(
            "masked_pair",
            "With `masked_domains: both`, the source and the target image of every other sample (0, 2, …) are masked.",
            "For each sample it is drawn at random which of its two images is masked: works with any batch size.",
        ),
        Quirk(
            "masked_main_only",
            "The weight of the masked loss applies to its main term only: HRDA's detail term keeps its own.",
            "It applies to both terms.",
        ),
    )
}


class QuirkySettings(Settings):
    """Base of the settings of everything for which the published programs have quirks."""

    known_quirks: ClassVar[tuple[str, ...]] = ()
    """Names in `QUIRKS` of the method's quirks."""

    method: str
    official: bool = Field(False, description="reproduce the published program: turns on all quirks of the method")
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

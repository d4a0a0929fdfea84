"""Every behaviour of the published programs that a reader of the papers would not expect, one switch each.

`official: true` on a stage turns on all quirks of its method; `quirks: {aspp: false}` sets one alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirk:
    """One quirk: what the published program does, and what segadapt does when the switch is off."""

    name: str
    methods: tuple[str, ...]
    published: str
    default: str


QUIRKS: dict[str, Quirk] = {
    quirk.name: quirk
    for quirk in (
        Quirk(
            "aspp",
            ("source_only", "target_trained", "sean"),
            "Only the dilations 6 and 12 of the head are used: its function returns inside its loop.",
            "All four dilations (6, 12, 18, 24) are summed, as DeepLab-v2 describes.",
        ),
        Quirk(
            "positional_load",
            ("source_only", "target_trained", "sean"),
            "The Caffe VGG-16 start is loaded by position; keys that start with f, s or u are skipped.",
            "It is loaded by name, and every shape is checked.",
        ),
        Quirk(
            "target_split",
            ("sean",),
            "The unlabelled target images are the validation images, on which the result is then scored.",
            "The unlabelled target images are the train split; validation images are only evaluated on.",
        ),
        Quirk(
            "target_restart",
            ("sean",),
            "The target order starts again with each pass over the source.",
            "Source and target each go through passes of their own.",
        ),
        Quirk(
            "selection",
            ("source_only", "target_trained", "sean"),
            "The network with the best mIoU on labelled target validation images is kept, if above 20 %.",
            "The last network is kept; a choice by target labels must be asked for and is marked wherever it shows.",
        ),
        Quirk(
            "last_not_saved",
            ("sean",),
            "The program returns after its sixth epoch without saving the last teacher.",
            "The last teacher is saved.",
        ),
    )
}


def quirks_of(method: str) -> tuple[str, ...]:
    """The names of the quirks that `method` has."""
    return tuple(name for name, quirk in QUIRKS.items() if method in quirk.methods)

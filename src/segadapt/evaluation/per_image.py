"""Scores of single images: on which ones a model does best and worst."""

import math

import torch
from torch import Tensor

from segadapt.evaluation.confusion import Confusion, mean_score
from segadapt.plain_data import Json

DIGITS = 3  # of a percentage, to keep the file small: there is a number per image and score


class PerImage:
    """Confusion matrices of single images, kept on their device until needed."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._tables: list[Tensor] = []  # each (C, K) int64
        self._like: Confusion | None = None

    def add(self, name: str, confusion: Confusion) -> None:
        """Add the counts of one image."""
        self._names.append(name)
        self._tables.append(confusion.table())
        self._like = confusion

    def plain(self) -> Json:
        """`per_image` of evaluation.json: names, and lists of their mIoU, Dice and pixel accuracy in percent.

        Means are over the classes in the image's labels or predictions; null without a labelled pixel.
        """
        found: Json = {"names": list(self._names), "miou": [], "dice": [], "pixel_accuracy": []}
        if self._like is None:
            return found
        classes, other = self._like.classes, len(self._like.columns) > len(self._like.classes)
        for counts in torch.stack(self._tables).cpu().numpy():
            one = Confusion(classes, other, counts)
            found["miou"].append(_rounded(one.miou()))
            found["dice"].append(_rounded(mean_score(one.dice())))
            found["pixel_accuracy"].append(_rounded(one.pixel_accuracy()))
        return found


def joined_images(parts: dict[str, Json]) -> Json:
    """Scores of several domains, by name, merged: image names are prefixed with their domain's."""
    names = [f"{name}/{image.removeprefix(f'{name}/')}" for name, part in parts.items() for image in part["names"]]
    found: Json = {"names": names}
    for key in ("miou", "dice", "pixel_accuracy"):
        found[key] = [score for part in parts.values() for score in part[key]]
    return found


def _rounded(score: float) -> float | None:
    return None if math.isnan(score) else round(score, DIGITS)

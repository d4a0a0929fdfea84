"""The images on which a model does best and worst, with its mistakes."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import IGNORE
from segadapt.plain_data import Json
from segadapt.report.images import Budget, Picture, Row, image_and_label, label_map, photo, taken
from segadapt.report.looking import Looking
from segadapt.report.records import StageRecord, mapping

WRONG, UNCOUNTED = (224, 58, 46), (0, 0, 0)
PALE = 0.35  # share of a correct pixel's grey that is kept


def worst_and_best(
    looking: Looking, stage: StageRecord, baseline: StageRecord | None, count: int, budget: Budget, problems: list[str]
) -> tuple[list[Row], list[Row]]:
    """`count` images each of the lowest and the highest mIoU, by the scores of single images in evaluation.json.

    Empty if it has no such scores (files of earlier versions), or the stage's model is missing.
    """
    scores = _scores(looking, stage)
    order = sorted((score, name) for name, score in scores.items() if score is not None)
    if not order or stage.name not in looking.predictors:
        return [], []
    before = {} if baseline is None or baseline is stage else _scores(looking, baseline)
    count = min(count, len(order) // 2)
    places = {looking.name_of(index): index for index in range(len(looking.dataset))}

    def rows(names: Sequence[str]) -> list[Row]:
        made = (partial(_row, looking, stage.name, places[one], scores[one], before.get(one)) for one in names)
        return taken(made, budget, problems)

    names = [name for _, name in order if name in places]
    return rows(names[:count]), rows(names[::-1][:count])


def _scores(looking: Looking, stage: StageRecord) -> dict[str, float | None]:
    """mIoU of single images, by their names."""
    found: Json = mapping((stage.domain(looking.domain) or {}).get("per_image"))
    before = f"{looking.domain.partition('.')[2]}/"  # with several domains, names in a run have this prefix
    names = [str(name).removeprefix(before) for name in found.get("names", ())]
    return dict(zip(names, found.get("miou", ()), strict=True))


def _row(looking: Looking, stage: str, index: int, score: float | None, before: float | None) -> Row:
    image, size, shown = image_and_label(looking, index)
    predictor, space = looking.predictors[stage]
    label = looking.dataset.label(index)
    predicted = predictor.labels(image, (label.shape[1], label.shape[0]))
    errors = marked(image, predicted != label, label == IGNORE)
    right = 100 * float((predicted == label)[label != IGNORE].mean())
    shown.append(Picture(stage, label_map(predicted, space, size)))
    shown.append(Picture(f"mistakes: {100 - right:.0f} % of the pixels", photo(errors, size)))
    said = f"IoU {score:.1f}" + ("" if before is None else f", source only {before:.1f}")
    return Row(f"{looking.name_of(index)}: {said}", shown)


def marked(image: NDArray[np.uint8], wrong: NDArray[np.bool_], uncounted: NDArray[np.bool_]) -> Image.Image:
    """The image (H, W, 3) pale and grey at the size of the masks (h, w): wrong pixels red, uncounted ones black."""
    grey = Image.fromarray(image).convert("L").resize(wrong.shape[::-1], Image.Resampling.BILINEAR)
    pixels = np.repeat((255 - PALE * (255 - np.asarray(grey, np.float32)))[..., None], 3, axis=2).astype(np.uint8)
    pixels[wrong] = WRONG
    pixels[uncounted] = UNCOUNTED
    return Image.fromarray(pixels)

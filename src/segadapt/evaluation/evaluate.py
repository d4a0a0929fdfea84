"""Scores of a network on a data set: in the model's own label space or in another one.

    scores = evaluate_domain(predictor, dataset, model_space, score_space, layout="cityscapes", split="val")
    scores["miou"], scores["subsets"]["cityscapes13"], scores["per_class"]["road"]      # percent

Full-size images against full-size labels; the network sees them in batches, everything else one by one. What a 19-class
model says about 16 or 13 classes is a subset of its scores (the same counts, fewer classes in the mean). In a label
space of its own names, each prediction counts as the class of the same name; one without a counterpart counts as
"other", which is never right.
"""

import csv
import io
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segadapt.data.dataset import SegmentationDataset, TrainingData
from segadapt.data.label_spaces import UNKNOWN, LabelSpace, remap
from segadapt.data.statistics import one_class_only
from segadapt.errors import UsageError
from segadapt.evaluation import calibration
from segadapt.evaluation.calibration import Calibration, expected_calibration_error
from segadapt.evaluation.confusion import Confusion, mean_score
from segadapt.evaluation.criteria import CRITERIA
from segadapt.evaluation.per_image import PerImage, joined_images
from segadapt.files import digest, sha256
from segadapt.inference.formats import Format, output_paths, picture
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import Writers, batches_of, read_batches, readers, save_png
from segadapt.inference.transfers import Fetched, sent
from segadapt.weights.saved import ModelHeader

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (images done, number of images)."""
Keep = Callable[[str, Image, Labels], None]
"""Called with an image's name, its pixels and its predicted train ids in the model's label space; in threads."""


@dataclass(frozen=True)
class _Read:
    """An image as it was read for an evaluation."""

    name: str
    pixels: Image  # (H, W, 3) at the size of the network's input
    labels: Labels  # (H, W) at their own size; empty where the data set has none
    whole: Image | None  # (H, W, 3) at its own size, where that is asked for

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the labels."""
        return self.labels.shape[1], self.labels.shape[0]


def evaluate_domain(
    predictor: Predictor,
    dataset: SegmentationDataset,
    model_space: LabelSpace,
    score_space: LabelSpace,
    *,
    layout: str,
    split: str,
    image_list: Path | None = None,
    threads: int | None = None,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores over all images of `dataset`, with labels in `score_space`: one of evaluation.json's domains.

    Classes are predicted at the size of the label map. `layout`, `split` and `image_list` are only recorded, `threads`
    decode (None: as many as suit the device). Raises UsageError when the two label spaces have no class in
    common, SegadaptError for a broken file.
    """
    if dataset.labels is None or dataset.labels.space != score_space:
        raise ValueError(f"the data set must be opened with its labels in {score_space.name}")
    tally, done = Tally(predictor, model_space, score_space), 0
    threads = threads or readers(predictor.device)
    batches = batches_of(range(len(dataset)), predictor.batch)
    read = _read(dataset, batches, predictor, threads, whole=keep is not None)
    with closing(read) as images, Writers(threads, threads + predictor.batch) as writers:
        for batch in images:
            predictions = tally.add(
                [one.name for one in batch], [one.pixels for one in batch], [one.labels for one in batch]
            )
            if keep is not None:
                for one, labels in zip(batch, predictions, strict=True):
                    writers.write(_keep, keep, one, Fetched(labels))
            done += len(batch)
            if progress is not None:
                progress(done, len(dataset))
    return {
        "layout": layout,
        "root": str(dataset.root.absolute()),
        "split": split,
        "list": None if image_list is None else str(image_list.absolute()),
        "images": len(dataset),
        "data_digest": dataset.digest,
        "size": list(predictor.size),
        "scales": list(predictor.scales),
        "mirror": predictor.mirror,
        "window": None if predictor.window is None else list(predictor.window),
        "rules": predictor.applied_rules,
        "precision": predictor.precision,
        **tally.scores(),
    }


class Tally:
    """Counts a network's predictions on labelled images, on the device, and gives all scores.

    `model_space` are the network's classes, `score_space` those of the labels. Raises UsageError when the two have no
    class in common.
    """

    def __init__(self, predictor: Predictor, model_space: LabelSpace, score_space: LabelSpace) -> None:
        self.predictor, self.space = predictor, score_space
        self._table = torch.from_numpy(_prediction_table(model_space, score_space)).to(predictor.device)
        self._other = model_space != score_space
        self._confusion = Confusion(score_space.classes, self._other)
        self._rated, self._per_image = Calibration(), PerImage()

    def add(self, names: Sequence[str], images: Sequence[Image], labels: Sequence[Labels]) -> list[Tensor]:
        """Count images (H, W, 3), whole or at the size of the network's input, at the size of their labels (H, W).

        The network sees them in one batch. Gives the predicted train ids in the model's label space, uint8 (H, W) of
        each, where they were made.
        """
        sizes = [(own.shape[1], own.shape[0]) for own in labels]
        found = self.predictor.rated_label_maps(images, sizes, calibration.EVERY)
        for name, own, (predictions, confidence) in zip(names, labels, found, strict=True):
            self._add(name, sent([own], predictions.device)[0], predictions, confidence)
        return [predictions for predictions, _ in found]

    def _add(self, name: str, labels: Tensor, predictions: Tensor, confidence: Tensor) -> None:
        """Count one image."""
        one, every = Confusion(self.space.classes, self._other), calibration.EVERY
        scored = self._table[predictions.int()]
        _count(one, labels, scored)
        self._confusion.merge(one)
        self._per_image.add(name, one)
        self._rated.add(labels[::every, ::every], scored[::every, ::every], confidence)

    def scores(self) -> dict[str, Any]:
        """All scores so far, for JSON."""
        return {
            **scores_of(self._confusion, self.space),
            **calibrated(self._rated.plain()),
            "per_image": self._per_image.plain(),
        }


def with_pooled(scores: Mapping[str, dict[str, Any]], space: LabelSpace) -> dict[str, dict[str, Any]]:
    """The same; for a side of several domains (`target.acdc`) preceded by the scores over all its pixels (`target`)."""
    found: dict[str, dict[str, Any]] = {}
    for name, own in scores.items():
        side, dot, _ = name.partition(".")
        if dot and side not in found:
            found[side] = pooled({one: part for one, part in scores.items() if one.startswith(f"{side}.")}, space)
        found[name] = own
    return found


def pooled(parts: Mapping[str, dict[str, Any]], space: LabelSpace) -> dict[str, Any]:
    """The scores over all pixels of several domains together, from those of each (`evaluate_domain`), by name."""
    found = list(parts.values())
    counts = np.array([scores["confusion"] for scores in found], np.int64).sum(axis=0)
    confusion = Confusion(space.classes, other=counts.shape[1] > counts.shape[0], counts=counts)
    return {
        **found[0],
        "layout": " + ".join(scores["layout"] for scores in found),
        "root": " + ".join(scores["root"] for scores in found),
        "list": None,
        "images": sum(scores["images"] for scores in found),
        "data_digest": digest([scores["data_digest"] for scores in found]),
        **scores_of(confusion, space),
        **calibrated(calibration.together([scores["calibration"] for scores in found])),
        "per_image": joined_images({name.partition(".")[2]: scores["per_image"] for name, scores in parts.items()}),
    }


def scores_of(confusion: Confusion, space: LabelSpace) -> dict[str, Any]:
    """A confusion matrix and all scores that follow from it, as JSON has them: percent, null for what has no score."""
    return {
        "miou": _or_none(confusion.miou()),
        "subsets": {name: _or_none(confusion.subset(members)) for name, members in space.subsets.items()},
        "per_class": confusion.by_class(confusion.iou()),
        **_beside_iou(confusion),
        "confusion": confusion.counts.tolist(),
        "columns": list(confusion.columns),
    }


def completed(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of a domain, completed with those that files of earlier versions lack but their counts determine."""
    if not scores.get("confusion"):
        return scores
    classes, counts = list(scores["per_class"]), np.array(scores["confusion"], np.int64)
    return {**_beside_iou(Confusion(classes, len(scores["columns"]) > len(classes), counts)), **scores}


def _beside_iou(confusion: Confusion) -> dict[str, Any]:
    return {
        "pixel_accuracy": _or_none(confusion.pixel_accuracy()),
        "mean_accuracy": _or_none(mean_score(confusion.accuracy())),
        "dice": _or_none(mean_score(confusion.dice())),
        "per_class_accuracy": confusion.by_class(confusion.accuracy()),
        "per_class_dice": confusion.by_class(confusion.dice()),
    }


def calibrated(found: dict[str, Any]) -> dict[str, Any]:
    """The counts of a calibration and the expected calibration error computed from them, in percent."""
    return {"ece": expected_calibration_error(found), "calibration": found}


def doubt_about(scores: dict[str, Any], classes: Sequence[str]) -> str | None:
    """Why the scores of a domain are meaningless, judging by its labels; None if these have at least two classes."""
    wrong = one_class_only([sum(row) for row in scores["confusion"]], classes)
    return wrong and f"{wrong}: these scores mean nothing. `segadapt data check` examines all labels"


def evaluation_record(
    model: Path,
    header: ModelHeader,
    score_space: LabelSpace,
    domains: dict[str, dict[str, Any]],
    label_free: dict[str, object] | None = None,
) -> dict[str, Any]:
    """The content of evaluation.json: which model, how it was chosen, and its scores per domain."""
    return {
        "stage": header.stage,
        "method": header.method,
        "model": model.name,
        "model_sha256": sha256(model),
        "step": header.step,
        "selection": header.selection,
        "used_target_labels": header.used_target_labels,
        "label_space": score_space.name,
        "classes": list(score_space.classes),
        "label_free": label_free,
        "domains": domains,
    }


def scores_as_csv(records: list[dict[str, Any]]) -> str:
    """Records of `evaluation_record` as CSV: a row per model and domain; percent, empty for what has no score."""
    about = ("model", "stage", "method", "step", "selection", "used_target_labels", "label_space")
    scored = ("layout", "root", "split", "list", "images", "miou", "pixel_accuracy", "mean_accuracy", "dice", "ece")
    rows = []
    for record in records:
        for name, scores in record["domains"].items():
            row = {key: record[key] for key in about} | {"domain": name} | {key: scores[key] for key in scored}
            row |= {f"miou {subset}": score for subset, score in scores["subsets"].items()}
            row |= {f"iou {label}": score for label, score in scores["per_class"].items()}
            rows.append(row | {f"dice {label}": score for label, score in scores["per_class_dice"].items()})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def quick_sums(
    predictor: Predictor,
    space: LabelSpace,
    *,
    target_val: TrainingData | None = None,
    source_val: TrainingData | None = None,
    limit: int | None = None,
    threads: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> dict[str, Tensor]:
    """What the scores of an evaluation during training are made from, over this share of the batches of images.

    By score, on the CPU: pixels (C, C) int64 or a criterion's `sums`; the sums of all shares add up to those of all
    images, and one without an image has zeros. One whole pass per image; the predictor's scales, mirror and window are
    not used. The criteria (`CRITERIA`) use the images of `target_val`, never its labels; without labels there,
    `target_miou` is left out. With `limit`, so many images per data set, evenly spread. `share`: which one, of how
    many; all must have predictors of one `batch`. `threads` as in `evaluate_domain`. Raises SegadaptError for a broken
    file.
    """
    sums: dict[str, Tensor] = {}
    number, shares = share
    threads = threads or readers(predictor.device)
    passed = 0  # batches of all shares so far: a data set begins where the one before has ended
    for name, dataset in (("target", target_val), ("source", source_val)):
        if dataset is None:
            continue
        confusion = Confusion(space.classes)
        criteria = {name: make(len(space)) for name, make in CRITERIA.items()} if name == "target" else {}
        for leaf in dataset.leaves:
            batches = batches_of(spread(len(leaf), limit), predictor.batch)
            own, passed = batches[(number - passed) % shares :: shares], passed + len(batches)
            with closing(_read(leaf, own, predictor, threads)) as images:
                for batch in images:
                    logits = predictor.batch_logits([one.pixels for one in batch])
                    for criterion in criteria.values():
                        criterion.add(logits)
                    for place, one in enumerate(batch):
                        if one.labels.size:
                            predictions = predictor.label_map_from(logits[place : place + 1], one.size)
                            _count(confusion, sent([one.labels], predictions.device)[0], predictions)
        if dataset.labels is not None:
            sums[f"{name}_miou"] = torch.from_numpy(confusion.counts)
        sums |= {name: criterion.sums for name, criterion in criteria.items()}
    return sums


def quick_scores(sums: Mapping[str, Tensor], space: LabelSpace) -> dict[str, float]:
    """The scores of an evaluation during training: `target_miou`, `source_miou` (percent), and criteria."""
    return {
        name: CRITERIA[name](len(space), own).value()
        if name in CRITERIA
        else Confusion(space.classes, counts=own.numpy()).miou()
        for name, own in sums.items()
    }


def prediction_writer(folder: Path, formats: tuple[Format, ...], space: LabelSpace) -> Keep:
    """A `Keep` that writes each prediction to `folder` under its image's name, in `formats`.

    Cityscapes names are kept (`frankfurt/frankfurt_000000_000294_leftImg8bit.png`), as its benchmark server expects.
    """

    def keep(name: str, image: Image, labels: Labels) -> None:
        place = Path(name).with_suffix("")
        for form, path in zip(formats, output_paths(folder, place, formats), strict=True):
            save_png(path, picture(labels, space, form, image))

    return keep


def spread(length: int, limit: int | None) -> list[int]:
    """`limit` indices evenly spread over 0 … length - 1, or all of them."""
    if limit is None or limit >= length:
        return list(range(length))
    return [(2 * number + 1) * length // (2 * limit) for number in range(limit)]


def _read(
    dataset: SegmentationDataset,
    batches: Sequence[Sequence[int]],
    predictor: Predictor,
    threads: int,
    whole: bool = False,
) -> Generator[list[_Read]]:
    """Batches of images by their indices, decoded ahead; with `whole` at their own size, too."""

    def read(index: int) -> _Read:
        labels = np.zeros((0, 0), np.uint8) if dataset.labels is None else dataset.label(index)
        image = dataset.image(index)
        return _Read(dataset.pairs[index].name, predictor.resized(image), labels, image if whole else None)

    return read_batches(batches, read, threads, predictor.device)


def _keep(keep: Keep, one: _Read, labels: Fetched) -> None:
    assert one.whole is not None
    keep(one.name, one.whole, labels.numpy())


def _count(confusion: Confusion, labels: Tensor, predictions: Tensor) -> None:
    """Count one image, where its labels and predictions are."""
    if predictions.device.type == "cpu":
        confusion.add(labels.numpy(), predictions.numpy())  # faster there
    else:
        confusion.add_on_device(labels, predictions)


def _prediction_table(model_space: LabelSpace, score_space: LabelSpace) -> Labels:
    """uint8 (256,): the model's train id -> its column in the confusion matrix, the last one for "other"."""
    if model_space == score_space:
        return np.arange(256, dtype=np.uint8)
    table = remap(model_space, score_space)
    if (table[: len(model_space)] == UNKNOWN).all():
        raise UsageError(
            f"label space '{model_space.name}' of the model has no class in common with it",
            where=score_space.name,
            remedy="Give a label space with the same class names or aliases.",
        )
    return np.where(table == UNKNOWN, np.uint8(len(score_space)), table)


def _or_none(score: float) -> float | None:
    return None if math.isnan(score) else score

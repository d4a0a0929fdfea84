"""Scores of a model on images that the user's own program reads: `segadapt.evaluate(model, pairs)`.

scores = segadapt.evaluate("runs/mine", [("a.png", "a_ids.png"), (image, labels)])
scores.miou, scores.per_class["road"]          # percent
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace, load_label_space
from segadapt.data.reading import LabelReader
from segadapt.errors import UsageError
from segadapt.evaluation.evaluate import Tally
from segadapt.inference.model import Model, load
from segadapt.inference.pixels import AnyImage, label_values, rgb_pixels

AnyLabels = Path | str | Image.Image | NDArray[Any] | Tensor
"""A label map: a file, a Pillow image, or whole numbers (H, W); for encodings of colours uint8 RGB (H, W, 3)."""


@dataclass(frozen=True)
class Scores:
    """Scores over all images of a model, in percent, by the rules of docs/evaluation.md; None for a missing score."""

    images: int
    label_space: LabelSpace
    miou: float | None
    dice: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    per_class: dict[str, float | None]  # IoU
    confusion: NDArray[np.int64]  # pixels (C, K): rows are labels, columns predictions; K = C + 1 with "other"
    record: dict[str, Any]  # everything, as a domain of evaluation.json has it: calibration, single images

    def __str__(self) -> str:
        lines = [f"{name:<24}{_percent(iou):>8}" for name, iou in self.per_class.items()]
        return "\n".join([*lines, f"{f'mIoU of {self.images} images':<24}{_percent(self.miou):>8}"])


def evaluate(
    model: Model | Path | str,
    pairs: Iterable[tuple[Any, Any]],
    *,
    label_space: LabelSpace | Path | str | None = None,
    encoding: str = TRAIN,
    ignore: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Score a model, or what `segadapt.load` takes, on (image, labels) pairs: any iterable, a DataLoader too.

    An image is what `Model.predict` takes, labels are a path, a Pillow image, an array or a tensor (H, W) of the same
    size; or both are batches of tensors or arrays, (B, 3, H, W) or (B, H, W, 3) with (B, H, W). Labels are train ids of
    the model's label space, 255 ignored, or those of `label_space` (a name, a file or a loaded one), whose classes are
    matched by name; `encoding` is how they are stored, and `ignore` a further value that is ignored (-100).

    One batch of images is in memory at a time (on a CPU one image); `progress` is told how many are done. Raises
    UsageError for what is no pair, no image or no label map, and for none at all; SegadaptError for labels that the
    encoding does not know.
    """
    loaded = model if isinstance(model, Model) else load(model)
    space = label_space if isinstance(label_space, LabelSpace) else None
    if space is None:
        space = loaded.label_space if label_space is None else load_label_space(str(label_space))
    reader, tally = (
        LabelReader(space, space.need_encoding(encoding)),
        Tally(loaded.predictor, loaded.label_space, space),
    )
    singles, count = _single(pairs), 0
    while batch := list(islice(singles, loaded.predictor.batch)):
        known = [_known(pair, reader, ignore, count + place) for place, pair in enumerate(batch)]
        tally.add(*zip(*known, strict=True))
        for _ in batch:
            count += 1
            if progress is not None:
                progress(count)
    if not count:
        raise UsageError(
            "there are none", where="pairs", remedy="Give (image, labels) pairs; a generator gives them once."
        )
    return _scores(tally, count)


def _known(
    pair: tuple[AnyImage, AnyLabels], reader: LabelReader, ignore: int | None, number: int
) -> tuple[str, NDArray[np.uint8], NDArray[np.uint8]]:
    """What a pair is called, its pixels and its train ids. Raises UsageError when these differ in size."""
    image, labels = pair
    where = str(image) if isinstance(image, (str, Path)) else f"pair {number}"
    pixels, known = rgb_pixels(image), _train_ids(labels, reader, ignore, where)
    if pixels.shape[:2] != known.shape:
        sizes = [f"{shape[1]}×{shape[0]}" for shape in (known.shape, pixels.shape)]
        raise UsageError(
            f"labels are {sizes[0]}, but the image is {sizes[1]}", where=where, remedy="Correct one of them."
        )
    return where, pixels, known


def _scores(tally: Tally, images: int) -> Scores:
    found = tally.scores()
    means = {name: found[name] for name in ("miou", "dice", "pixel_accuracy", "mean_accuracy")}
    confusion = np.array(found["confusion"], np.int64)
    return Scores(images, tally.space, **means, per_class=found["per_class"], confusion=confusion, record=found)


def _single(pairs: Iterable[Any]) -> Iterator[tuple[AnyImage, AnyLabels]]:
    """The pairs one by one, with batches unpacked."""
    for number, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
            raise UsageError(
                f"is a {type(pair).__name__}{size}", where=f"pair {number}", remedy="Give (image, labels), two of them."
            )
        image, labels = pair
        if isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4:
            if not isinstance(labels, (np.ndarray, Tensor)) or len(labels) != len(image):
                raise UsageError(
                    "is a batch of images without as many labels", where=f"pair {number}", remedy="Give both."
                )
            yield from zip(image, labels, strict=True)
        else:
            yield image, labels


def _train_ids(labels: AnyLabels, reader: LabelReader, ignore: int | None, where: str) -> NDArray[np.uint8]:
    """Train ids (H, W) of a label map, 255 ignored. Raises UsageError for anything else, SegadaptError for its ids."""
    if isinstance(labels, (str, Path)):
        return reader.read(Path(labels))
    if isinstance(labels, Image.Image):
        labels = reader.channel(labels, where)
    raw, colours = label_values(labels), reader.space.is_rgb(reader.encoding)
    if not (raw.ndim == 3 and raw.shape[2] == 3 if colours else raw.ndim == 2) or raw.dtype.kind not in "uib":
        expected = "uint8 RGB (H, W, 3)" if colours else "whole numbers (H, W)"
        raise UsageError(f"labels are {raw.dtype} {raw.shape}", where=where, remedy=f"Give {expected}.")
    left_out = raw == ignore if ignore is not None and not colours else None
    values = raw if left_out is None else np.where(left_out, 0, raw)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 255:
        raise UsageError(
            f"labels hold {int(values.min())} … {int(values.max())}",
            where=where,
            remedy="Give ids from 0 to 255, and with ignore= the value of unlabelled pixels.",
        )
    ids = values.astype(np.uint8)
    known = reader.look_up(ids)
    if left_out is not None:
        known[left_out] = IGNORE
    unknown = known == UNKNOWN
    return reader.known(ids[unknown][None], where) if unknown.any() else known  # which raises


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"

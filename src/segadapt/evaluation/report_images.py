"""The report's pictures: target images with their labels, what each stage predicts, and where it attends."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import open_domain
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import spread
from segadapt.evaluation.pictures import attention_picture
from segadapt.evaluation.records import RunRecord
from segadapt.inference.formats import picture
from segadapt.inference.predictor import Predictor
from segadapt.models.saved import load_any

WIDTH = 440  # pixels of a picture on the page
BUDGET = 7_000_000  # bytes of all pictures, so that a page stays under 10 MB


@dataclass(frozen=True)
class Picture:
    """One picture as a data URI, with its caption."""

    caption: str
    uri: str


@dataclass(frozen=True)
class Row:
    """All pictures of one target image."""

    name: str
    pictures: list[Picture]


def picture_rows(run: RunRecord, count: int, device: str, problems: list[str]) -> list[Row]:
    """Up to `count` target val images, evenly spread, with the predictions of every stage that has a model.

    What cannot be shown (data or models that are not on this machine) is noted in `problems`, in words.
    """
    if count == 0:
        return []
    try:
        space = run.label_space()
        dataset = _open(run, space)
    except (SegadaptError, OSError) as error:
        problems.append(f"no pictures: the target data is not on this machine ({error})")
        return []
    predictors = dict(_predictors(run, device, problems))
    rows: list[Row] = []
    size = 0
    for index in spread(len(dataset), count):
        try:
            row = _row(dataset, index, space, predictors)
        except SegadaptError as error:
            problems.append(f"picture left out: {error}")
            continue
        size += sum(len(shown.uri) for shown in row.pictures)
        if size > BUDGET:
            problems.append(f"{count - len(rows)} images left out: the page would grow beyond 10 MB")
            break
        rows.append(row)
    return rows


def _open(run: RunRecord, space: LabelSpace) -> SegmentationDataset:
    settings = run.domain("target")
    split = "val" if settings.has_split("val") else "train"
    try:
        return open_domain(settings, space, split, (WIDTH, WIDTH))
    except SegadaptError:
        return open_domain(settings, space, split, (WIDTH, WIDTH), labels=False)


def _predictors(run: RunRecord, device: str, problems: list[str]) -> Iterator[tuple[str, tuple[Predictor, LabelSpace]]]:
    for stage in run.stages:
        if stage.model is None:
            continue
        try:
            saved = load_any(stage.model)
            yield stage.name, (Predictor(saved.network, saved.header.size, device=device), saved.header.space)
        except SegadaptError as error:
            problems.append(f"{stage.name}: no predictions ({error})")


def _row(
    dataset: SegmentationDataset, index: int, space: LabelSpace, predictors: dict[str, tuple[Predictor, LabelSpace]]
) -> Row:
    image = dataset.image(index)
    size = (WIDTH, max(1, round(image.shape[0] * WIDTH / image.shape[1])))
    shown = [Picture("image", _jpeg(Image.fromarray(image), size))]
    if dataset.labels is not None:
        shown.append(Picture("label", _labels(dataset.label(index), space, size)))
    attention: list[Picture] = []
    for name, (predictor, own_space) in predictors.items():
        shown.append(Picture(name, _labels(predictor.labels(image, size), own_space, size)))
        attended = predictor.attention(image, size)
        if attended is not None:
            spanned = f"{attended.min():.2f} … {attended.max():.2f}"
            attention.append(Picture(f"attention of {name} ({spanned})", _jpeg(attention_picture(attended), size)))
    return Row(dataset.pairs[index].name, [*shown, *attention])


def _labels(labels: NDArray[np.uint8], space: LabelSpace, size: tuple[int, int]) -> str:
    drawn = picture(labels, space, "colour").resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return _uri("png", buffer.getvalue())


def _jpeg(image: Image.Image, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=85)
    return _uri("jpeg", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

"""The report's pictures: target images with their labels, what each stage predicts, and where it attends."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import open_domain
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import spread
from segadapt.evaluation.pictures import attention_picture
from segadapt.inference.formats import picture
from segadapt.inference.predictor import Predictor
from segadapt.report.records import RunRecord
from segadapt.weights.saved import load_any

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


class Budget:
    """The bytes that pictures may still take."""

    def __init__(self, left: int = BUDGET) -> None:
        self.left = left

    def takes(self, pictures: Sequence[Picture]) -> bool:
        """Whether the pictures fit; if so they are counted."""
        size = sum(len(shown.uri) for shown in pictures)
        if size > self.left:
            return False
        self.left -= size
        return True


def figures(pictures: Sequence[Picture], across: int) -> str:
    """Pictures with captions, up to `across` side by side, fewer where that would make them too small."""
    captioned = [(one.uri, escape(one.caption)) for one in pictures]
    shown = "".join(
        f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for uri, caption in captioned
    )
    return f'<div class="pictures" style="--across: {across}">{shown}</div>'


def size_on_page(width: int, height: int) -> tuple[int, int]:
    """(width, height) on the page of a picture of that size."""
    return WIDTH, max(1, round(height * WIDTH / width))


def photo(image: Image.Image, size: tuple[int, int] | None = None) -> str:
    """The data URI of an image, at its size on the page or another one."""
    buffer = io.BytesIO()
    shown = image.convert("RGB").resize(size or size_on_page(*image.size), Image.Resampling.BICUBIC)
    shown.save(buffer, format="JPEG", quality=85)
    return _uri("jpeg", buffer.getvalue())


def label_map(labels: NDArray[np.uint8], space: LabelSpace, size: tuple[int, int]) -> str:
    """The data URI of train ids (H, W) in class colours."""
    drawn = picture(labels, space, "colour").resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return _uri("png", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def prediction_rows(run: RunRecord, count: int, device: str, budget: Budget, problems: list[str]) -> list[Row]:
    """Up to `count` target val images, evenly spread, with the predictions of the stages that are compared.

    What cannot be shown (data or models that are not on this machine) is noted in `problems`, in words.
    """
    if count == 0:
        return []
    try:
        space = run.label_space()
        dataset = _open(run, space)
    except (SegadaptError, OSError) as error:
        problems.append(f"no predictions: the target data is not on this machine ({error})")
        return []
    predictors = dict(_predictors(run, device, problems))
    rows: list[Row] = []
    for index in spread(len(dataset), count):
        try:
            row = _row(dataset, index, space, predictors)
        except SegadaptError as error:
            problems.append(f"picture left out: {error}")
            continue
        if not budget.takes(row.pictures):
            problems.append(f"{count - len(rows)} images left out: the page would grow beyond 10 MB")
            break
        rows.append(row)
    return rows


def _open(run: RunRecord, space: LabelSpace) -> SegmentationDataset:
    """The first target that has a split val, else the first one's train images."""
    domains = list(run.domains("target").values())
    settings = next((domain for domain in domains if domain.has_split("val")), domains[0])
    split = "val" if settings.has_split("val") else "train"
    try:
        return open_domain(settings, space, split, (WIDTH, WIDTH))
    except SegadaptError:
        return open_domain(settings, space, split, (WIDTH, WIDTH), labels=False)


def _predictors(run: RunRecord, device: str, problems: list[str]) -> Iterator[tuple[str, tuple[Predictor, LabelSpace]]]:
    for stage in run.compared():
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
    size = size_on_page(image.shape[1], image.shape[0])
    shown = [Picture("image", photo(Image.fromarray(image)))]
    if dataset.labels is not None:
        shown.append(Picture("label", label_map(dataset.label(index), space, size)))
    attention: list[Picture] = []
    for name, (predictor, own_space) in predictors.items():
        shown.append(Picture(name, label_map(predictor.labels(image, size), own_space, size)))
        attended = predictor.attention(image, size)
        if attended is not None:
            spanned = f"{attended.min():.2f} … {attended.max():.2f}"
            attention.append(Picture(f"attention of {name} ({spanned})", photo(attention_picture(attended), size)))
    return Row(dataset.pairs[index].name, [*shown, *attention])

"""The report's pictures: target images with their labels, what each stage predicts, and where it attends."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import spread
from segadapt.evaluation.pictures import attention_picture
from segadapt.inference.formats import picture
from segadapt.report.looking import Looking

NARROW, WIDE = 440, 720  # limits of a picture's width on the page, in pixels
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
    """The remaining bytes for pictures."""

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
    """Pictures with captions, up to `across` side by side, fewer where that would make them too small.

    A click enlarges one to the window, without a script: it toggles a hidden checkbox.
    """
    captioned = [(one.uri, escape(one.caption)) for one in pictures]
    shown = "".join(
        f'<figure><label class="zoom"><input type="checkbox" aria-label="enlarge"><img src="{uri}" alt="{caption}">'
        f"</label><figcaption>{caption}</figcaption></figure>"
        for uri, caption in captioned
    )
    return f'<div class="pictures" style="--across: {across}">{shown}</div>'


def size_on_page(width: int, height: int) -> tuple[int, int]:
    """(width, height) on the page for a picture of that size."""
    wide = min(max(width, NARROW), WIDE)
    return wide, max(1, round(height * wide / width))


def photo(image: Image.Image, size: tuple[int, int] | None = None) -> str:
    """The data URI of an image, at its size on the page or a given one."""
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


def prediction_rows(looking: Looking, count: int, budget: Budget, problems: list[str]) -> list[Row]:
    """Up to `count` target images, evenly spread, with the predictions of the stages that are compared.

    What cannot be shown is described in `problems`.
    """
    return taken((partial(_row, looking, index) for index in spread(len(looking.dataset), count)), budget, problems)


def taken(rows: Iterator[Callable[[], Row]], budget: Budget, problems: list[str]) -> list[Row]:
    """The rows that can be made and that fit, and the reasons against the others."""
    found: list[Row] = []
    for make in rows:
        try:
            row = make()
        except SegadaptError as error:
            problems.append(f"picture left out: {error}")
            continue
        if not budget.takes(row.pictures):
            problems.append("some pictures are left out: the page would exceed 10 MB")
            break
        found.append(row)
    return found


def image_and_label(looking: Looking, index: int) -> tuple[NDArray[np.uint8], tuple[int, int], list[Picture]]:
    """An image (H, W, 3), its size on the page, and the pictures of it and of its label where it has one."""
    dataset = looking.dataset
    image = dataset.image(index)
    size = size_on_page(image.shape[1], image.shape[0])
    shown = [Picture("image", photo(Image.fromarray(image)))]
    if dataset.labels is not None:
        shown.append(Picture("label", label_map(dataset.label(index), looking.space, size)))
    return image, size, shown


def _row(looking: Looking, index: int) -> Row:
    image, size, shown = image_and_label(looking, index)
    attention: list[Picture] = []
    for name, (predictor, own_space) in looking.predictors.items():
        shown.append(Picture(name, label_map(predictor.labels(image, size), own_space, size)))
        attended = predictor.attention(image, size)
        if attended is not None:
            spanned = f"{attended.min():.2f} … {attended.max():.2f}"
            attention.append(Picture(f"attention of {name} ({spanned})", photo(attention_picture(attended), size)))
    return Row(looking.name_of(index), [*shown, *attention])

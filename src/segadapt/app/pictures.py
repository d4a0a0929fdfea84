"""Models' predictions for one image: classes, confidence, attention and differences, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.app.networks import Segmenter
from segadapt.data.reading import read_rgb
from segadapt.evaluation.pictures import attention_picture, confidence_picture
from segadapt.inference.stylizer import Stylizer
from segadapt.report import tables
from segadapt.report.extremes import marked
from segadapt.report.images import Picture, figures, label_map, photo
from segadapt.video.inputs import is_video
from segadapt.video.library import need_av
from segadapt.video.source import Frame, Selection

LONGEST = 1280
"""Longer side of a displayed picture in pixels; networks get the full image."""
SHORTEST = 440
PRESENT = 5e-4
"""The minimum share of the pixels for a class to be listed."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Wanted:
    """What is shown besides the classes."""

    confidence: bool = False
    attention: bool = False


@dataclass(frozen=True)
class Seen:
    """One model's prediction for an image, at its display size."""

    name: str
    overlay: str  # data URI of the classes in their colours
    shares: dict[str, float]  # class -> share of the pixels, for classes that are present
    sure: dict[str, float]  # class -> mean confidence where it is predicted
    confidence: float  # its mean
    labels: Pixels  # (h, w)
    more: list[Picture]


def read_upload(file: Path) -> Pixels:
    """uint8 RGB (H, W, 3) of an image, or of the first frame of a clip. Raises SegadaptError for anything else."""
    if not is_video(str(file)):
        return np.asarray(read_rgb(file))
    need_av()
    from segadapt.video.reading import VideoSource

    source = VideoSource(str(file), Selection(), sound=False, stranger=True)
    try:
        return next(item for item in source.items() if isinstance(item, Frame)).image
    finally:
        source.close()


def shown_size(image: Pixels) -> tuple[int, int]:
    """(W, H) at which an image (H, W, 3) is displayed: its own, within limits."""
    height, width = image.shape[:2]
    scale = min(max(1.0, SHORTEST / width), LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def see(image: Pixels, segmenter: Segmenter, wanted: Wanted) -> Seen:
    """Run a model on uint8 RGB (H, W, 3)."""
    size = shown_size(image)
    labels, sure = segmenter.predictor.confident_labels(image, size)
    counts = np.bincount(labels.ravel(), minlength=len(segmenter.space))
    sums = np.bincount(labels.ravel(), weights=sure.ravel(), minlength=len(segmenter.space))
    present = [number for number in np.argsort(-counts) if counts[number] >= PRESENT * labels.size]
    names = segmenter.space.classes
    more = []
    if wanted.confidence:
        more.append(Picture(f"{segmenter.name}: confidence, bright is sure", photo(confidence_picture(sure), size)))
    attended = segmenter.predictor.attention(image, size) if wanted.attention else None
    if attended is not None:
        spanned = f"{attended.min():.2f} … {attended.max():.2f}"
        more.append(Picture(f"{segmenter.name}: attention, {spanned}", photo(attention_picture(attended), size)))
    return Seen(
        segmenter.name,
        label_map(labels, segmenter.space, size),
        {names[number]: float(counts[number]) / labels.size for number in present},
        {names[number]: float(sums[number] / counts[number]) for number in present},
        float(sure.mean()),
        labels,
        more,
    )


def stylized(image: Pixels, stylizer: Stylizer) -> Image.Image:
    """uint8 RGB (H, W, 3) in the style of the target, at its display size."""
    small = np.asarray(Image.fromarray(image).resize(stylizer.size, Image.Resampling.BICUBIC))
    return Image.fromarray(stylizer([small])[0]).resize(shown_size(image), Image.Resampling.BICUBIC)


def look(
    image: Pixels, segmenters: Sequence[Segmenter], wanted: Wanted, style: tuple[str, Stylizer] | None = None
) -> str:
    """The result as self-contained HTML; no file is written."""
    size = shown_size(image)
    base = photo(Image.fromarray(image), size)
    seen = [see(image, segmenter, wanted) for segmenter in segmenters]
    parts = [f'<div class="panels">{"".join(_panel(base, one) for one in seen)}</div>']
    more = [picture for one in seen for picture in one.more]
    same = len({segmenter.space.classes for segmenter in segmenters}) == 1
    if len(seen) > 1 and same:
        more.append(_differences(image, seen))
    if style is not None:
        name, stylizer = style
        more.append(Picture(f"in the target's style, by {name}", photo(stylized(image, stylizer), size)))
    missing = wanted.attention and not any(segmenter.predictor.network.attention for segmenter in segmenters)
    if missing:
        parts.append('<p class="muted">None of these networks has attention; that of SEAN does.</p>')
    if more:
        parts.append(figures(more, 2))
    if seen:
        parts.append(_table(seen, segmenters))
    return f'<div class="report look">{"".join(parts)}</div>'


def _panel(base: str, seen: Seen) -> str:
    """The image with the classes over it, at an opacity set by the page; a click enlarges both."""
    name = escape(seen.name)
    return (
        f'<figure><label class="zoom"><input type="checkbox" aria-label="enlarge"><span class="layers">'
        f'<img src="{base}" alt="the image"><img class="over" src="{seen.overlay}" alt="classes by {name}">'
        "</span></label>"
        f"<figcaption><b>{name}</b> mean confidence {100 * seen.confidence:.1f} %</figcaption></figure>"
    )


def _differences(image: Pixels, seen: Sequence[Seen]) -> Picture:
    differ = np.any([one.labels != seen[0].labels for one in seen], axis=0)
    shown = photo(marked(image, differ, np.zeros_like(differ)), (differ.shape[1], differ.shape[0]))
    return Picture(f"red: the models differ, in {100 * differ.mean():.1f} % of the pixels", shown)


def _table(seen: Sequence[Seen], segmenters: Sequence[Segmenter]) -> str:
    """Each class's share of the pixels, and the model's confidence where it predicts it."""
    shares = {name: max(one.shares.get(name, 0.0) for one in seen) for one in seen for name in one.shares}
    spaces = {name: own.space for own in reversed(segmenters) for name in own.space.classes}
    rows = []
    for name in sorted(shares, key=lambda name: -shares[name]):
        cells = {"class": tables.swatch(name, spaces[name]) + escape(name)}
        for one in seen:
            title = f"{escape(one.name)}<small>% of the pixels</small>" if len(seen) > 1 else "% of the pixels"
            share, sure = one.shares.get(name), one.sure.get(name)
            cells[title] = tables.NOTHING if share is None else tables.bar(100 * share)
            title = f"sure<small>{escape(one.name)}</small>" if len(seen) > 1 else "confidence"
            cells[title] = tables.NOTHING if sure is None else f"{100 * sure:.0f} %"
        rows.append(tables.Row(cells))
    return tables.table(rows)

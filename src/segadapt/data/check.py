"""`segadapt data check`: open every pair of a split and say what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace
from segadapt.data.parallel import map_unordered
from segadapt.data.reading import LabelReader, read_rgb
from segadapt.data.settings import DomainSettings
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import user_path

ASPECT_TOLERANCE = 1.25
"""Images may be stretched by this much before `aspect_warning` speaks."""
_NAMED_FILES = 3  # of those with an unknown id
# A photo instead of a label map has thousands of colours: the most frequent ones of a file are enough.
_UNKNOWN_VALUES_PER_FILE, _UNKNOWN_VALUES = 32, 1000


@dataclass
class UnknownLabel:
    """A raw label value that the encoding does not know."""

    pixels: int = 0
    files: int = 0
    first_files: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """What was found in one split. Its size does not grow with the number of images, but for `broken`."""

    split: str
    space: LabelSpace
    pairs: list[Pair]
    reader: LabelReader | None  # None: images only
    images: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) of images
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # by train id
    occurs_in: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # images, by train id
    unknown: dict[str, UnknownLabel] = field(default_factory=dict)  # by raw id or colour
    unknown_is_error: bool = True
    broken: dict[str, list[str]] = field(default_factory=dict)  # name -> reasons

    @property
    def sound(self) -> bool:
        """Whether training can use everything."""
        return not self.broken and not (self.unknown and self.unknown_is_error)

    def shares(self) -> list[tuple[str, float, float]]:
        """Per class, then "ignored" and "unknown": name, percent of all pixels, percent of the images it occurs in."""
        total, images = max(int(self.pixels.sum()), 1), max(self.images - len(self.broken), 1)
        rows = [*enumerate(self.space.classes), (IGNORE, "ignored"), (UNKNOWN, "unknown")]
        return [
            (name, 100 * float(self.pixels[k]) / total, 100 * float(self.occurs_in[k]) / images) for k, name in rows
        ]

    def aspect_warning(self, size: tuple[int, int]) -> str | None:
        """A sentence when the most frequent image size is stretched by more than 25 % to fit the training size."""
        if not self.sizes:
            return None
        (width, height), _ = self.sizes.most_common(1)[0]
        stretch = (size[0] / size[1]) / (width / height)
        if 1 / ASPECT_TOLERANCE <= stretch <= ASPECT_TOLERANCE:
            return None
        area = size[0] * size[1]
        fitting = [max(8, round((area * ratio) ** 0.5 / 8) * 8) for ratio in (width / height, height / width)]
        direction = "wider" if stretch > 1 else "narrower"
        return (
            f"{size[0]}×{size[1]} makes images of {width}×{height} {max(stretch, 1 / stretch):.2f} times {direction} "
            f"than they are; {fitting[0]}×{fitting[1]} keeps their aspect."
        )


@dataclass(frozen=True)
class _PairFindings:
    """What a worker process sends back about one pair."""

    name: str
    reasons: list[str]
    size: tuple[int, int] | None = None
    pixels: NDArray[np.int64] | None = None
    unknown: dict[str, int] = field(default_factory=dict)


def check_split(
    settings: DomainSettings,
    space: LabelSpace,
    split: str,
    labels: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Open every image (and label file, unless not `labels`) of a split in full; `progress(done, total)` after each.

    Label ids that the encoding does not know are counted, not refused. Raises UsageError for what concerns the whole
    split: root, layout, image list, encoding, no label at all.
    """
    pairs = settings.pairs(split)
    reader = None
    if labels:
        if all(pair.label is None for pair in pairs):
            raise UsageError(
                f"none of the {len(pairs)} images of split '{split}' has a label",
                where=settings.root,
                remedy="Check where the labels lie, or check the images alone with --unlabelled.",
            )
        form = settings.resolved_layout().label_form
        reader = LabelReader(space, settings.label_encoding(space), form, unknown_ids="ignore")
    else:
        pairs = [replace(pair, label=None) for pair in pairs]
    findings = Findings(split, space, pairs, reader, unknown_is_error=settings.unknown_ids == "error")
    job = partial(_check_pair, pairs, reader, settings.size_mismatch == "error")
    for done, found in enumerate(map_unordered(job, range(len(pairs)), workers), start=1):
        _add(findings, found)
        progress(done, len(pairs))
    return findings


def _check_pair(pairs: list[Pair], reader: LabelReader | None, same_size: bool, index: int) -> _PairFindings:
    pair = pairs[index]
    reasons: list[str] = []
    size: tuple[int, int] | None = None
    try:
        size = read_rgb(pair.image).size
    except SegadaptError as failure:
        reasons.append(_reason(failure))
    if reader is None:
        return _PairFindings(pair.name, reasons, size)
    if pair.label is None:
        return _PairFindings(pair.name, [*reasons, f"{pair.image}: has no label"], size)
    try:
        raw = reader.read_raw(pair.label)
    except SegadaptError as failure:
        return _PairFindings(pair.name, [*reasons, _reason(failure)], size)
    height, width = raw.shape[:2]
    if same_size and size is not None and size != (width, height):
        reasons.append(f"{pair.label}: is {width}×{height}, but its image is {size[0]}×{size[1]}")
    labels = reader.look_up(raw)
    unknown: dict[str, int] = {}
    if (labels == UNKNOWN).any():
        values, counts = np.unique(raw[labels == UNKNOWN], axis=0, return_counts=True)
        for k in np.argsort(-counts)[:_UNKNOWN_VALUES_PER_FILE]:
            unknown[str(values[k].tolist())] = int(counts[k])
    return _PairFindings(pair.name, reasons, size, np.bincount(labels.ravel(), minlength=256), unknown)


def _add(findings: Findings, found: _PairFindings) -> None:
    findings.images += 1
    if found.size is not None:
        findings.sizes[found.size] += 1
    if found.reasons:
        findings.broken[found.name] = found.reasons
    if found.pixels is not None:
        findings.pixels += found.pixels
        findings.occurs_in += found.pixels > 0
    for value, pixels in found.unknown.items():
        if value not in findings.unknown and len(findings.unknown) >= _UNKNOWN_VALUES:
            continue
        entry = findings.unknown.setdefault(value, UnknownLabel())
        entry.pixels += pixels
        entry.files += 1
        if len(entry.first_files) < _NAMED_FILES:
            entry.first_files.append(found.name)


def _reason(failure: SegadaptError) -> str:
    """An error without its remedy: the command gives one for all."""
    return f"{failure.where}: {failure.what}"


def default_splits(settings: DomainSettings) -> list[str]:
    """The splits that are there: those of the layout with a folder, else train and, where something makes it, val."""
    layout, root = settings.resolved_layout(), user_path(settings.root)
    if layout.splits:
        return [split for split in layout.splits if layout.image_folder(root, split).is_dir()] or [layout.splits[0]]
    return ["train", "val"] if settings.holdout or settings.val_list else ["train"]

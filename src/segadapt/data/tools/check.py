"""`segadapt data check`: open every pair of a split and say what is wrong with it.

What training cannot use is broken; what it can use and hardly anybody wants is in `check_warnings`.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace
from segadapt.data.orientation import Exif
from segadapt.data.parallel import map_unordered
from segadapt.data.reading import LabelReader, fits_other_way, need_equal_sizes, picture_sizes, read_rgb
from segadapt.data.settings import DomainSettings
from segadapt.data.walking import natural
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
class Files:
    """The files of which something is true."""

    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        first = sorted(self.names, key=natural)[:_NAMED_FILES]
        return ", ".join(first) + (", …" if len(self) > len(first) else "")


@dataclass
class Findings:
    """What was found in one split: a few names, 16 bytes and a count per class for each image, and sums."""

    split: str
    space: LabelSpace
    pairs: list[Pair]
    reader: LabelReader | None  # None: images only
    exif: Exif = "turn"
    images: int = 0
    labelled: int = 0  # label maps that could be read
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) of images
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # by train id
    occurs_in: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # images, by train id
    by_image: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # name -> pixels of each class
    unknown: dict[str, UnknownLabel] = field(default_factory=dict)  # by raw id or colour
    unknown_is_error: bool = True
    broken: dict[str, list[str]] = field(default_factory=dict)  # name -> reasons
    raw: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # pixels by raw id
    content: dict[bytes, list[str]] = field(default_factory=dict)  # digest of an image's pixels -> names
    tagged: Files = field(default_factory=Files)  # images with an EXIF orientation
    other_way: Files = field(default_factory=Files)  # those whose label fits only with the other `exif`
    nothing: Files = field(default_factory=Files)  # label maps without a pixel that has a class
    orphans: Files = field(default_factory=Files)  # label files without an image
    doubled: Files = field(default_factory=Files)  # images with two label files

    @property
    def sound(self) -> bool:
        """Whether training can use everything."""
        return not self.broken and not (self.unknown and self.unknown_is_error)

    @property
    def problems(self) -> int:
        """How many files and label values training cannot use."""
        return len(self.broken) + (len(self.unknown) if self.unknown_is_error else 0)

    def shares(self) -> list[tuple[str, float, float]]:
        """Per class, then "ignored" and "unknown": name, percent of all pixels, percent of the label maps with it."""
        total, images = max(int(self.pixels.sum()), 1), max(self.labelled, 1)
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


@dataclass
class _PairFindings:
    """What a worker process returns about one pair."""

    name: str
    reasons: list[str]
    size: tuple[int, int] | None = None
    pixels: NDArray[np.int64] | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    raw: NDArray[np.int64] | None = None  # of an encoding of ids
    content: bytes = b""  # digest of the image's pixels
    tagged: bool = False
    other_way: bool = False


def check_split(
    settings: DomainSettings,
    space: LabelSpace,
    split: str,
    labels: bool = True,
    workers: int | None = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Open every image (and label file, unless not `labels`) of a split in full; `progress(done, total)` after each.

    `workers`: processes; None: as many as are worthwhile.

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
        reader = replace(settings.label_reader(space), unknown_ids="ignore")
    else:
        pairs = [replace(pair, label=None) for pair in pairs]
    findings = Findings(split, space, pairs, reader, settings.exif, unknown_is_error=settings.unknown_ids == "error")
    if labels:
        _match_labels(findings, settings)
    job = partial(_check_pair, pairs, reader, settings.size_mismatch == "error", settings.exif)
    for done, found in enumerate(map_unordered(job, range(len(pairs)), workers), start=1):
        _add(findings, found)
        progress(done, len(pairs))
    return findings


def _match_labels(findings: Findings, settings: DomainSettings) -> None:
    """Note label files that belong to no image, and images with two; of the whole folder, so with split train."""
    layout, root = settings.resolved_layout(), settings.root.expanduser()
    if not layout.splits and findings.split != "train":
        return
    files = layout.label_files(root, findings.split)
    known = {layout.label_stem(pair.name) for pair in layout.index(root, findings.split)}
    for stem, paths in files.items():
        if stem not in known:
            findings.orphans.names += [stem + path.suffix for path in paths]
        elif len(paths) > 1:
            findings.doubled.names.append(" and ".join(path.name for path in paths))


def _check_pair(
    pairs: list[Pair], reader: LabelReader | None, same_size: bool, exif: Exif, index: int
) -> _PairFindings:
    pair = pairs[index]
    found = _PairFindings(pair.name, [])
    try:
        image = read_rgb(pair.image, exif=exif)
        found.size, found.tagged = image.size, picture_sizes(pair.image).tagged
        found.content = hashlib.blake2b(image.tobytes(), digest_size=16, person=repr(image.size).encode()[:16]).digest()
    except SegadaptError as failure:
        found.reasons.append(_reason(failure))
    if reader is not None and pair.label is None:
        found.reasons.append(f"{pair.image}: has no label")
    elif reader is not None and pair.label is not None:
        try:
            _check_label(found, reader, pair.label)
            if found.size is not None and same_size:
                need_equal_sizes(pair.image, pair.label, exif)
            elif found.tagged:
                found.other_way = fits_other_way(picture_sizes(pair.image), picture_sizes(pair.label), exif)
        except SegadaptError as failure:
            found.reasons.append(_reason(failure))
    return found


def _check_label(found: _PairFindings, reader: LabelReader, path: Path) -> None:
    """Count the pixels of a label file by raw id and by train id. Raises SegadaptError when it cannot be read."""
    raw = reader.read_raw(path)
    labels = reader.look_up(raw)
    found.pixels = np.bincount(labels.ravel(), minlength=256)
    if raw.ndim == 2:
        found.raw = np.bincount(raw.ravel(), minlength=256)
    if found.pixels[UNKNOWN]:
        values, counts = np.unique(raw[labels == UNKNOWN], axis=0, return_counts=True)
        for k in np.argsort(-counts)[:_UNKNOWN_VALUES_PER_FILE]:
            found.unknown[str(values[k].tolist())] = int(counts[k])


def _add(findings: Findings, found: _PairFindings) -> None:
    findings.images += 1
    if found.size is not None:
        findings.sizes[found.size] += 1
        findings.content.setdefault(found.content, []).append(found.name)
    if found.reasons:
        findings.broken[found.name] = found.reasons
    for files, holds in ((findings.tagged, found.tagged), (findings.other_way, found.other_way)):
        files.names += [found.name] * holds
    if found.pixels is not None:
        findings.labelled += 1
        findings.pixels += found.pixels
        findings.occurs_in += found.pixels > 0
        findings.by_image[found.name] = found.pixels[: len(findings.space)]
        if not found.pixels[: len(findings.space)].any():
            findings.nothing.names.append(found.name)
    if found.raw is not None:
        findings.raw += found.raw
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


def default_splits(settings: DomainSettings, labels: bool = True) -> list[str]:
    """The splits that are there: those of the layout with a folder, else train and, where something makes it, val.

    With `labels`, those that are published with labels.
    """
    layout, root = settings.resolved_layout(), user_path(settings.root)
    if layout.splits:
        wanted = [split for split in layout.splits if not (labels and split in layout.unlabelled)]
        return [split for split in wanted if layout.has(root, split)] or wanted[:1]
    return ["train", "val"] if settings.holdout or settings.val_list else ["train"]

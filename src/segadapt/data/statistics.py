"""How many pixels each image has of each class, counted once per data set and kept beside the prepared copies.

Labels are counted at their own size, whatever lies prepared: what training draws must not depend on what a disk holds.
`segadapt data check` counts the same and leaves it here.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segadapt.data.cache import default_prepared_root
from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import digest, new_file, user_path

VERSION = 1  # of what a file of counts means
_SAID_EVERY = 0.25  # of the images


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """The pixels of each class in each image of a data set."""

    pixels: NDArray[np.int64]  # (images, classes), of labels at their own size; ignored pixels are not counted


def one_class_only(pixels: Sequence[int], classes: Sequence[str]) -> str | None:
    """What is wrong with labels that have so many `pixels` of each class; None when two classes occur, or more."""
    there = [name for name, count in zip(classes, pixels, strict=True) if count]
    if len(there) > 1:
        return None
    if not there:
        return "no labelled pixel has a class: all are ignored"
    return f"all labelled pixels are '{there[0]}', none of any other class"


def class_statistics(
    data: TrainingData,
    prepared_root: Path | None,
    threads: int,
    say: Callable[[str], None] = lambda text: None,
) -> ClassStatistics:
    """The counts of a labelled data set, from an earlier count of the same files where there is one.

    `say` is told now and then how far it is. Raises UsageError for data without labels, SegadaptError for a label that
    cannot be read.
    """
    if isinstance(data, JoinedDataset):
        parts = [class_statistics(part, prepared_root, threads, say).pixels for part in data.parts]
        return ClassStatistics(np.concatenate(parts))
    if data.labels is None:
        raise UsageError(
            "has no labels here, but sampler rare_classes counts their classes",
            where=data.root,
            remedy="Set another `sampler` (of the target: `target_sampler`).",
        )
    path = _path(data, prepared_root)
    shape = (len(data), len(data.labels.space))
    if (kept := _kept(path, shape)) is not None:
        return ClassStatistics(kept)
    rows = []
    with ThreadPoolExecutor(threads) as pool:
        for row in pool.map(partial(_count, data, shape[1]), range(len(data))):
            rows.append(row)
            if len(rows) % max(1, round(_SAID_EVERY * len(data))) == 0 and len(rows) < len(data):
                say(f"classes counted in {len(rows)} of {len(data)} labels")
    try:
        return keep(data, prepared_root, rows)
    except SegadaptError as failure:  # a cache that cannot be written costs time, not the training
        say(f"the class counts could not be saved for reuse: {failure}")
        return ClassStatistics(np.stack(rows))


def keep(data: SegmentationDataset, prepared_root: Path | None, rows: Sequence[NDArray[np.int64]]) -> ClassStatistics:
    """Write the pixels per class of each image, in order, for the next time. Labels that a stage has made are not kept.

    Raises SegadaptError when they cannot be written.
    """
    pixels = np.stack(rows).astype(np.int64)
    if data.made_labels is None:  # those change without changing their names, and often their sizes
        with new_file(_path(data, prepared_root)) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array(file, pixels)
    return ClassStatistics(pixels)


def _path(data: SegmentationDataset, prepared_root: Path | None) -> Path:
    assert data.labels is not None
    facts = [VERSION, data.digest, data.labels.space.digest, data.labels.encoding, data.labels.form, data.labels.exif]
    place = (user_path(prepared_root) if prepared_root else default_prepared_root()).absolute()
    return place / "statistics" / f"{digest(facts)[:32]}.npy"


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """The counts in a file; None when it is not there or does not hold counts of this shape."""
    try:
        found: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)  # its header, so far
    except (OSError, ValueError, EOFError):
        return None
    if found.shape != shape or found.dtype != np.int64:
        return None
    pixels = np.array(found)
    return pixels if (pixels >= 0).all() else None


def _count(data: SegmentationDataset, classes: int, index: int) -> NDArray[np.int64]:
    return np.bincount(data.label(index).ravel(), minlength=256)[:classes]

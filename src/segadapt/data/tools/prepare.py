"""`segadapt data prepare`: make the resized copies that `segadapt.data.cache` keeps and training reads."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import features

from segadapt.data.cache import NPY_HEADER, Copy, Kind, Store, kinds_of, open_store
from segadapt.data.dataset import Sample, SegmentationDataset
from segadapt.data.parallel import map_unordered
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_json


@dataclass(frozen=True)
class Preparation:
    """What `data prepare` would do: look at it, then `run` it."""

    dataset: SegmentationDataset
    stores: tuple[Store, ...]
    todo: list[int]  # indexes of pairs to look at
    bytes_needed: int | None  # for uncompressed copies; compressed ones show their size when they are done
    verify: bool

    def run(self, workers: int | None, progress: Callable[[int, int], None] = lambda done, total: None) -> "Prepared":
        """Make the copies, `progress(done, total)` after each; broken pairs are left out.

        `workers`: processes; None: as many as are worthwhile.

        What is done stays done: run it again after a kill. Raises SegadaptError when the disk is full.
        """
        if self.bytes_needed is not None:
            self._need_space(self.bytes_needed)
        written = checked = 0
        failures: list[str] = []
        for store in self.stores:
            write_json(store.folder / "store.json", store.facts)
        job = partial(_prepare_pair, self.dataset, self.stores, self.verify)
        for done, result in enumerate(map_unordered(job, self.todo, workers), start=1):
            if isinstance(result, str):
                failures.append(result)
            else:
                checked += 1
                written += any(copy is not None for copy in result)
                for store, copy in zip(self.stores, result, strict=True):
                    if copy is not None:
                        store.record(copy)
            progress(done, len(self.todo))
        size = sum(copy.bytes for store in self.stores for copy in store.copies.values())
        return Prepared(written, checked - written, failures, size)

    def _need_space(self, needed: int) -> None:
        place = self.stores[0].folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if needed > free:
            raise SegadaptError(
                f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free",
                where=place,
                remedy="Free some space, choose another --prepared-root, or leave out --raw.",
            )


@dataclass(frozen=True)
class Prepared:
    """What a preparation did."""

    written: int  # pairs of which copies were made
    verified: int  # pairs whose copies were compared with their sources and were right
    failures: list[str]  # why pairs were left out
    bytes: int  # size of all copies in the stores


def plan(
    dataset: SegmentationDataset, layout: str, prepared_root: Path | None, raw: bool = False, verify: bool = False
) -> Preparation:
    """What is to be done so that all of `dataset` lies ready: nothing is written yet.

    `verify`: compare copies that are there with their sources, too, and make wrong ones again.
    Raises UsageError when this Pillow cannot write WebP (without `raw`).
    """
    if not raw and not features.check("webp"):
        raise UsageError("this Pillow cannot write WebP", remedy="Install Pillow from PyPI, or use --raw.")
    plain = replace(dataset, augment=None, image_copies=None, label_copies=None)
    stores = tuple(open_store(plain, layout, kind, prepared_root, raw) for kind in kinds_of(dataset))
    everything = range(len(plain))
    todo = [k for k in everything if verify or any(not store.holds(plain.pairs[k], None) for store in stores)]
    needed = None
    if raw:
        pixels = plain.size[0] * plain.size[1]
        per_copy = {"images": 3 * pixels + NPY_HEADER, "labels": pixels + NPY_HEADER}
        needed = sum(per_copy[store.kind] for store in stores for pair in plain.pairs if not store.holds(pair, None))
    return Preparation(plain, stores, todo, needed, verify)


def _prepare_pair(
    dataset: SegmentationDataset, stores: tuple[Store, ...], verify: bool, index: int
) -> list[Copy | None] | str:
    """New copies of one pair, None where the store has it already; the reason in words when the pair is broken."""
    pair = dataset.pairs[index]
    try:
        sample = dataset.read(index)
    except SegadaptError as failure:
        return str(failure)
    copies: list[Copy | None] = []
    for store in stores:
        pixels = _pixels(sample, store.kind)
        fine = store.holds(pair, pixels if verify else None)
        copies.append(None if fine else store.write(pair, pixels))
    return copies


def _pixels(sample: Sample, kind: Kind) -> NDArray[np.uint8]:
    pixels = sample.image if kind == "images" else sample.label
    assert pixels is not None
    return pixels

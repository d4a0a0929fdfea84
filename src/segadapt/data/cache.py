"""Resized copies on disk (`segadapt data prepare`), so that training reads small files instead of large ones.

A store is a folder of copies of one kind: images, or label maps as train ids. Its name is a digest of all that decides
its pixels: layout, root, size, EXIF, format, and for label maps the label space and encoding. It holds

    store.json      what it is, for people
    copies.jsonl    one line per copy, appended when the copy has been written, read back and compared
    …/NAME.webp     the copy, under its image's path below the data folder

A copy counts while its source has the size in bytes that it had; a data set uses a store when all its files have one,
whatever the split or image list. Copies are lossless: WebP for images (a third faster to decode than PNG, and smaller),
PNG with the classes' colours for label maps, or with `raw` uncompressed .npy for both.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.catalog import Pair
from segadapt.data.dataset import SegmentationDataset, file_size
from segadapt.errors import SegadaptError
from segadapt.files import digest, new_file, sha256, user_path, write_failure
from segadapt.plain_data import read_json_lines

VERSION = 1  # of everything here that decides what a store holds
NPY_HEADER = 128  # bytes

Kind = Literal["images", "labels"]


@dataclass(frozen=True)
class Copy:
    """One line of copies.jsonl."""

    name: str  # path of the image below the data folder
    source_bytes: int
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Store:
    """Copies of one kind at one size."""

    folder: Path
    kind: Kind
    size: tuple[int, int]
    root: Path
    suffix: str
    facts: dict[str, object]  # what decides the pixels
    palette: bytes = b""  # colours of label maps, for people who look at them
    keep_aspect: bool = False  # copies fit into `size` instead of having it
    copies: dict[str, Copy] = field(default_factory=dict)

    def path(self, pair: Pair) -> Path:
        """Where the copy of a pair's image or label map lies."""
        return self.folder / (self.name(pair) + self.suffix)

    def name(self, pair: Pair) -> str:
        """The name under which copies.jsonl has a pair."""
        return (pair.original or pair.image).relative_to(self.root).as_posix()

    def lacks(self, pair: Pair) -> bool:
        """Whether there is no copy of this pair, or one of a source that had another size in bytes."""
        copy = self.copies.get(self.name(pair))
        return copy is None or copy.source_bytes != file_size(self._source(pair))

    def _source(self, pair: Pair) -> Path:
        source = pair.image if self.kind == "images" else pair.label
        assert source is not None
        return source

    def read(self, pair: Pair) -> NDArray[np.uint8]:
        """The image (H, W, 3) or label map (H, W). Raises SegadaptError when the copy is missing or broken."""
        path = self.path(pair)
        try:
            if self.suffix == ".npy":
                pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)  # its header, so far
            else:
                with Image.open(path, formats=("WEBP", "PNG")) as picture:
                    right = self._fits(picture.size)
                    pixels = np.asarray(picture) if right else np.zeros((0, 0), np.uint8)
        except Exception as failure:  # decoders raise all kinds of errors for broken files
            raise _broken(path, f"cannot be read ({failure})") from failure
        if not self._fits((pixels.shape[1], pixels.shape[0])) or pixels.dtype != np.uint8:
            raise _broken(path, "does not have the expected size")
        return np.array(pixels) if self.suffix == ".npy" else pixels

    def _fits(self, size: tuple[int, int]) -> bool:
        """Whether a copy may have this size: the one of training, or with its aspect kept one that touches it."""
        touching = any(side == most for side, most in zip(size, self.size, strict=True))
        inside = all(0 < side <= most for side, most in zip(size, self.size, strict=True))
        return size == self.size or (self.keep_aspect and touching and inside)

    def write(self, pair: Pair, pixels: NDArray[np.uint8]) -> Copy:
        """Write a copy, read it back, compare. Raises SegadaptError when it is not what was written."""
        path = self.path(pair)
        with new_file(path) as temporary, temporary.open("wb") as file:
            if self.suffix == ".npy":
                np.lib.format.write_array(file, np.ascontiguousarray(pixels))
            elif self.suffix == ".webp":
                Image.fromarray(pixels).save(file, "WEBP", lossless=True, quality=0, method=1)
            else:
                labels = Image.fromarray(pixels)
                labels.putpalette(self.palette)  # indices stay; Pillow reads this twice as fast as grey
                labels.save(file, "PNG", compress_level=1)
        if not np.array_equal(self.read(pair), pixels):
            raise _broken(path, "does not read back as it was written")
        return Copy(self.name(pair), file_size(self._source(pair)), file_size(path), sha256(path))

    def record(self, copy: Copy) -> None:
        """Note in copies.jsonl that a copy has been written."""
        self.copies[copy.name] = copy
        path = self.folder / "copies.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                # The line break comes first, so that half a line before (from a kill) spoils nothing.
                file.write("\n" + json.dumps(copy.__dict__))
        except OSError as failure:
            raise write_failure(path, failure) from failure

    def holds(self, pair: Pair, pixels: NDArray[np.uint8] | None) -> bool:
        """Whether the copy is there in full length and, given the `pixels` it should have, right to the last bit."""
        copy, path = self.copies.get(self.name(pair)), self.path(pair)
        if copy is None or self.lacks(pair) or not path.is_file() or file_size(path) != copy.bytes:
            return False
        if pixels is None:
            return True
        try:
            return sha256(path) == copy.sha256 and np.array_equal(self.read(pair), pixels)
        except SegadaptError:
            return False


def with_copies(dataset: SegmentationDataset, layout: str, prepared_root: Path | None) -> SegmentationDataset:
    """`dataset`, reading prepared copies where all its files have one; says so in its `origin`."""
    found: dict[Kind, Store] = {}
    remarks = []
    for kind in kinds_of(dataset):
        for raw in (True, False):
            store = open_store(dataset, layout, kind, prepared_root, raw)
            lacking = sum(store.lacks(pair) for pair in dataset.pairs) if store.copies else len(dataset)
            if not lacking:
                found[kind] = store
                break
            if lacking < len(dataset):
                remarks.append(f"{store.folder} lacks {lacking} {kind}: run `segadapt data prepare` again to use it")
    return replace(
        dataset, image_copies=found.get("images"), label_copies=found.get("labels"), remark="; ".join(remarks)
    )


def default_prepared_root() -> Path:
    """$SEGADAPT_CACHE/prepared, else ~/.cache/segadapt/prepared."""
    cache = os.environ.get("SEGADAPT_CACHE")
    return (user_path(cache) if cache else Path.home() / ".cache" / "segadapt") / "prepared"


def kinds_of(dataset: SegmentationDataset) -> tuple[Kind, ...]:
    """What there can be copies of."""
    return ("images",) if dataset.labels is None else ("images", "labels")


def open_store(dataset: SegmentationDataset, layout: str, kind: Kind, prepared_root: Path | None, raw: bool) -> Store:
    """The store where copies of `dataset` belong, with the copies that it has."""
    suffix = ".npy" if raw else {"images": ".webp", "labels": ".png"}[kind]
    facts: dict[str, object] = {
        "version": VERSION,
        "kind": kind,
        "layout": layout,
        "root": str(dataset.root.resolve()),
        "size": list(dataset.size),
        "resampling": {"images": "bicubic", "labels": "nearest"}[kind],
        "format": suffix,
    }
    if dataset.exif == "turn":  # stores from before there was a choice hold stored pixels, and still do
        facts["exif"] = "turn"
    if dataset.keep_aspect:
        facts["aspect"] = "kept"
    palette = b""
    if kind == "labels":
        assert dataset.labels is not None
        palette = dataset.labels.space.palette.tobytes()
        facts |= {
            "label_space": dataset.labels.space.name,
            "label_space_digest": dataset.labels.space.digest,
            "encoding": dataset.labels.encoding,
            "label_form": dataset.labels.form,
            "unknown_ids": dataset.labels.unknown_ids,
            "size_mismatch": dataset.size_mismatch,
        }
        if (derived := dataset.labels.space.derived(dataset.labels.encoding)) is not None:
            facts["encoding_digest"] = derived.digest
    width, height = dataset.size
    place = (user_path(prepared_root) if prepared_root else default_prepared_root()).absolute()
    folder = place / f"{layout}-{width}x{height}-{kind}-{suffix[1:]}-{digest(facts)[:16]}"
    store = Store(folder, kind, dataset.size, dataset.root, suffix, facts, palette, dataset.keep_aspect)
    store.copies.update((copy.name, copy) for copy in _recorded(folder / "copies.jsonl"))
    return store


def _recorded(path: Path) -> Iterable[Copy]:
    kinds = {"name": str, "source_bytes": int, "bytes": int, "sha256": str}
    for _, line in read_json_lines(path):  # one that cannot be read is of a copy that is made again
        if line.keys() == kinds.keys() and all(type(line[key]) is kind for key, kind in kinds.items()):
            yield Copy(**line)


def _broken(path: Path, what: str) -> SegadaptError:
    return SegadaptError(
        f"this prepared copy {what}",
        where=path,
        remedy="Run `segadapt data prepare` again with --verify, or set prepared: false.",
    )

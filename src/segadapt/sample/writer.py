"""`segadapt data sample OUT`: the two generated domains as folders, OUT/gta5 and OUT/cityscapes.

Resumable: complete files are kept, missing or broken ones are drawn again. Any number of processes gives the same.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.parallel import map_unordered
from segadapt.errors import UsageError
from segadapt.files import new_file, write_bytes, write_json, write_text
from segadapt.plain_data import read_json
from segadapt.sample import png
from segadapt.sample.domains import SAMPLE_VERSION, sample_pair

CITIES = {"train": "alba", "val": "brisa"}
SMALLEST = 64  # pixels: streets do not fit into less


@dataclass(frozen=True)
class SampleSummary:
    """What `write_sample` left in `out`."""

    out: Path
    version: int
    seed: int
    size: tuple[int, int]  # (width, height)
    train: int  # pairs per domain
    val: int
    written: int  # pairs written now
    kept: int  # pairs that were already complete


@dataclass(frozen=True)
class _Task:
    """One pair to write."""

    domain: str
    split: str
    index: int
    image: Path
    label: Path
    seed: int
    size: tuple[int, int]


def write_sample(
    out: Path,
    seed: int = 0,
    train: int = 400,
    val: int = 100,
    size: tuple[int, int] = (480, 240),
    workers: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSummary:
    """Write both domains, `train` + `val` pairs each, into `out`; call `progress(pairs done, total)` meanwhile.

    `out/gta5` has the GTA5 layout with the lists train.txt and val.txt, `out/cityscapes` that of Cityscapes.
    `workers`: processes; None: as many as pay off.

    Raises UsageError for impossible numbers and for a folder that holds a sample of other settings, or other data.
    """
    _check(train, val, size, workers)
    _claim(out, {"sample_version": SAMPLE_VERSION, "seed": seed, "train": train, "val": val, "size": list(size)})
    tasks = list(_tasks(out, seed, {"train": train, "val": val}, size))
    missing = [task for task in tasks if not (_is_whole(task.image) and _is_whole(task.label))]
    done = len(tasks) - len(missing)
    if progress is not None:
        progress(done, len(tasks))
    for _ in map_unordered(partial(_write_one, missing), range(len(missing)), workers):
        done += 1
        if progress is not None:
            progress(done, len(tasks))
    return SampleSummary(out, SAMPLE_VERSION, seed, size, train, val, len(missing), len(tasks) - len(missing))


def _check(train: int, val: int, size: tuple[int, int], workers: int | None) -> None:
    for name, number in (("train", train), ("val", val), ("workers", workers)):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}", where="data sample", remedy="Give a number of at least 1.")
    if min(size) < SMALLEST:
        raise UsageError(
            f"size {size[0]}×{size[1]} is too small",
            where="data sample",
            remedy=f"Give at least {SMALLEST} pixels in width and height.",
        )


def _claim(out: Path, facts: dict[str, Any]) -> None:
    """Write sample.json first, so that a later call knows the folder's content; refuse a folder with other settings."""
    path = out / "sample.json"
    if not path.exists():
        for domain in (out / "gta5", out / "cityscapes"):
            if domain.exists():
                raise UsageError("already exists and is not a sample", where=domain, remedy="Choose another folder.")
        write_json(path, facts)
        return
    try:
        found = read_json(path, "the record of the sample")
    except UsageError as error:
        raise UsageError("is not readable", where=path, remedy="Choose another folder.") from error
    if found != facts:
        raise UsageError(
            f"holds another sample ({json.dumps(found)}, wanted {json.dumps(facts)})",
            where=path,
            remedy="Choose another folder, or delete this one.",
        )


def _tasks(out: Path, seed: int, counts: dict[str, int], size: tuple[int, int]) -> Iterator[_Task]:
    first = 1
    for split, count in counts.items():
        names = [f"{first + index:05d}.png" for index in range(count)]
        write_text(out / "gta5" / f"{split}.txt", "\n".join(names) + "\n")
        for index, name in enumerate(names):
            folder = out / "gta5"
            yield _Task("gta5", split, index, folder / "images" / name, folder / "labels" / name, seed, size)
        first += count
    for split, count in counts.items():
        city, folder = CITIES[split], out / "cityscapes"
        for index in range(count):
            name = f"{city}_{index:06d}_000019"
            image = folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            label = folder / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
            yield _Task("cityscapes", split, index, image, label, seed, size)


def _is_whole(path: Path) -> bool:
    """Whether a PNG file begins and ends as it should."""
    if not path.is_file() or path.stat().st_size < 32:
        return False
    with path.open("rb") as file:
        start = file.read(len(png.START))
        file.seek(-len(png.END), 2)
        return start == png.START and file.read() == png.END


def _write_one(tasks: list[_Task], index: int) -> None:
    _write_pair(tasks[index])


def _write_pair(task: _Task) -> None:
    picture, labels = sample_pair(task.domain, task.split, task.index, task.seed, task.size)
    image = Image.fromarray(labels)
    if task.domain == "gta5":
        image = image.convert("P")
        image.putpalette(_palette())
    with new_file(task.label) as temporary:
        image.save(temporary, format="PNG", compress_level=1)
    write_bytes(task.image, png.encode(picture))  # last, so that an image is never without its label


def _palette() -> list[int]:
    """The colours of Cityscapes by label id, as GTA5's label files carry them."""
    colors: NDArray[np.uint8] = np.zeros((256, 3), np.uint8)
    for label, color in CITYSCAPES_COLORS.items():
        colors[label] = color
    return colors.ravel().tolist()


CITYSCAPES_COLORS = {
    5: (111, 74, 0), 6: (81, 0, 81), 7: (128, 64, 128), 8: (244, 35, 232), 9: (250, 170, 160), 10: (230, 150, 140),
    11: (70, 70, 70), 12: (102, 102, 156), 13: (190, 153, 153), 14: (180, 165, 180), 15: (150, 100, 100),
    16: (150, 120, 90), 17: (153, 153, 153), 18: (153, 153, 153), 19: (250, 170, 30), 20: (220, 220, 0),
    21: (107, 142, 35), 22: (152, 251, 152), 23: (70, 130, 180), 24: (220, 20, 60), 25: (255, 0, 0), 26: (0, 0, 142),
    27: (0, 0, 70), 28: (0, 60, 100), 29: (0, 0, 90), 30: (0, 0, 110), 31: (0, 80, 100), 32: (0, 0, 230),
    33: (119, 11, 32),
}  # fmt: skip

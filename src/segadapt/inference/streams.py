"""Folders of images in, a picture function, folders of pictures out: prediction, and all else that maps image to image.

Decoding and encoding run in threads beside the function (Pillow lets go of the interpreter lock), the number of images
in memory is bounded, every file appears whole or not at all, and a second run does only what is missing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.catalog import LAYOUTS
from segadapt.data.reading import read_rgb
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_with

READERS, AHEAD = 2, 3  # threads that decode, and images decoded before they are asked for

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One image to read and the files to write for it, in the order in which the picture function returns them."""

    image: Path
    outputs: tuple[Path, ...]


@dataclass(frozen=True)
class StreamResult:
    """How many images were done now and how many were there already."""

    written: int
    skipped: int


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(function, items)` in order, by threads that work at most AHEAD items in advance."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def find_images(inputs: Sequence[Path], without: Path | None = None) -> list[tuple[Path, Path]]:
    """(image, its place in an output folder, without suffix) of files and, recursively, folders; natural order in each.

    What lies in the folder `without` (the output of a run before) is no input, unless it is named itself. A file
    `a/b.jpg` goes to `b`, an image `folder/x/y.png` of an input `folder` to `x/y`. Raises UsageError when an input is
    not there or holds no image, and when two images would go to one place.
    """
    found: dict[Path, Path] = {}
    for start in inputs:
        if start.is_file():
            images = [(start, start.name)]
        elif start.is_dir():
            images = [(pair.image, pair.name) for pair in LAYOUTS["folder"].index(start)]
            if without is not None and start.resolve() in without.resolve().parents:
                images = [(image, name) for image, name in images if without.resolve() not in image.resolve().parents]
        else:
            raise UsageError("is not there", where=start, remedy="Give image files or folders of images.")
        for image, name in images:
            place = Path(name).with_suffix("")
            if found.setdefault(place, image) != image:
                raise UsageError(
                    f"has the same name as {found[place]}", where=image, remedy="Write them to folders of their own."
                )
    return [(image, place) for place, image in found.items()]


def need_other_places(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Raise UsageError when one of the outputs would be written over one of the inputs."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError("would be written over an input", where=path, remedy="Choose another folder.")


def run_stream(
    jobs: Sequence[Job],
    pictures: Callable[[NDArray[np.uint8]], Sequence[Image.Image]],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> StreamResult:
    """Read each job's image, call `pictures` on it and save what it returns under the job's outputs, as PNG.

    Jobs whose outputs are all there are left alone unless `overwrite`. `progress(done, all)` is called after each
    image. An image that cannot be read does not stop the others; a SegadaptError names it at the end. Raises
    UsageError when an output lies where an image does.
    """
    need_other_places((job.image for job in jobs), (path for job in jobs for path in job.outputs))
    todo = [job for job in jobs if overwrite or not all(path.is_file() for path in job.outputs)]
    skipped = len(jobs) - len(todo)
    broken: list[SegadaptError] = []
    with ThreadPoolExecutor(1) as writer:
        writing: deque[Future[None]] = deque()
        for done, (job, image) in enumerate(zip(todo, ahead(_read, todo), strict=True), start=1):
            if isinstance(image, SegadaptError):
                broken.append(image)
            else:
                writing.append(writer.submit(_write, job.outputs, pictures(image)))
            while len(writing) > AHEAD:
                writing.popleft().result()
            if progress is not None:
                progress(skipped + done, len(jobs))
        for future in writing:
            future.result()
    if broken:
        others = "" if len(broken) == 1 else f" (and {len(broken) - 1} more like it)"
        fine = len(todo) - len(broken)
        rest = {0: "", 1: "; the other image is done"}.get(fine, f"; the other {fine} images are done")
        raise SegadaptError(
            f"{broken[0].what}{others}{rest}",
            where=broken[0].where,
            remedy=broken[0].remedy,
        )
    return StreamResult(len(todo), skipped)


def save_png(path: Path, picture: Image.Image) -> None:
    """Save a picture as PNG, whole or not at all."""
    write_with(path, lambda temporary: picture.save(temporary, format="PNG"))


def _read(job: Job) -> NDArray[np.uint8] | SegadaptError:
    try:
        return np.asarray(read_rgb(job.image))
    except SegadaptError as error:
        return error


def _write(outputs: Sequence[Path], pictures: Sequence[Image.Image]) -> None:
    for path, picture in zip(outputs, pictures, strict=True):
        save_png(path, picture)

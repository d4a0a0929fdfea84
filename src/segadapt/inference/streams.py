"""Folders of images in, a network, folders of pictures out: prediction, stylized copies, pseudo-labels.

Decoding and encoding run in threads beside the network (Pillow lets go of the interpreter lock), the number of images
in memory is bounded, every file appears whole or not at all, and a second run does only what is missing. Which images
share a batch depends on the list of images alone, so that a run which was killed, or one over several ranks, writes
the same files to the last bit.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.archive import is_folder
from segadapt.data.catalog import IMAGE_SUFFIXES, LAYOUTS
from segadapt.data.orientation import Exif
from segadapt.data.packed import need_unpacked
from segadapt.data.reading import picture_sizes, read_rgb
from segadapt.errors import SegadaptError, SegadaptErrors, UsageError, UsageErrors
from segadapt.files import is_file, write_with
from segadapt.processes import usable_cores

AHEAD = 3  # images decoded before they are asked for, at least
READERS, MOST_READERS = 2, 8  # threads that decode: beside a network on the CPU, and the most beside a GPU

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """One image to read and the files to write for it, in the order in which the picture function returns them."""

    image: Path
    outputs: tuple[Path, ...]


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Flow:
    """How images go through `run_batches`."""

    batch: int = 1  # images that the network sees at once
    shard: tuple[int, int] = (0, 1)  # (rank, ranks): every `ranks`-th batch is this process's
    threads: int = READERS  # that decode, and as many that encode
    overwrite: bool = False  # do again what already exists
    progress: Callable[[int, int], None] | None = None  # told (done, all) of this process after each batch
    stopped: Callable[[], bool] = _never  # when it says so, what was begun is ended and written, and no more


@dataclass(frozen=True)
class StreamResult:
    """How many images were done now, were already done, and are left since the stream was stopped."""

    written: int
    skipped: int
    left: int = 0


def readers(device: torch.device) -> int:
    """How many threads decode, and as many that encode: two where the network needs the cores, else all up to eight."""
    return READERS if device.type == "cpu" else max(READERS, min(MOST_READERS, usable_cores()))


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = READERS, most: int = AHEAD
) -> Generator[Result]:
    """`map(function, items)` in order, by threads that work at most `most` items in advance."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def find_images(inputs: Sequence[Path], without: Path | None = None) -> list[tuple[Path, Path]]:
    """(image, its place in an output folder, without suffix) of files and, recursively, folders; natural order in each.

    What lies in the folder `without` (the output of a run before) is no input, unless it is named itself. A file
    `a/b.jpg` goes to `b`, an image `folder/x/y.png` of an input `folder` to `x/y`. Raises UsageError when two images
    would go to one place, and UsageError (UsageErrors for several) that names each input which is not there, is no
    picture or holds none.
    """
    found: dict[Path, Path] = {}
    every, errors = [], list[UsageError]()
    for start in inputs:
        try:
            every.append(_images_of(start, without))
        except UsageError as error:
            errors.append(error)
    if errors:
        raise UsageErrors(errors) if len(errors) > 1 else errors[0]
    for images in every:
        for image, name in images:
            place = Path(name).with_suffix("")
            if found.setdefault(place, image) != image:
                raise UsageError(
                    f"has the same name as {found[place]}", where=image, remedy="Write them to folders of their own."
                )
    return [(image, place) for place, image in found.items()]


def _images_of(start: Path, without: Path | None) -> list[tuple[Path, str]]:
    """The images of one input, with their names below it. Raises UsageError when there are none."""
    if is_file(start) and not is_folder(start):
        need_unpacked(start)
        if start.suffix.lower() not in IMAGE_SUFFIXES:  # else it is one to be, and broken ones stop no others
            try:
                picture_sizes(start)
            except SegadaptError as error:
                raise UsageError(
                    "is not an image", where=start, remedy="Give image files or folders of images."
                ) from error
        return [(start, start.name)]
    if not is_folder(start):
        raise UsageError("does not exist", where=start, remedy="Give image files or folders of images.")
    images = [(pair.image, pair.name) for pair in LAYOUTS["folder"].index(start)]
    if without is not None and start.resolve() in without.resolve().parents:
        images = [(image, name) for image, name in images if without.resolve() not in image.resolve().parents]
    return images


def need_other_places(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Raise UsageError when one of the outputs would be written over one of the inputs."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError("would overwrite an input", where=path, remedy="Choose another folder.")


def run_stream(
    jobs: Sequence[Job],
    pictures: Callable[[NDArray[np.uint8]], Sequence[Image.Image]],
    flow: Flow = Flow(),
    exif: Exif = "turn",
) -> StreamResult:
    """Read each job's image, call `pictures` on it and save what it returns under the job's outputs, as PNG.

    Otherwise as `run_batches`.
    """

    def write(job: Job, made: Sequence[Image.Image]) -> None:
        for path, picture in zip(job.outputs, made, strict=True):
            save_png(path, picture)

    return run_batches(
        jobs,
        lambda job: np.asarray(read_rgb(job.image, exif=exif)),
        lambda images: [pictures(image) for image in images],
        write,
        flow,
    )


def run_batches(
    jobs: Sequence[Job],
    read: Callable[[Job], Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    write: Callable[[Job, Result], None],
    flow: Flow = Flow(),
) -> StreamResult:
    """`read` each job in threads, `work` on a batch of them at a time here, `write` each result in threads.

    Jobs whose outputs are all there are left alone, unless the flow says otherwise. An image that cannot be
    read does not stop the others; a SegadaptError names each such image at the end. Raises UsageError when an output
    lies where an image does.
    """
    need_other_places((job.image for job in jobs), (path for job in jobs for path in job.outputs))
    (rank, ranks), batch, threads = flow.shard, flow.batch, flow.threads
    batches = [jobs[start : start + batch] for start in range(0, len(jobs), batch)][rank::ranks]

    def lacks(job: Job) -> bool:
        return flow.overwrite or not all(path.is_file() for path in job.outputs)

    todo = [group for group in batches if any(map(lacks, group))]
    count = sum(map(len, batches))
    skipped = count - sum(map(len, todo))
    written, broken = 0, list[SegadaptError]()
    images = ahead(_told(read), (job for group in todo for job in group), threads, max(AHEAD, threads) + batch)
    with closing(images), ThreadPoolExecutor(threads) as writers:
        writing: deque[Future[None]] = deque()
        for group in todo:
            if flow.stopped():
                break
            found = [(job, next(images)) for job in group]
            broken += [image for _, image in found if isinstance(image, SegadaptError)]
            fine = [(job, image) for job, image in found if not isinstance(image, SegadaptError)]
            results = work([image for _, image in fine]) if fine else []
            for (job, _), result in zip(fine, results, strict=True):
                if lacks(job):
                    writing.append(writers.submit(write, job, result))
            while len(writing) > threads + batch:
                writing.popleft().result()
            written += len(group)
            if flow.progress is not None:
                flow.progress(skipped + written, count)
        for future in writing:
            future.result()
    if broken:
        raise _all_of(broken, written)
    return StreamResult(written, skipped, count - skipped - written)


def save_png(path: Path, picture: Image.Image, level: int = 6) -> None:
    """Save a picture as PNG of compression `level` (0..9), whole or not at all."""
    write_with(path, lambda temporary: picture.save(temporary, format="PNG", compress_level=level))


def _told(read: Callable[[Job], Item]) -> Callable[[Job], Item | SegadaptError]:
    """`read` that gives errors back instead of raising them."""

    def reading(job: Job) -> Item | SegadaptError:
        try:
            return read(job)
        except SegadaptError as error:
            return error

    return reading


def _all_of(broken: list[SegadaptError], done: int) -> SegadaptError:
    """Every failed image in a line of its own; the last line says what became of the other images."""
    fine = done - len(broken)
    rest = {0: "", 1: "; the other image is done"}.get(fine, f"; the other {fine} images are done")
    last = broken[-1]
    told = SegadaptError(f"{last.what}{rest}", where=last.where, remedy=last.remedy)
    return told if len(broken) == 1 else SegadaptErrors([*broken[:-1], told])

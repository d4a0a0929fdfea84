"""Folders of images through a network into folders of images: prediction, stylized copies, pseudo-labels.

Decoding and encoding run in threads beside the network (Pillow releases the interpreter lock), the number of images
in memory is bounded, every file appears whole or not at all, and a second run does only what is missing. Which images
share a batch depends on the list of images alone, so that a run which was killed, or one over several ranks, writes
the same files to the last bit. All have the size of the network's input by then: their own sizes play no part.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from PIL import Image

from segadapt.data.archive import is_folder
from segadapt.data.catalog import IMAGE_SUFFIXES, LAYOUTS
from segadapt.data.packed import need_unpacked
from segadapt.data.reading import picture_sizes
from segadapt.errors import SegadaptError, SegadaptErrors, UsageError, UsageErrors
from segadapt.files import is_file, write_with
from segadapt.inference.transfers import Pace
from segadapt.processes import usable_cores

AHEAD = 3  # images decoded ahead, at least
READERS, MOST_READERS = 2, 8  # decoding threads: beside a network on the CPU, and at most beside a GPU

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

    batch: int = 1  # images in a network call
    shard: tuple[int, int] = (0, 1)  # (rank, ranks): every `ranks`-th batch is this process's
    threads: int = READERS  # for decoding, and as many for encoding
    overwrite: bool = False  # redo what already exists
    progress: Callable[[int, int], None] | None = None  # called with (done, all) of this process after each batch
    stopped: Callable[[], bool] = _never  # once true, batches in progress are finished and written, and no others


@dataclass(frozen=True)
class StreamResult:
    """How many images were done now, were done before, and are left because the stream was stopped."""

    written: int
    skipped: int
    left: int = 0


def readers(device: torch.device) -> int:
    """Threads for decoding, and for encoding: two where the network needs the cores, else all, up to eight."""
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


def batches_of(items: Sequence[Item], batch: int, share: tuple[int, int] = (0, 1)) -> list[Sequence[Item]]:
    """The items in batches, of which a share, (number, shares), has every `shares`-th: they follow from the items."""
    number, shares = share
    return [items[start : start + batch] for start in range(0, len(items), batch)][number::shares]


def read_batches(
    batches: Sequence[Sequence[Item]], read: Callable[[Item], Result], threads: int, device: torch.device | None = None
) -> Generator[list[Result]]:
    """What `read` gives for the items of each batch; as many as a batch are read in advance, a few at least.

    With the `device` that works on them: asked for the next batch, it lets a GPU get on with those before (`Pace`).
    """
    pace = None if device is None else Pace(device)
    most = max(AHEAD, threads) + max(map(len, batches), default=1) - 1
    with closing(ahead(read, (item for batch in batches for item in batch), threads, most)) as found:
        for batch in batches:
            yield [next(found) for _ in batch]
            if pace is not None:
                pace.keep()


class Writers:
    """Threads that write results while the next ones are made; at most `most` wait. Errors come up when it ends."""

    def __init__(self, threads: int, most: int) -> None:
        self._pool, self._most = ThreadPoolExecutor(threads), most
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        with self._pool:
            while self._pending and kind is None:
                self._pending.popleft().result()

    def write(self, function: Callable[..., object], *given: object) -> None:
        """Call it in a thread, and wait while too many wait already."""
        self._pending.append(self._pool.submit(function, *given))
        while len(self._pending) > self._most:
            self._pending.popleft().result()


def find_images(inputs: Sequence[Path], without: Path | None = None) -> list[tuple[Path, Path]]:
    """(image, its place in an output folder, without suffix) of files and, recursively, folders; natural order in each.

    The content of the folder `without` (the output of an earlier run) is no input, unless it is named itself. A file
    `a/b.jpg` goes to `b`, an image `folder/x/y.png` of an input `folder` to `x/y`. Raises UsageError when two images
    would go to one place, and UsageError (UsageErrors for several) that names each input that does not exist, is not an
    image or contains none.
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
        # What claims to be an image is read later: a broken one does not stop the others.
        if start.suffix.lower() not in IMAGE_SUFFIXES:
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
    """Raise UsageError when an output would overwrite an input."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise UsageError("would overwrite an input", where=path, remedy="Choose another folder.")


def run_batches(
    jobs: Sequence[Job],
    read: Callable[[Job], Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    write: Callable[[Job, Result], None],
    flow: Flow = Flow(),
) -> StreamResult:
    """`read` each job in threads, `work` on a batch of them at a time here, `write` each result in threads.

    So that a GPU need not wait for the threads, results are `Fetched`, whose values only `write` asks for.
    Jobs whose outputs all exist are skipped, unless `flow.overwrite`. An image that cannot be read does not stop the
    others; a SegadaptError names each such image at the end. Raises UsageError when an output would overwrite an input.
    """
    need_other_places((job.image for job in jobs), (path for job in jobs for path in job.outputs))
    batch, threads = flow.batch, flow.threads
    batches = batches_of(jobs, batch, flow.shard)

    def lacks(job: Job) -> bool:
        return flow.overwrite or not all(path.is_file() for path in job.outputs)

    todo = [group for group in batches if any(map(lacks, group))]
    count = sum(map(len, batches))
    skipped = count - sum(map(len, todo))
    written, broken = 0, list[SegadaptError]()
    with closing(read_batches(todo, _told(read), threads)) as images, Writers(threads, threads + batch) as writers:
        for group in todo:
            if flow.stopped():
                break
            found = list(zip(group, next(images), strict=True))
            broken += [image for _, image in found if isinstance(image, SegadaptError)]
            fine = [(job, image) for job, image in found if not isinstance(image, SegadaptError)]
            results = work([image for _, image in fine]) if fine else []
            for (job, _), result in zip(fine, results, strict=True):
                if lacks(job):
                    writers.write(write, job, result)
            written += len(group)
            if flow.progress is not None:
                flow.progress(skipped + written, count)
    if broken:
        raise _all_of(broken, written)
    return StreamResult(written, skipped, count - skipped - written)


def save_png(path: Path, picture: Image.Image, level: int = 6) -> None:
    """Save a picture as PNG of compression `level` (0..9), whole or not at all."""
    write_with(path, lambda temporary: picture.save(temporary, format="PNG", compress_level=level))


def _told(read: Callable[[Job], Item]) -> Callable[[Job], Item | SegadaptError]:
    """`read` that returns errors instead of raising them."""

    def reading(job: Job) -> Item | SegadaptError:
        try:
            return read(job)
        except SegadaptError as error:
            return error

    return reading


def _all_of(broken: list[SegadaptError], done: int) -> SegadaptError:
    """Every failed image on its own line; the last line says what happened to the others."""
    fine = done - len(broken)
    rest = {0: "", 1: "; the other image is done"}.get(fine, f"; the other {fine} images are done")
    last = broken[-1]
    told = SegadaptError(f"{last.what}{rest}", where=last.where, remedy=last.remedy)
    return told if len(broken) == 1 else SegadaptErrors([*broken[:-1], told])

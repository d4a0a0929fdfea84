"""What the stages that turn images into files share: where each file goes, stopping well, what a sheet shows."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from segadapt.data.dataset import TrainingData
from segadapt.engine.runtime import Runtime
from segadapt.engine.trainer import stop_signals
from segadapt.errors import Stopped, UsageError
from segadapt.files import temporary_beside, write_bytes
from segadapt.inference.streams import Flow, StreamResult, readers
from segadapt.stages.context import Display
from segadapt.stages.stage import Work

ROWS = 4
"""Images on a contact sheet."""
SECONDS_LATE = 5

Place = tuple[Path, Path]
"""An image, and where its files go below an output folder, without suffix."""
Item = TypeVar("Item")


def places(data: TrainingData | None) -> list[Place]:
    """The images of a data set and the places of their files: their names without suffix, sub-folders kept.

    Raises UsageError when two images would go to one place.
    """
    assert data is not None
    found: dict[Path, Path] = {}
    for pair in (pair for leaf in data.leaves for pair in leaf.pairs):
        place = Path(pair.name).with_suffix("")
        if found.setdefault(place, pair.image) != pair.image:
            raise UsageError(
                f"has the same name as {found[place]}", where=pair.image, remedy="Rename one, or use an image list."
            )
    return [(image, place) for place, image in found.items()]


def count_made(folder: Path) -> int:
    """How many images a stage has put through its network so far, by the folder of what came out."""
    return sum(1 for _ in folder.rglob("*.png"))


def images_done(work: Work, folder: str) -> str:
    """How many images there are to do, or how many of them are done, in words."""
    images = sum(len(dataset) for dataset in work.data.all().values())
    if not work.resumed:
        return f"{images} images"
    there = count_made(work.folder / folder)
    return f"{there} of {images} images" if there else ""


def some(items: Sequence[Item], count: int = ROWS) -> list[Item]:
    """Up to `count` of the items, evenly spread."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def need_shared(runtime: Runtime, folder: Path) -> None:
    """Raise UsageError on every rank when one does not see the files that rank 0 writes into `folder`.

    Ranks share the work on images, and read them one by one: unlike weights, these are not sent.
    """
    if runtime.ranks == 1:
        return

    def write() -> tuple[str, str]:
        file, token = temporary_beside(folder / "shared"), secrets.token_hex(8)
        write_bytes(file, token.encode())
        return file.name, token

    name, token = runtime.from_main(write)
    found = torch.zeros(runtime.ranks, device=runtime.device)
    found[runtime.rank] = 1.0 if _reads(folder / name, token) else 0.0
    blind = [str(rank) for rank, sees in enumerate(runtime.sum(found).tolist()) if not sees]
    if runtime.is_main:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise UsageError(
            f"rank {', '.join(blind)} cannot see this folder, but all ranks write and read images there",
            where=folder,
            remedy="Use a folder that all ranks share, or do the stages that make images on one machine.",
        )


def _reads(file: Path, token: str) -> bool:
    """Whether the file has this content; a network file system may show it some seconds late."""
    for _ in range(SECONDS_LATE):
        try:
            list(file.parent.iterdir())  # lets such a file system ask again
            return file.read_text() == token
        except OSError:
            time.sleep(1)
    return False


def flow(
    runtime: Runtime,
    display: Display,
    stopped: Callable[[], bool],
    *,
    batch: int,
    overwrite: bool = False,
) -> Flow:
    """This rank's share of the images, told on the display, until a signal comes."""
    return Flow(batch, (runtime.rank, runtime.ranks), threads(runtime), overwrite, display.images, stopped)


def threads(runtime: Runtime) -> int:
    """Threads that decode and encode beside the network."""
    return max(readers(runtime.device), runtime.workers)


@contextmanager
def stopping(runtime: Runtime, folder: Path) -> Iterator["Stopping"]:
    """Signals are noted instead of ending the process, see `Stopping`."""
    with stop_signals(tell=runtime.is_main) as received:
        yield Stopping(received, folder)


class Stopping:
    """Whether a signal has come: asked between images, so that what was begun is written; `end` raises then."""

    def __init__(self, received: list[int], folder: Path) -> None:
        self.received, self.folder = received, folder

    def __call__(self) -> bool:
        return bool(self.received)

    def end(self, done: StreamResult) -> None:
        """Raise Stopped when a signal has come."""
        if self.received:
            raise Stopped(
                f"stopped with {done.left} of {done.written + done.skipped + done.left} images left to do",
                signal_number=self.received[0],
                where=self.folder,
                remedy="Run the same command to resume.",
            )

"""From data sets to batches, in order, read ahead by worker processes, copied ahead to a GPU."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from segadapt.batch import Batch, Images
from segadapt.data.dataset import TrainingData
from segadapt.data.samplers import Choice, Sampler, sample_seeds
from segadapt.errors import SegadaptError
from segadapt.plugin_loading import Loaded
from segadapt.processes import leave_signals_to_parent, signals_held

STEP = 0.01
"""Seconds of a short training step on a big GPU: reading must not take longer."""
TIMED = 4
"""Batches that are read to time it."""


@dataclass(frozen=True)
class Sampled:
    """A data set, and what chooses its images."""

    data: TrainingData
    sampler: Sampler


class Steps(Dataset[Batch | SegadaptError]):
    """Item t is this rank's share of the batch of step t."""

    def __init__(
        self,
        seed: int,
        batch: int,
        source: Sampled | None,
        target: Sampled | None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.seed, self.batch, self.source, self.target = seed, batch, source, target
        share = batch // ranks
        self.share = slice(rank * share, (rank + 1) * share)

    def __getstate__(self) -> dict[str, Any]:
        return {"plugins": Loaded(), **self.__dict__}  # first: a data set may be of a plug-in's class

    def __getitem__(self, step: int) -> Batch | SegadaptError:
        of_step = sample_seeds(self.seed, self.batch, step)
        seeds = of_step[self.share]
        try:
            # The two domains of a sample are augmented independently.
            source = target = None
            if self.source is not None:
                source = _images(self.source.data, self.source.sampler(step)[self.share], seeds)
            if self.target is not None:
                target = _images(self.target.data, self.target.sampler(step)[self.share], [seed ^ 1 for seed in seeds])
        except SegadaptError as error:
            return error  # as a value: a worker's exception would reach the trainer as a traceback in text
        return Batch(step, tuple(seeds), source, target, step_seed=of_step[0])


def _images(dataset: TrainingData, chosen: list[Choice], seeds: list[int]) -> Images:
    samples = [dataset.read(one.index, seed, one.need) for one, seed in zip(chosen, seeds, strict=True)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(
        0, 3, 1, 2
    )  # channels-last strides
    maps = [sample.label for sample in samples if sample.label is not None]
    labels = torch.from_numpy(np.stack(maps)) if maps else None
    masks = [sample.valid for sample in samples if sample.valid is not None]
    valid = torch.from_numpy(np.stack(masks)) if masks else None
    return Images(images, labels, tuple(sample.name for sample in samples), valid)


def batches(steps: Steps, first: int, last: int, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
    """The batches of steps first..last-1. Raises SegadaptError for an image or label that cannot be used."""
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker if workers else None,
    )
    with signals_held():
        read = iter(loader)  # starts the processes
    for batch in read:
        if isinstance(batch, SegadaptError):
            raise batch
        yield batch


def watched(batches: Iterator[Batch], classes: int, first: int, tell: Callable[[list[int]], None]) -> Iterator[Batch]:
    """The batches as they are; `tell(pixels per class)` when the labels of the `first` so many hold fewer than two.

    It looks at labels on the host, before they go to a GPU, and no longer than until it has seen two classes.
    """
    pixels, looking = torch.zeros(classes, dtype=torch.int64), True
    for number, batch in enumerate(batches, start=1):
        labels = [images.labels for images in (batch.source, batch.target) if images and images.labels is not None]
        if looking and labels:
            for found in labels:
                pixels += torch.bincount(found.flatten(), minlength=256)[:classes]
            looking = bool((pixels > 0).sum() < 2)
            if looking and number == first:
                tell(pixels.tolist())
        yield batch


def needed_workers(steps: Steps, first: int, most: int) -> tuple[int, float]:
    """How many processes (1 … `most`) read a batch within STEP, and the seconds that one takes: a few are timed."""
    seconds: list[float] = []
    for step in range(first, first + TIMED):
        start = time.perf_counter()
        _ = steps[step]
        seconds.append(time.perf_counter() - start)
    usual = median(seconds[1:])  # the first one finds cold caches
    return min(most, max(1, math.ceil(usual / STEP))), usual


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, on the device. Each is copied to a GPU while the step before it is computed there."""
    if device.type != "cuda":
        return (batch.to(device) for batch in batches)
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: Batch) -> Batch:
        with torch.cuda.stream(copying):
            return batch.ahead_on(device)

    def end(batch: Batch) -> Batch:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in batch.tensors():
            tensor.record_stream(computing)
        return batch

    return one_ahead(batches, begin, end)


def one_ahead(
    batches: Iterator[Batch], begin: Callable[[Batch], Batch], end: Callable[[Batch], Batch]
) -> Iterator[Batch]:
    """`end(begin(batch))` of each batch; the next one is begun before a batch is handed out.

    A SegadaptError for a batch is raised when it is that batch's turn.
    """

    def next_begun() -> Batch | SegadaptError | None:
        try:
            return begin(next(batches))
        except StopIteration:
            return None
        except SegadaptError as error:
            return error

    waiting = next_begun()
    while waiting is not None:
        if isinstance(waiting, SegadaptError):
            raise waiting
        ready = end(waiting)
        waiting = next_begun()
        yield ready


def _quiet_worker(worker: int) -> None:
    """Signals go to the whole process group; workers leave them to the trainer, and take one core each."""
    leave_signals_to_parent()
    torch.set_num_threads(1)

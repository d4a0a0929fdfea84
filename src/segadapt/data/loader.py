"""From data sets to batches, in order, read ahead by worker processes."""

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from segadapt.batch import Batch, Images
from segadapt.data.dataset import TrainingData
from segadapt.data.pairing import Pairing
from segadapt.errors import SegadaptError


class Steps(Dataset[Batch | SegadaptError]):
    """Item t is this rank's share of the batch of step t."""

    def __init__(
        self,
        pairing: Pairing,
        source: TrainingData | None,
        target: TrainingData | None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.pairing, self.source, self.target = pairing, source, target
        share = pairing.batch // ranks
        self.share = slice(rank * share, (rank + 1) * share)

    def __getitem__(self, step: int) -> Batch | SegadaptError:
        seeds = self.pairing.seeds(step)[self.share]
        try:
            # The two domains of a sample are augmented independently.
            source = target = None
            if self.source is not None:
                source = _images(self.source, self.pairing.source(step)[self.share], seeds)
            if self.target is not None:
                target = _images(self.target, self.pairing.target(step)[self.share], [seed ^ 1 for seed in seeds])
        except SegadaptError as error:
            return error  # as a value: a worker's exception would reach the trainer as a traceback in text
        return Batch(step, tuple(seeds), source, target)


def _images(dataset: TrainingData, indices: list[int], seeds: list[int]) -> Images:
    samples = [dataset.read(index, seed) for index, seed in zip(indices, seeds, strict=True)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(
        0, 3, 1, 2
    )  # channels-last strides
    maps = [sample.label for sample in samples if sample.label is not None]
    labels = torch.from_numpy(np.stack(maps)) if maps else None
    return Images(images, labels, tuple(sample.name for sample in samples))


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
    for batch in loader:
        if isinstance(batch, SegadaptError):
            raise batch
        yield batch


def _quiet_worker(worker: int) -> None:
    """Ctrl-C goes to the whole process group; workers leave it to the trainer, and take one core each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

"""Accuracy and speed of an exported model: mIoU and latency, beside PyTorch on the same images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import UsageError
from segadapt.evaluation.confusion import Confusion
from segadapt.evaluation.evaluate import spread

Pixels = NDArray[np.uint8]
WARM_UP, TIMED = 2, 20
"""Maximum warm-up passes and timed passes; the median of the latter is reported."""


@dataclass(frozen=True)
class Row:
    """One model: its name, size of its file in MB, mIoU in percent (None: no labelled class), median ms an image."""

    name: str
    megabytes: float
    miou: float | None
    milliseconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


Labels = Callable[[Pixels], Pixels]
"""uint8 RGB (H, W, 3) -> train ids (H, W)."""


def scored(
    models: Sequence[tuple[str, float, Labels]], dataset: SegmentationDataset, space: LabelSpace, limit: int | None
) -> list[Row]:
    """A row per model (name, MB, function), all on the same images: `limit` evenly spread ones, or all.

    Classes are predicted at the size of the image. Latency is that of one
    image through the whole function, resizing and arg-max included. Raises UsageError for a label whose size differs
    from its image's.
    """
    confusions = [Confusion(space.classes) for _ in models]
    times: list[list[float]] = [[] for _ in models]
    for number, index in enumerate(spread(len(dataset), limit)):
        image, truth = dataset.image(index), dataset.label(index)
        if truth.shape != image.shape[:2]:
            raise UsageError(
                "its label has a different size",
                where=dataset.pairs[index].image,
                remedy="Score the model with `segadapt evaluate`, or give labels as large as their images.",
            )
        for confusion, spent, (_, _, labels_of) in zip(confusions, times, models, strict=True):
            start = time.perf_counter()
            found = labels_of(image)
            if WARM_UP <= number < WARM_UP + TIMED or not spent:
                spent.append(1000 * (time.perf_counter() - start))
            confusion.add(truth, found)
    rows = []
    for confusion, spent, (name, megabytes, _) in zip(confusions, times, models, strict=True):
        miou = confusion.miou()
        rows.append(Row(name, megabytes, None if np.isnan(miou) else miou, median(spent)))
    return rows


def setting() -> dict[str, Any]:
    """What the latencies depend on: the processor, its instruction set, threads and versions."""
    import onnxruntime

    return {
        "device": "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }

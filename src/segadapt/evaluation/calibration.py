"""Whether a network's confidence can be trusted: how often it is right at each level of confidence.

    calibration = Calibration()
    calibration.add(labels, predictions, confidence)      # of each image, on a grid of its pixels
    expected_calibration_error(calibration.plain())       # percent

A pixel's confidence is the probability of its predicted class. Pixels are sorted into bins of equal width by it;
in each, the mean confidence should be the share of right pixels (reliability diagram). The expected calibration error
is the mean distance of the two, weighted with the pixels of the bins (Naeini et al., AAAI 2015; Guo et al., ICML 2017).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segadapt.data.label_spaces import IGNORE
from segadapt.plain_data import Json

BINS = 15
EVERY = 8
"""The grid: every eighth pixel of every eighth row, which costs next to nothing compared with the labels."""


class Calibration:
    """Pixels, right pixels and the sum of confidences per bin, counted on the predictions' device."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (3, BINS + 1) float64 on the device; the last bin: ignored pixels

    def add(self, labels: Tensor, predictions: Tensor, confidence: Tensor) -> None:
        """Count pixels of one shape: train ids uint8, 255 ignored in `labels`, confidence float32 in 0 … 1."""
        bins = (confidence * BINS).long().clamp_(0, BINS - 1).masked_fill_(labels == IGNORE, BINS).flatten()
        values = torch.stack(
            (torch.ones_like(confidence), (labels == predictions).to(confidence.dtype), confidence)
        ).double()
        if self._sums is None:
            self._sums = torch.zeros((3, BINS + 1), dtype=torch.float64, device=confidence.device)
        self._sums.scatter_add_(1, bins.expand(3, -1), values.flatten(1))

    def plain(self) -> Json:
        """`calibration` of evaluation.json: lists of length BINS, confidence as the sum over the bin's pixels."""
        sums = np.zeros((3, BINS + 1)) if self._sums is None else self._sums.cpu().numpy()
        pixels, right, confidence = sums[:, :BINS]
        return {
            "every": EVERY,
            "pixels": [round(count) for count in pixels],
            "right": [round(count) for count in right],
            "confidence": [float(total) for total in confidence],
        }


def expected_calibration_error(found: Json) -> float | None:
    """From the result of `Calibration.plain`, in percent; None without pixels."""
    pixels, right, confidence = (np.asarray(found[key], np.float64) for key in ("pixels", "right", "confidence"))
    return 100 * float(np.abs(confidence - right).sum() / pixels.sum()) if pixels.sum() else None


def together(several: Sequence[Json]) -> Json:
    """The counts of several data sets, added up."""
    summed = {
        key: [sum(values) for values in zip(*(one[key] for one in several), strict=True)]
        for key in ("pixels", "right", "confidence")
    }
    return {"every": several[0]["every"], **summed}

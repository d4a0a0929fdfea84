"""What a network says about images, as pictures beside one another: the verb `predict`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segadapt.data.label_spaces import LabelSpace
from segadapt.data.orientation import Exif
from segadapt.data.reading import read_rgb
from segadapt.inference.formats import Format, picture
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import Flow, Job, StreamResult, run_batches, save_png
from segadapt.inference.transfers import Fetched

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Original:
    """An image (H, W, 3) as it is, and at the size of the network's input."""

    image: Pixels
    resized: Pixels


def label_pictures(
    jobs: Sequence[Job],
    predictor: Predictor,
    space: LabelSpace,
    formats: Sequence[Format],
    flow: Flow = Flow(),
    exif: Exif = "turn",
) -> StreamResult:
    """Write the predicted classes of each job's image, at its own size, as one PNG for each format, in their order.

    Otherwise as `run_batches`.
    """

    def read(job: Job) -> _Original:
        image = np.asarray(read_rgb(job.image, exif=exif))
        return _Original(image, predictor.resized(image))

    def work(originals: Sequence[_Original]) -> list[tuple[Pixels, Fetched]]:
        sizes = [(one.image.shape[1], one.image.shape[0]) for one in originals]
        labels = predictor.label_maps([one.resized for one in originals], sizes)
        return [(one.image, Fetched(own)) for one, own in zip(originals, labels, strict=True)]

    def write(job: Job, made: tuple[Pixels, Fetched]) -> None:
        image, labels = made
        for form, path in zip(formats, job.outputs, strict=True):
            save_png(path, picture(labels.numpy(), space, form, image))

    return run_batches(jobs, read, work, write, flow)

"""Compare an exported model with its network by what matters: its labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from segadapt.data.reading import read_rgb
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import spread
from segadapt.export.onnx_graph import IMAGES
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import find_images
from segadapt.sample.domains import sample_pair

if TYPE_CHECKING:
    import onnxruntime

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
LEAST: dict[Precision, float] = {"fp32": 99.9, "fp16": 99.0, "int8": 90.0}
"""Percent of the pixels that must keep their label. fp32 differs only by rounding, where two classes tie."""
MOST_IMAGES = 32
"""Maximum number of the given images that are used, evenly spread."""
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class NamedImage:
    """uint8 RGB (H, W, 3), and its display name."""

    name: str
    pixels: Image


@dataclass(frozen=True)
class Agreement:
    """How many pixels get the same label from both."""

    percent: float
    images: int
    worst: str  # the image with the lowest share
    worst_percent: float


def images_of(paths: Sequence[Path]) -> list[NamedImage]:
    """The images of files and folders, evenly spread if they are many. Raises as `find_images` and `read_rgb` do."""
    found = [image for image, _ in find_images(paths)]
    chosen = [found[i] for i in spread(len(found), MOST_IMAGES)]
    return [NamedImage(str(image), np.asarray(read_rgb(image))) for image in chosen]


def built_in_images(size: tuple[int, int]) -> list[NamedImage]:
    """Generated street images around a network's input size (W, H): of that size, larger, and wider."""
    width, height = size
    sizes = [(width, height), (width * 3 // 2 + 1, height * 5 // 4 + 1), (2 * width, height)]
    pictures = (sample_pair("cityscapes", "val", i, size=one)[0] for i, one in enumerate(sizes))
    return [NamedImage(f"generated picture {i}", picture) for i, picture in enumerate(pictures)]


def session(model: bytes | Path) -> "onnxruntime.InferenceSession":
    """ONNX Runtime on the CPU, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no other common base
        line = (str(error).splitlines() or ["no reason"])[0].rstrip(".")
        raise SegadaptError(
            f"ONNX Runtime does not load the exported model ({line[:200]})",
            where="export",
            remedy="Try another --precision, and please report it.",
        ) from error


def labels_of(running: "onnxruntime.InferenceSession", images: Image) -> Image:
    """uint8 RGB (N, H, W, 3) -> train ids (N, H, W)."""
    found: Image = running.run(["labels"], {IMAGES: images})[0]
    return found


def agreement(running: "onnxruntime.InferenceSession", predictor: Predictor, images: Sequence[NamedImage]) -> Agreement:
    """The share of PyTorch's labels (`segadapt predict`) that the exported model reproduces, for each image.

    The first image is also run together with its mirror image, as a batch of two.
    """
    shares, pixels, same = [], 0, 0
    for number, image in enumerate(images):
        batch = image.pixels[None]
        if number == 0:
            batch = np.concatenate([batch, batch[:, :, ::-1]])
        expected = np.stack([predictor.labels(np.ascontiguousarray(one)) for one in batch])
        equal = labels_of(running, np.ascontiguousarray(batch)) == expected
        shares.append(100 * float(equal.mean()))
        pixels, same = pixels + equal.size, same + int(equal.sum())
    worst = int(np.argmin(shares))
    return Agreement(100 * same / pixels, len(images), images[worst].name, shares[worst])


def need_agreement(found: Agreement, least: float, precision: Precision) -> None:
    """Raise SegadaptError when fewer than `least` percent of the labels are equal."""
    if found.percent >= least:
        return
    remedy = {
        "fp32": "Nothing was written: docs/export.md says which networks can be exported. Please report it.",
        "fp16": "Nothing was written. Use fp32, or accept it with a lower --least-agreement.",
        "int8": "Nothing was written. Calibrate on more images of the target, or accept it with a lower "
        "--least-agreement.",
    }[precision]
    raise SegadaptError(
        f"{found.percent:.2f} % of the labels in {precision} equal PyTorch's, but {least:g} % must "
        f"(worst: {found.worst}, {found.worst_percent:.2f} %)",
        where="export",
        remedy=remedy,
    )

"""One sample as the published readers give it: Pillow, numpy, float32, one after another."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reference.steps import Examples
from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import IGNORE, LabelSpace
from segadapt.models.segmenter import CAFFE

MEAN = np.array(CAFFE.mean, np.float32)
"""Of the channels B, G, R."""
Size = tuple[int, int]


def caffe_pixels(path: Path, size: Size) -> NDArray[np.float32]:
    """An image file -> (3, H, W) at `size` (W, H), BGR minus mean."""
    image = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    image = image[:, :, ::-1]
    image = image - MEAN
    return image.transpose((2, 0, 1)).copy()


def train_ids(path: Path, size: Size | None, known: dict[int, int]) -> NDArray[np.int64]:
    """A label file -> (H, W) train ids at `size` or its own, class by class; `known`: raw id -> train id."""
    picture = Image.open(path)
    raw = np.asarray(picture if size is None else picture.resize(size, Image.Resampling.NEAREST))
    labels = IGNORE * np.ones(raw.shape, np.float32)
    for raw_id, train_id in known.items():
        labels[raw == raw_id] = train_id
    return labels.astype(np.int64)


def known_ids(space: LabelSpace, encoding: str) -> dict[int, int]:
    """Raw id -> train id of all classes."""
    return {raw: int(train) for raw, train in enumerate(space.table(encoding)) if train < len(space)}


def read_example(pair: Pair, size: Size, known: dict[int, int]) -> Examples:
    """An image and its labels at the training size, as a batch of one."""
    assert pair.label is not None
    image, labels = caffe_pixels(pair.image, size), train_ids(pair.label, size, known)
    return Examples(torch.from_numpy(image)[None], torch.from_numpy(labels)[None])

"""Evaluation, pseudo-labels and stylized copies as published: float32, one view after another, one image at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reference.losses import confusion, mean_iou, upsampled
from reference.reading import MEAN, Size, caffe_pixels, known_ids, train_ids
from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import LabelSpace
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer

SCALES = (1.0, 0.75, 1.25, 1.5)
Labels = NDArray[np.int64]


@torch.no_grad()
def evaluate(
    network: Segmenter, pairs: Sequence[Pair], space: LabelSpace, encoding: str, size: Size, multi_scale: bool
) -> float:
    """mIoU in percent over all pairs; the network sees images at `size` (W, H), labels keep their own."""
    network.eval()
    known, device = known_ids(space, encoding), next(network.parameters()).device
    counts = np.zeros((len(space), len(space)), np.int64)
    for pair in pairs:
        assert pair.label is not None
        pixels = torch.from_numpy(caffe_pixels(pair.image, size))[None].to(device)
        labels = train_ids(pair.label, None, known)
        maps = view_sum(network, pixels) if multi_scale else network.segment(pixels).logits
        predictions = most_likely(upsampled(maps, labels.shape, network.align_corners))
        counts += confusion(labels, predictions, len(space))
    return mean_iou(counts)


@torch.no_grad()
def pseudo_labels(network: Segmenter, images: Sequence[Path], folder: Path, size: Size) -> None:
    """The class of every pixel of each image at `size`, from all views, as `folder`/NAME.png."""
    network.eval()
    device = next(network.parameters()).device
    folder.mkdir(parents=True, exist_ok=True)
    for path in images:
        pixels = torch.from_numpy(caffe_pixels(path, size))[None].to(device)
        predictions = most_likely(view_sum(network, pixels))
        Image.fromarray(predictions.astype(np.uint8)).save(folder / f"{path.stem}.png")


def view_sum(network: Segmenter, pixels: Tensor) -> Tensor:
    """Caffe pixels (1, 3, H, W) -> softmax maps (1, C, H, W) summed over four scales and their mirror images."""
    total = torch.zeros((1, network.classes, *pixels.shape[2:]), device=pixels.device)
    for scale in SCALES:
        for mirrored in (False, True):
            total = total + view(network, pixels, scale, mirrored)
    return total


def view(network: Segmenter, pixels: Tensor, scale: float, mirrored: bool) -> Tensor:
    """The softmax map of one view (1, C, H, W); scale 1.5 runs as four quadrants."""
    size, corners = pixels.shape[2:], network.align_corners
    scaled = pixels
    if scale != 1.0:
        scaled = upsampled(pixels, (round(size[0] * scale), round(size[1] * scale)), corners)
    if mirrored:
        scaled = torch.flip(scaled, [3])
    logits = quadrants(network, scaled) if scale == 1.5 else network.segment(scaled).logits
    if mirrored:
        logits = torch.flip(logits, [3])
    if scale == 1.0 and not mirrored:
        return F.softmax(upsampled(logits, size, corners), dim=1)
    return upsampled(F.softmax(logits, dim=1), size, corners)


def quadrants(network: Segmenter, pixels: Tensor) -> Tensor:
    """Logits of the four quarters of an image, each for itself, side by side."""
    rows = []
    for row in pixels.tensor_split(2, dim=2):
        rows.append(torch.cat([network.segment(half).logits for half in row.tensor_split(2, dim=3)], dim=3))
    return torch.cat(rows, dim=2)


def most_likely(maps: Tensor) -> Labels:
    """Maps (1, C, H, W) -> the class of each pixel (H, W)."""
    found: Labels = torch.max(maps, 1)[1][0].cpu().numpy()
    return found


@torch.no_grad()
def predict(network: Segmenter, path: Path, size: Size) -> tuple[Labels, NDArray[np.float32]]:
    """Labels (H, W) and probabilities (C, H, W) of one image file at its own size."""
    network.eval()
    width, height = Image.open(path).size
    pixels = torch.from_numpy(caffe_pixels(path, size))[None].to(next(network.parameters()).device)
    maps = F.softmax(upsampled(network.segment(pixels).logits, (height, width), network.align_corners), dim=1)
    return most_likely(maps), maps[0].cpu().numpy()


@torch.no_grad()
def stylize(generator: StyleTransfer, images: Sequence[Path], folder: Path, size: Size) -> None:
    """Each image's stylized copy, as large as the image, as `folder`/NAME.png."""
    generator.eval()
    device = next(generator.parameters()).device
    folder.mkdir(parents=True, exist_ok=True)
    for path in images:
        pixels = torch.from_numpy(caffe_pixels(path, size))[None].to(device)
        styled = generator(pixels)[0].cpu().numpy().transpose((1, 2, 0)) + MEAN
        rgb = np.clip(styled[:, :, ::-1], 0, 255).astype(np.uint8)
        copy = Image.fromarray(rgb).resize(Image.open(path).size, Image.Resampling.BICUBIC)
        copy.save(folder / f"{path.stem}.png")

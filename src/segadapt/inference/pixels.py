"""Pixels of whatever is given as an image: a path, a Pillow image, an array or a tensor."""

from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segadapt.data.orientation import turn_to_apply
from segadapt.data.reading import as_rgb, read_rgb
from segadapt.errors import UsageError

AnyImage = Path | str | Image.Image | NDArray[np.uint8] | NDArray[np.floating[Any]] | Tensor


def is_one(image: object) -> TypeGuard[AnyImage]:
    """Whether this is a single image, not a list of them."""
    return isinstance(image, (str, Path, Image.Image, np.ndarray, Tensor))


def rgb_pixels(image: Any) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W).

    Arrays and tensors are uint8, 0 … 255, or floating-point, 0 … 1.

    Files, and Pillow images that still carry the tag, are turned as their EXIF says.

    Raises UsageError for another kind, shape or type, SegadaptError for a file that cannot be read as an image.
    """
    if isinstance(image, (str, Path)):
        return np.asarray(read_rgb(Path(image)))
    if isinstance(image, Image.Image):
        turn = turn_to_apply(image, "turn")
        upright = image.copy() if turn is None else image.transpose(turn)  # the caller's image is not changed
        return np.asarray(as_rgb(upright, "image"))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise _wrong(f"a {image.dtype} tensor {tuple(image.shape)}", "a uint8 RGB tensor (3, H, W), values 0..255")
        pixels = image.detach().permute(1, 2, 0).contiguous().cpu()
        return pixels.numpy() if pixels.dtype == torch.uint8 else _from_shares(pixels.double().numpy())
    if not isinstance(image, np.ndarray):
        raise _wrong(f"a {type(image).__name__}", "a path, a Pillow image, an array or a tensor")
    if image.ndim == 3 and image.shape[2] == 3 and np.issubdtype(image.dtype, np.floating):
        return _from_shares(image.astype(np.float64))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise _wrong(f"a {image.dtype} array {image.shape}", "a uint8 RGB array (H, W, 3), values 0..255")
    return image


def label_values(labels: Any) -> NDArray[Any]:
    """The values of a label map, (H, W) or colours (H, W, 3), of a Pillow image as it is, an array or a tensor.

    An axis of length 1 before them, as data sets add it, is dropped.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return values[0] if values.ndim == 3 and values.shape[0] == 1 else values


def _from_shares(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """uint8 of values 0 … 1, as most programs have them before subtracting a mean. Raises UsageError for others."""
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # nor NaN
        raise UsageError(
            f"has floating-point values from {low:.3g} to {high:.3g}",
            where="image",
            remedy="Give 0 … 1, or uint8 0 … 255; the network subtracts means and the like by itself.",
        )
    return np.asarray((image * 255).round(), np.uint8)


def _wrong(found: str, expected: str) -> UsageError:
    several = "; for several images, a list of them" if "(" in found else ""
    return UsageError(f"is {found}", where="image", remedy=f"Give {expected}{several}.")

"""What people call an image, as pixels: a path, a Pillow image, an array or a tensor."""

from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segadapt.data.orientation import turn_to_apply
from segadapt.data.reading import read_rgb
from segadapt.errors import UsageError

AnyImage = Path | str | Image.Image | NDArray[np.uint8] | Tensor


def is_one(image: object) -> TypeGuard[AnyImage]:
    """Whether this is one image, and no list of them."""
    return isinstance(image, (str, Path, Image.Image, np.ndarray, Tensor))


def on_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 RGB images (B, H, W, 3) -> uint8 (B, 3, H, W) there; the host does not wait until a GPU has them."""
    pixels = torch.tensor(images)
    if device.type == "cuda":  # from other memory the host would wait for the copy
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)


def rgb_pixels(image: Any) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W).

    Files, and Pillow images that still carry the tag, are turned as their EXIF says.

    Raises UsageError for another kind, shape or type, SegadaptError for a file that cannot be read as an image.
    """
    if isinstance(image, (str, Path)):
        return np.asarray(read_rgb(Path(image)))
    if isinstance(image, Image.Image):
        turn = turn_to_apply(image, "turn")
        return np.asarray((image if turn is None else image.transpose(turn)).convert("RGB"))
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise _wrong(f"a {image.dtype} tensor {tuple(image.shape)}", "a uint8 RGB tensor (3, H, W), values 0..255")
        return image.detach().permute(1, 2, 0).contiguous().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise _wrong(f"a {type(image).__name__}", "a path, a Pillow image, an array or a tensor")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise _wrong(f"a {image.dtype} array {image.shape}", "a uint8 RGB array (H, W, 3), values 0..255")
    return image


def _wrong(found: str, expected: str) -> UsageError:
    several = "; for several images, a list of them" if "(" in found else ""
    return UsageError(f"is {found}", where="image", remedy=f"Give {expected}{several}.")

"""Images in the target's style: the style transfer of SE-GAN (TMM 2022), batch by batch.

Each image is resized to the generator's input size with Pillow's bicubic filter and passed through it as Caffe pixels
(BGR minus mean); then the mean is added, values are clipped to 0..255 and rounded, and the result is resized (bicubic)
to the original size.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segadapt.data.orientation import Exif
from segadapt.data.reading import read_rgb
from segadapt.inference.memory import need_memory
from segadapt.inference.networks import Precision, ready
from segadapt.inference.replay import Replayed
from segadapt.inference.streams import Flow, Job, StreamResult, run_batches, save_png
from segadapt.inference.transfers import Fetched, pixels_on
from segadapt.models.style_transfer import StyleTransfer

USUAL_SIZE = (1024, 512)  # (W, H) of the published style transfer, for generators that do not record theirs
Pixels = NDArray[np.uint8]


class Stylizer:
    """A generator together with how it processes images.

    `size` (W, H) is the generator's input size; `device` moves it (None: where it is). `truncated` truncates pixels to
    whole numbers as the published program does, instead of rounding them. An inference copy of the generator runs, in
    bfloat16 if `precision` says so; with `plain` the generator itself, under autocast.
    """

    def __init__(
        self,
        network: StyleTransfer,
        size: tuple[int, int],
        *,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        truncated: bool = False,
        plain: bool = False,
    ) -> None:
        network = (network if device is None else network.to(device)).eval()
        self.network = network if plain else ready(network.for_inference(), precision)
        self.size, self.precision, self.truncated = size, precision, truncated
        self.device = next(network.parameters()).device
        remedy = "Give a smaller size; output_size, or each image's own, is that of the copies."
        need_memory(
            self.network, (1, 3, size[1], size[0]), next(self.network.parameters()).dtype, 0, self.device, remedy
        )
        painted = partial(_painted, self.network, truncated, plain and precision == "bf16")
        self._pass = painted if plain or self.device.type != "cuda" else Replayed(painted)

    def __call__(self, images: Sequence[Pixels]) -> Pixels:
        """uint8 RGB images (H, W, 3) of `size` -> the stylized ones, uint8 RGB (B, H, W, 3)."""
        return self.on_device(images).cpu().numpy()

    def on_device(self, images: Sequence[Pixels]) -> Tensor:
        """The same where they are made, for which the host does not wait."""
        on_gpu = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with torch.inference_mode(), on_gpu:
            return self._pass(pixels_on(images, self.device))


def _painted(network: StyleTransfer, truncated: bool, low: bool, pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> the stylized images, uint8 RGB (B, H, W, 3); `low`: under autocast to bf16."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=low):
        styled = network(network.pixels(pixels)).float()
        rgb = network.pixels.inverse(styled).clamp_(0, 255)
        rgb = rgb if truncated else rgb.round_()
        return rgb.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class _Original:
    """An input of the generator."""

    pixels: Pixels  # (H, W, 3) at the generator's size
    size: tuple[int, int]  # (W, H) of the original


def stylize(
    jobs: Sequence[Job],
    stylizer: Stylizer,
    flow: Flow = Flow(batch=2),
    *,
    exif: Exif = "turn",
    output_size: tuple[int, int] | None = None,
    png_level: int = 1,
) -> StreamResult:
    """Write the stylized copy of each job's image as PNG, of `output_size` (W, H) or the image's own size.

    Otherwise as `run_batches`.
    """

    def read(job: Job) -> _Original:
        image = read_rgb(job.image, exif=exif)
        return _Original(np.asarray(image.resize(stylizer.size, Image.Resampling.BICUBIC)), image.size)

    def work(originals: Sequence[_Original]) -> list[tuple[Fetched, tuple[int, int]]]:
        styled = stylizer.on_device([original.pixels for original in originals])
        return [(Fetched(own), output_size or one.size) for own, one in zip(styled, originals, strict=True)]

    def write(job: Job, made: tuple[Fetched, tuple[int, int]]) -> None:
        pixels, size = made
        save_png(job.outputs[0], Image.fromarray(pixels.numpy()).resize(size, Image.Resampling.BICUBIC), png_level)

    return run_batches(jobs, read, work, write, flow)

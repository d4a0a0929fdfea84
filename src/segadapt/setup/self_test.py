"""A short test of what training depends on: steps on each device, writing and reading images, loader processes."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.catalog import Pair
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.loader import Sampled, Steps, batches
from segadapt.data.reading import LabelReader, read_rgb
from segadapt.data.samplers import Choice
from segadapt.devices import Precision, choose_precision
from segadapt.engine.runtime import Runtime
from segadapt.losses import cross_entropy, precise
from segadapt.models import networks
from segadapt.setup.machine import Problem

STEPS = 3
"""Size of the tiny training."""
_SIZE = (64, 32)
_CLASSES = ("left", "right")
_NETWORK = "deeplab_small"
_FORMATS = {".png": True, ".webp": True, ".tif": True, ".jpg": False}
"""Suffix -> whether the format is lossless."""
_OFF = 24
"""Tolerated mean change of a smooth picture's values by JPEG."""


@dataclass(frozen=True)
class Trial:
    """One thing that was tried."""

    name: str
    seconds: float
    failure: str | None = None  # None: it works
    note: str = ""

    def problem(self) -> Problem | None:
        """The problem that it found."""
        if self.failure is None:
            return None
        return Problem("error", self.name, self.failure, "Training would fail here: fix this first.")


def self_test() -> Iterator[Trial]:
    """Try everything in turn; each trial takes a few seconds at most."""
    for device in _devices():
        for precision in _precisions(device):
            yield _tried(f"training on {device} in {precision}", partial(_train, device, precision))
    with tempfile.TemporaryDirectory(prefix="segadapt-doctor-") as folder:
        yield _tried("images written and read", partial(_pictures, Path(folder)))
        yield _tried("loader processes", partial(_workers, Path(folder)))


def _tried(name: str, what: Callable[[], str]) -> Trial:
    start = time.perf_counter()
    try:
        note = what()
    except Exception as error:  # finding errors is the purpose of the trial
        first = (str(error).splitlines() or [""])[0]
        return Trial(name, time.perf_counter() - start, f"{type(error).__name__}: {first:.200}")
    return Trial(name, time.perf_counter() - start, note=note)


def _devices() -> list[torch.device]:
    found = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return [torch.device("cpu"), *(torch.device("cuda", number) for number in found)]


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    fast = device.type == "cpu" or choose_precision("auto", device) == "bf16"
    return ("fp32", "bf16") if fast else ("fp32",)


def _train(device: torch.device, precision: Precision) -> str:
    """A few steps of a small network that learns to tell the dark half of a picture from the light one."""
    runtime = Runtime(device, precision, 0, 1, torch.get_num_threads(), 0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        network = networks.build(_NETWORK, classes=len(_CLASSES), attention=False)
    runtime.place(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, label = _example()
    images = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    labels = torch.from_numpy(label)[None].to(device)
    losses = []
    for _ in range(STEPS):
        with runtime.autocast():
            logits = network(images).logits
        loss = cross_entropy(network.upsample(precise(logits), (_SIZE[1], _SIZE[0])), labels)
        optimizer.zero_grad()
        mean = loss.sum / loss.count
        mean.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(mean.item())
    if not all(np.isfinite(losses)):
        raise ArithmeticError(f"the loss is {losses}")
    if losses[-1] >= losses[0]:
        raise ArithmeticError(f"the loss rises: {losses[0]:.3f}, then {losses[-1]:.3f}")
    emulated = device.type == "cpu" and precision == "bf16" and choose_precision("auto", device) == "fp32"
    return "emulated: slower than fp32 here" if emulated else ""


def _example() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A smooth picture (H, W, 3), dark on the left, and its label map (H, W)."""
    width, height = _SIZE
    ramp = np.linspace(20, 235, width).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2)
    return np.ascontiguousarray(image), np.repeat((ramp > 127).astype(np.uint8)[None], height, axis=0)


def _pictures(folder: Path) -> str:
    """Write an image in each format and read it as data sets do."""
    image, label = _example()
    for suffix, exact in _FORMATS.items():
        path = folder / f"image{suffix}"
        Image.fromarray(image).save(path, lossless=True)  # only WebP heeds this
        read = np.asarray(read_rgb(path)).astype(int)
        far = np.abs(read - image).max() if exact else np.abs(read - image).mean()
        if far > (0 if exact else _OFF):
            raise ValueError(f"{suffix} comes back changed, by {far:.0f} of 255")
    Image.fromarray(label).save(folder / "label.png")
    return ", ".join(suffix[1:] for suffix in _FORMATS)


def _workers(folder: Path) -> str:
    """Read a few batches with two processes, as a training does."""
    space = LabelSpace.from_dict(list(_CLASSES))
    pair = Pair("image.png", folder / "image.png", folder / "label.png")
    data = SegmentationDataset([pair], _SIZE, LabelReader(space, TRAIN), folder)
    steps = Steps(0, 1, Sampled(data, _same), None)
    found = [batch.step for batch in batches(steps, 0, 4, workers=2)]
    if found != [0, 1, 2, 3]:
        raise ValueError(f"batches came as {found}")
    return "2"


def _same(step: int) -> list[Choice]:
    return [Choice(0)]

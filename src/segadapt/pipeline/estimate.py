"""About how long the stages of a plan take and how much disk they fill, before anything is done.

Time: for a stage that goes on, its own steps so far; for all others the counted operations of the network passes over
the rate of a convolution, measured in about a second on this device in this precision. Reading images, optimizers and
small layers are not counted: "about" means within a factor of two.
"""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segadapt.data.dataset import JoinedDataset, TrainingData
from segadapt.engine.checkpoints import Checkpoints
from segadapt.engine.runtime import Runtime
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.inference.settings import PseudoLabelsSettings, StylizeSettings
from segadapt.inference.stylizer import USUAL_SIZE
from segadapt.methods.methods import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models import networks
from segadapt.models.saved import load_any, load_generator
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.pipeline.context import Run
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.stages import PSEUDO_LABELS

EFFICIENCY = 0.6
"""What a network reaches of the rate of its fattest convolutions."""
PNG_BYTES, LABEL_BYTES = 1.8, 0.5
"""Bytes per pixel of a stylized image at low compression, and of a pseudo-label with its confidence."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What is still to be spent on a stage."""

    seconds: float = 0.0
    bytes: int = 0


class Estimator:
    """Costs of stages; measures the device's rate and counts a network's operations once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rate = EFFICIENCY * conv_rate(run.runtime)
        self.counted: dict[tuple[str, Size], float] = {}

    def cost(self, one: Planned) -> Cost:
        """Of what the plan does about a stage."""
        if one.action in ("leave", "skip"):
            return Cost()
        there = 0 if one.action == "begin" else folder_size(one.stage.folder)
        match one.settings:
            case TrainingSettings() as settings:
                seconds, disk = self._training(one, settings)
            case EvaluateSettings() as settings:
                seconds, disk = self._views(settings, len_of(one.data.target_val) + len_of(one.data.source_val)), 0.0
            case StylizeSettings() as settings:
                size = settings.size or self.generator_size(settings.generator)
                images = len_of(one.data.source) - (made(one) if one.action == "go on" else 0)
                seconds = images * self.forward("generator", size) / self.rate / self.run.runtime.ranks
                width, height = settings.output_size or first_size(one.data.source)
                disk = PNG_BYTES * width * height * len_of(one.data.source)
            case PseudoLabelsSettings() as settings:
                images = len_of(one.data.target) - (made(one) if one.action == "go on" else 0)
                seconds = self._views(settings, images) / self.run.runtime.ranks
                width, height = settings.size or self.size_of(settings.model)
                disk = LABEL_BYTES * width * height * len_of(one.data.target)
        return Cost(seconds, max(0, int(disk) - there))

    def _training(self, one: Planned, settings: TrainingSettings) -> tuple[float, float]:
        """(seconds, bytes) of a training stage and its final scores."""
        name = settings.network if isinstance(settings, SegmenterSettings) else "generator"
        size = settings.target_size or settings.size
        weights = 4.0 * sum(p.numel() for p in self.network(name).parameters())
        validation = (one.data.source_val, one.data.target_val) if isinstance(settings, SegmenterSettings) else ()
        each = self.forward(name, size) / self.rate
        seconds = each * sum(len_of(data) for data in validation)
        if settings.stand_in is not None:
            return seconds, weights
        steps = int(one.stage.decided["steps"])
        done = checkpoint_step(one.stage.folder) if one.action == "go on" else 0
        seconds += (steps - done) * (step_seconds(one) or self.step(settings, name))
        models = 2
        if isinstance(settings, SegmenterSettings) and settings.evaluate_every:
            times = steps // settings.evaluate_every - done // settings.evaluate_every
            limit = settings.evaluate_images or math.inf
            seconds += times * each * sum(min(limit, len_of(data)) for data in validation)
            models = 4  # the best by each criterion, too
        states = 2 if settings.optimizer == "adam" else 1
        checkpoint = weights * (getattr(METHODS[settings.method], "copies", 1) + states)
        kept = min(settings.keep + 1, -(-steps // settings.checkpoint_every))
        return seconds, models * weights + kept * checkpoint

    def step(self, settings: TrainingSettings, name: str) -> float:
        """Seconds of an update, from what the method says about its passes."""
        method = METHODS[settings.method]
        passes: Mapping[str, float] = getattr(method, "passes", dict.fromkeys(method.domains, 3.0))
        sizes = {"source": settings.size, "target": settings.target_size or settings.size}
        work = sum(count * self.forward(name, sizes[domain]) for domain, count in passes.items())
        return settings.batch / self.run.runtime.ranks * work / self.rate

    def _views(self, settings: EvaluateSettings | PseudoLabelsSettings, images: int) -> float:
        """Seconds to see images at all scales."""
        size = settings.size or self.size_of(settings.model)
        views = sum(scale**2 for scale in settings.scales) * (2 if settings.mirror else 1)
        return images * views * self.forward(settings.model, size) / self.rate

    def forward(self, name: str, size: Size) -> float:
        """Floating-point operations of one image through a network; see `network` for its name."""
        if (name, size) not in self.counted:
            network = self.network(name)
            kind = torch.uint8 if isinstance(network, Segmenter) else torch.float32
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                network(torch.empty((1, 3, size[1], size[0]), dtype=kind, device="meta"))
            self.counted[name, size] = float(counter.get_total_flops())
        return self.counted[name, size]

    def network(self, name: str) -> nn.Module:
        """`generator`, a network's name, `@stage` or the path of a model -> the network, without memory."""
        if name.startswith("@"):
            before = self.run.recipe.stages[name[1:]]
            name = before.network if isinstance(before, SegmenterSettings) else "generator"
        with torch.device("meta"):
            if name == "generator":
                return StyleTransfer()
            if name in networks.NETWORKS:
                return networks.build(name, classes=len(self.run.space.classes))
        return load_any(self.run.file_of(name), self.run.space).network.to("meta")

    def generator_size(self, reference: str) -> Size:
        """The size that a generator was trained for."""
        if reference.startswith("@"):
            return self.size_of(reference)
        return load_generator(self.run.file_of(reference)).header.size or USUAL_SIZE

    def size_of(self, reference: str) -> Size:
        """The input size of a model."""
        if reference.startswith("@"):
            before = self.run.recipe.stages[reference[1:]]
            assert isinstance(before, TrainingSettings)
            return before.target_size or before.size
        return load_any(self.run.file_of(reference), self.run.space).header.size


def conv_rate(runtime: Runtime, seconds: float = 0.5) -> float:
    """Floating-point operations per second of a 3×3 convolution of 256 channels."""
    convolution = nn.Conv2d(256, 256, 3, padding=1).to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
    images = torch.zeros(1, 256, 64, 64, device=runtime.device).contiguous(memory_format=runtime.memory_format)
    work = 2 * 9 * 256 * 256 * 64 * 64

    def some(times: int) -> float:
        begun = time.perf_counter()
        with torch.no_grad(), runtime.autocast():
            for _ in range(times):
                result = convolution(images)
        result.flatten()[0].item()  # waits for the device
        return time.perf_counter() - begun

    some(2)
    times, took = 1, some(1)
    while took < seconds:
        times *= 2
        took = some(times)
    return times * work / took


def step_seconds(one: Planned) -> float | None:
    """The usual time of an update so far; None before there are some."""
    try:
        lines = (one.stage.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line).get("time/step") for line in lines]
    except (OSError, ValueError, AttributeError):
        return None
    times = [float(value) for value in found if value is not None]
    return median(times[-500:]) if len(times) >= 3 and one.action == "go on" else None


def checkpoint_step(stage: Path) -> int:
    """From where a training would go on."""
    latest = Checkpoints(stage / "checkpoints", 1).latest()
    return 0 if latest is None else int(latest.stem.removeprefix("step_"))


def made(one: Planned) -> int:
    """How many images a stage has put through its network so far."""
    folder = "argmax" if one.stage.kind is PSEUDO_LABELS else "images"
    return sum(1 for _ in (one.stage.folder / folder).rglob("*.png"))


def first_size(data: TrainingData | None) -> Size:
    """Width and height of the first image: data sets seldom mix sizes."""
    assert data is not None
    pairs = data.parts[0].pairs if isinstance(data, JoinedDataset) else data.pairs
    with Image.open(pairs[0].image) as image:
        return image.size


def len_of(data: TrainingData | None) -> int:
    """Number of images; 0 where there is no data."""
    return 0 if data is None else len(data)


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free_disk(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free

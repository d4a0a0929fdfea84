"""About how long the stages of a plan take and how much disk they fill, before anything is done.

Time: for a resumed stage, its own steps so far; for all others counted operations over the rate of a convolution,
measured in about a second on this device in this precision. What a training step costs is counted in one step on a
picture of 64×32 pixels per domain (larger where a network takes none so small), with all networks that the method has.
Reading images and elementwise work are not counted: "about" means within a factor of two.
"""

import math
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from segadapt.batch import Batch, Images
from segadapt.data.dataset import JoinedDataset, TrainingData
from segadapt.data.reading import picture_sizes
from segadapt.engine.checkpoints import Checkpoints
from segadapt.engine.runtime import Runtime
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.inference.settings import PseudoLabelsSettings, StylizeSettings
from segadapt.inference.stylizer import USUAL_SIZE
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models import networks
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.pipeline.context import Run
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.stages import PSEUDO_LABELS
from segadapt.pipeline.time_left import Cost
from segadapt.plain_data import read_json_lines
from segadapt.weights.saved import load_any, load_generator

EFFICIENCY = 0.6
"""What a network reaches of the rate of its fattest convolutions."""
PNG_BYTES, LABEL_BYTES = 1.8, 0.5
"""Bytes per pixel of a stylized image at low compression, and of a pseudo-label with its confidence."""
Size = tuple[int, int]
SMALL = (64, 32)
"""Width and height at which operations are counted."""


class Estimator:
    """Costs of stages; measures the device's rate and counts a network's operations once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rate = EFFICIENCY * conv_rate(run.runtime)
        self.counted: dict[str, tuple[float, int]] = {}  # network -> operations per pixel, bytes of its weights

    def cost(self, one: Planned) -> Cost:
        """Of what the plan does about a stage."""
        if one.action in ("leave", "skip"):
            return Cost()
        there = 0 if one.action == "begin" else folder_size(one.stage.folder)
        updating, ranks = 0.0, self.run.runtime.ranks
        match one.settings:
            case TrainingSettings() as settings:
                updating, disk = self._training(one, settings)
                seeing, images = self._scores(one, settings)
            case EvaluateSettings() as settings:
                images = len_of(one.data.target_val) + len_of(one.data.source_val)
                seeing, disk = self._views(settings, images), 0.0
            case StylizeSettings() as settings:
                size = settings.size or self.generator_size(settings.generator)
                images = -(-(len_of(one.data.source) - (made(one) if one.action == "resume" else 0)) // ranks)
                seeing = images * self.forward("generator", size) / self.rate
                width, height = settings.output_size or first_size(one.data.source)
                disk = PNG_BYTES * width * height * len_of(one.data.source)
            case PseudoLabelsSettings() as settings:
                images = -(-(len_of(one.data.target) - (made(one) if one.action == "resume" else 0)) // ranks)
                seeing = self._views(settings, images)
                width, height = settings.size or self.size_of(settings.model)
                disk = LABEL_BYTES * width * height * len_of(one.data.target)
        return Cost(updating, seeing, images, max(0, int(disk) - there))

    def _scores(self, one: Planned, settings: TrainingSettings) -> tuple[float, int]:
        """(seconds, images) of the scores that end a training."""
        if not isinstance(settings, SegmenterSettings):
            return 0.0, 0
        images = len_of(one.data.source_val) + len_of(one.data.target_val)
        return images * self._each(settings), images

    def _each(self, settings: SegmenterSettings) -> float:
        """Seconds of one image in an evaluation."""
        return self.forward(settings.chosen_network, settings.target_size or settings.size) / self.rate

    def _training(self, one: Planned, settings: TrainingSettings) -> tuple[float, float]:
        """(seconds, bytes) of a training without its final scores."""
        name = settings.chosen_network if isinstance(settings, SegmenterSettings) else "generator"
        weights = self.weights(name)
        if settings.stand_in is not None:
            return 0.0, weights
        steps = int(one.stage.decided["steps"])
        done = checkpoint_step(one.stage.folder) if one.action == "resume" else 0
        done = one.continuation.step if one.action == "continue" and one.continuation is not None else done
        work, checkpoint = self.step(settings)
        usual = settings.batch / self.run.runtime.ranks * work / self.rate
        seconds = (steps - done) * (step_seconds(one) or usual)
        models = 2
        if isinstance(settings, SegmenterSettings) and settings.evaluate_every:
            times = steps // settings.evaluate_every - done // settings.evaluate_every
            limit = settings.evaluate_images or math.inf
            validation = (one.data.source_val, one.data.target_val)
            seconds += times * self._each(settings) * sum(min(limit, len_of(data)) for data in validation)
            models = 4  # the best by each criterion, too
        kept = min(settings.keep + 1, -(-steps // settings.checkpoint_every))
        return seconds, models * weights + kept * checkpoint

    def step(self, settings: TrainingSettings) -> tuple[float, int]:
        """Floating-point operations of an update on one image per domain, and bytes of a checkpoint."""
        pixels = [width * height for width, height in (settings.size, settings.target_size or settings.size)]
        method = METHODS[settings.method].build(Blank(self), settings)
        width, height = counted_size([*method.modules.values(), *method.helpers.values()])
        image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        images = Images(image, torch.zeros(1, height, width, dtype=torch.uint8), ("",))
        update = Updater(method.optimizers, Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0))
        with Counter() as counter:
            update.run(method, Batch(0, (0,), images, images))
        held = [tensor for module in method.modules.values() for tensor in module.state_dict().values()]
        for optimizer in method.optimizers.values():
            held += [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
        share = sum(pixels) / len(pixels) / (width * height)
        return share * counter.operations, sum(tensor.nbytes for tensor in held)

    def _views(self, settings: EvaluateSettings | PseudoLabelsSettings, images: int) -> float:
        """Seconds to see images at all scales."""
        size = settings.size or self.size_of(settings.model)
        views = sum(scale**2 for scale in settings.scales) * (2 if settings.mirror else 1)
        return images * views * self.forward(settings.model, size) / self.rate

    def forward(self, reference: networks.Choice, size: Size) -> float:
        """Floating-point operations of one image through a network; see `network` for what names it."""
        return self._counted(reference)[0] * size[0] * size[1]

    def weights(self, reference: networks.Choice) -> int:
        """Bytes of a network's weights."""
        return self._counted(reference)[1]

    def _counted(self, reference: networks.Choice) -> tuple[float, int]:
        """(operations per pixel, bytes of weights) of a network, counted once."""
        key = str(reference)
        if key not in self.counted:
            network = self.network(reference)
            width, height = counted_size([network])
            kind = torch.uint8 if isinstance(network, Segmenter) else torch.float32
            with Counter() as counter, torch.no_grad():
                network(torch.zeros((1, 3, height, width), dtype=kind))
            weights = sum(4 * p.numel() for p in network.parameters())
            self.counted[key] = counter.operations / (width * height), weights
        return self.counted[key]

    def network(self, reference: networks.Choice, attention: bool = False) -> nn.Module:
        """`generator`, a network as a recipe chooses it, `@stage` or the path of a model -> the network.

        One without a file is all zero.
        """
        name = reference
        if isinstance(name, str) and name.startswith("@"):
            before = self.run.recipe.stages[name[1:]]
            name = before.chosen_network if isinstance(before, SegmenterSettings) else "generator"
        if isinstance(name, str) and name != "generator" and name not in networks.NETWORKS:
            return load_any(self.run.file_of(name), self.run.space).network
        with torch.device("meta"):  # drawing the weights of a large network takes longer than all else here
            blank: nn.Module = StyleTransfer()
            if name != "generator":
                blank = networks.build(name, classes=len(self.run.space.classes), attention=attention)
        blank.to_empty(device="cpu")
        for tensor in blank.state_dict().values():
            tensor.zero_()
        return blank

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


class Blank:
    """The `Networks` of an estimate: all zero, and no file of initial weights is read."""

    length = 1

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        network = self.estimator.network(settings.chosen_network, attention)
        assert isinstance(network, Segmenter)
        return network

    def saved_segmenter(self, reference: str) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        network = self.estimator.network(reference)
        assert isinstance(network, Segmenter)
        return network

    def fill(self, module: StyleTransfer | Discriminator, name: str, file: str | Path | None) -> None:
        """See `segadapt.methods.method.Networks`."""


def costs(run: Run, planned: Sequence[Planned]) -> dict[str, Cost]:
    """Stage -> its cost; random numbers of whoever is at work are left as they are."""
    with torch.random.fork_rng(devices=[]):
        estimator = Estimator(run)
        return {one.stage.name: estimator.cost(one) for one in planned}


def counted_size(modules: Iterable[nn.Module]) -> Size:
    """Width and height at which operations are counted: `SMALL`, or what the largest stride asks for."""
    smallest = max((module.smallest_input for module in modules if isinstance(module, Segmenter)), default=0)
    return max(SMALL[0], smallest), max(SMALL[1], smallest)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of convolutions and matrix products, forward and backward.

    PyTorch's own FlopCounterMode also says where they are spent, which takes many times as long.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No guard against torch.compile around each call: it takes longer than the call, and nothing is compiled."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=result)
        return result


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
        found = [line.get("time/step") for _, line in read_json_lines(one.stage.folder / "metrics.jsonl")]
    except UsageError:
        return None
    times = [value for value in found if isinstance(value, float)]
    return median(times[-500:]) if len(times) >= 3 and one.action == "resume" else None


def checkpoint_step(stage: Path) -> int:
    """From where a training would resume."""
    latest = Checkpoints(stage / "checkpoints", 1).latest()
    return 0 if latest is None else int(latest.stem.removeprefix("step_"))


def made(one: Planned) -> int:
    """How many images a stage has put through its network so far."""
    folder = "argmax" if one.stage.kind is PSEUDO_LABELS else "images"
    return sum(1 for _ in (one.stage.folder / folder).rglob("*.png"))


def first_size(data: TrainingData | None) -> Size:
    """Width and height of the first image: data sets seldom mix sizes."""
    assert data is not None
    first = data.parts[0] if isinstance(data, JoinedDataset) else data
    return picture_sizes(first.pairs[0].image).of(first.exif)


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

"""What kinds of stages estimate their cost with: how long networks take here, before anything is done.

For a resumed stage, its own steps so far; for all others counted operations over the rate of a convolution, measured in
some tenths of a second on this device in this precision. What a training step costs is counted in one step on a picture
of 64×32 pixels per domain (larger where a network takes none so small), with all networks that the method has. Reading
images and elementwise work are not counted: "about" means within a factor of two.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from segadapt.batch import Batch, Images
from segadapt.data.dataset import TrainingData
from segadapt.data.reading import picture_sizes
from segadapt.engine.runtime import Runtime
from segadapt.engine.updater import Updater
from segadapt.inference.stylizer import USUAL_SIZE
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models import networks
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.stages.context import Run
from segadapt.weights.saved import load_any, load_generator

EFFICIENCY = 0.6
"""What a network reaches of the rate of its fattest convolutions."""
PNG_BYTES, LABEL_BYTES = 1.8, 0.5
"""Bytes per pixel of a stylized image at low compression, and of a pseudo-label with its confidence."""
GENERATOR_NETWORK = "generator"
"""The style transfer network, among the names of networks."""
Size = tuple[int, int]
SMALL = (64, 32)
"""Width and height at which operations are counted."""


class Estimator:
    """Costs of stages; measures the device's rate and counts a network's operations once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rate = EFFICIENCY * conv_rate(run.runtime)
        self.counted: dict[str, tuple[float, int]] = {}  # network -> operations per pixel, bytes of its weights

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

    def view_seconds(self, model: str, size: Size, scales: Sequence[float], mirror: bool) -> float:
        """Seconds to see an image at all scales."""
        views = sum(scale**2 for scale in scales) * (2 if mirror else 1)
        return views * self.forward(self.network_of(model), size) / self.rate

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
        if isinstance(name, str) and name != GENERATOR_NETWORK and name not in networks.NETWORKS:
            return load_any(self.run.file_of(name), self.run.space).network
        with torch.device("meta"):  # drawing the weights of a large network takes longer than all else here
            blank: nn.Module = StyleTransfer()
            if name != GENERATOR_NETWORK:
                blank = networks.build(name, classes=len(self.run.space.classes), attention=attention)
        blank.to_empty(device="cpu")
        for tensor in blank.state_dict().values():
            tensor.zero_()
        return blank

    def network_of(self, reference: str) -> networks.Choice:
        """A name for `network`: what the stage that is named by `@stage` gives; else a path, as it is."""
        if not reference.startswith("@"):
            return reference
        name = reference[1:]
        found = self.run.kinds[name].network(self.run.recipe.stages[name])
        assert found is not None, f"{reference} gives no network"
        return found

    def size_of(self, reference: str) -> Size:
        """The input size of a model."""
        return self._planned_size(reference) or load_any(self.run.file_of(reference), self.run.space).header.size

    def generator_size(self, reference: str) -> Size:
        """The size that a generator was trained for."""
        return self._planned_size(reference) or load_generator(self.run.file_of(reference)).header.size or USUAL_SIZE

    def _planned_size(self, reference: str) -> Size | None:
        """Of what a stage of the recipe gives; None for a file."""
        if not reference.startswith("@"):
            return None
        name = reference[1:]
        return self.run.kinds[name].network_size(self.run.recipe.stages[name])


class Blank:
    """The `Networks` of an estimate: all zero, and no file of initial weights is read."""

    length = 1
    things: tuple[int, ...] = ()

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        network = self.estimator.network(settings.chosen_network, attention)
        assert isinstance(network, Segmenter)
        return network

    def saved_segmenter(self, reference: str) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        network = self.estimator.network(self.estimator.network_of(reference))
        assert isinstance(network, Segmenter)
        return network

    def fill(self, module: StyleTransfer | Discriminator, name: str, file: str | Path | None) -> None:
        """See `segadapt.methods.method.Networks`."""


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


def conv_rate(runtime: Runtime, seconds: float = 0.1) -> float:
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


def first_size(data: TrainingData | None) -> Size:
    """Width and height of the first image: data sets seldom mix sizes."""
    assert data is not None
    first = data.leaves[0]
    return picture_sizes(first.pairs[0].image).of(first.exif)


def len_of(data: TrainingData | None) -> int:
    """Number of images; 0 where there is no data."""
    return 0 if data is None else len(data)

"""Layers that segadapt writes otherwise than the published programs, forward and backward, beside the usual way.

Both in the same precision and on the same maps, so that the ratio shows what the writing gives by itself. `head`:
`AtrousHead` beside its four convolutions; `bottleneck`: one of ResNet-101's with frozen batch norms, beside convolution
and PyTorch's batch norm one after another.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.batch_norm import BatchNorm2d
from segadapt.engine.runtime import Runtime
from segadapt.models.deeplab_v2 import FEATURE_CHANNELS, MIDDLE_CHANNELS, Bottleneck
from segadapt.models.heads import AtrousHead
from suite.measure import in_turns
from suite.rows import OURS, REFERENCE, Row, row_of
from suite.sizes import Size, shown
from suite.trainings import CLASSES

STRIDE = 8


@dataclass(frozen=True)
class Layer:
    """A layer, and the usual way to write it."""

    name: str
    module: nn.Module
    channels: int  # of its input
    usual: Callable[[nn.Module, Tensor], Tensor]


def layers() -> list[Layer]:
    """Fresh ones, with norms that do something."""
    middle = Bottleneck(MIDDLE_CHANNELS, 256, 1, 2, first=False)
    last = Bottleneck(FEATURE_CHANNELS, 512, 1, 4, first=False)
    for block in (middle, last):
        for norm in (module for module in block.modules() if isinstance(module, BatchNorm2d)):
            assert norm.running_var is not None
            nn.init.uniform_(norm.running_var, 0.5, 2)
            norm.eval().requires_grad_(False)
    return [
        Layer(f"head, {MIDDLE_CHANNELS} features", AtrousHead(MIDDLE_CHANNELS, CLASSES), MIDDLE_CHANNELS, usual_head),
        Layer(
            f"head, {FEATURE_CHANNELS} features", AtrousHead(FEATURE_CHANNELS, CLASSES), FEATURE_CHANNELS, usual_head
        ),
        Layer(f"bottleneck, {MIDDLE_CHANNELS} features", middle, MIDDLE_CHANNELS, usual_bottleneck),
        Layer(f"bottleneck, {FEATURE_CHANNELS} features", last, FEATURE_CHANNELS, usual_bottleneck),
    ]


def usual_head(head: nn.Module, features: Tensor) -> Tensor:
    """Convolution by convolution."""
    assert isinstance(head, AtrousHead)
    logits, *others = (conv(features) for conv in head.convs)
    for more in others:
        logits = logits + more
    return logits  # type: ignore[no-any-return]


def usual_bottleneck(block: nn.Module, inputs: Tensor) -> Tensor:
    """As everybody writes it."""
    assert isinstance(block, Bottleneck)
    features = F.relu(block.bn1(block.conv1(inputs)), inplace=True)
    features = F.relu(block.bn2(block.conv2(features)), inplace=True)
    return F.relu(block.bn3(block.conv3(features)) + inputs, inplace=True)


def layer_rows(image: Size, runtimes: Sequence[Runtime], rounds: int) -> Iterator[Row]:
    """A row per layer and precision; maps have an eighth of the image's size."""
    width, height = (side // STRIDE + 1 for side in image)
    for runtime in runtimes:
        torch.manual_seed(0)
        maps_type = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
        for layer in layers():
            plain = copy.deepcopy(layer.module)
            for module in plain.modules():
                if type(module) is BatchNorm2d:
                    module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
            for module in (layer.module, plain):
                runtime.place(module)
            maps = torch.rand(1, layer.channels, height, width, device=runtime.device).to(maps_type)
            maps = maps.to(memory_format=runtime.memory_format).requires_grad_()
            works: dict[str, Callable[[Tensor], object]] = {
                OURS: partial(both_ways, layer.module, nn.Module.__call__, runtime),
                REFERENCE: partial(both_ways, plain, layer.usual, runtime),
            }
            times = in_turns(works, partial(_same, maps), rounds, runtime.device)
            size_shown, precision = shown((width, height)), runtime.precision
            yield row_of("layers", layer.name, times, size=size_shown, unit="call", precision=precision)


def both_ways(
    module: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor], runtime: Runtime, maps: Tensor
) -> tuple[Tensor, ...]:
    """Forward and backward once -> the gradients of maps and weights."""
    with runtime.autocast():
        given = forward(module, maps)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.autograd.grad(given.float().square().sum(), [maps, *learned])


def _same(maps: Tensor, round_number: int) -> Tensor:
    return maps

"""The methods with their published networks and settings, and batches for them; with another network for a quick look.

Quirks are off, as in the default recipes; the size of a rare class is the published one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segadapt.batch import Batch, Images
from segadapt.engine.runtime import Runtime
from segadapt.engine.updater import Updater
from segadapt.methods.adaptsegnet import AdaptSegNetSettings
from segadapt.methods.dacs import DacsSettings
from segadapt.methods.daformer import DaformerSettings
from segadapt.methods.method import Method
from segadapt.methods.mic import MicSettings
from segadapt.methods.registry import METHODS
from segadapt.methods.se_gan import SeGanSettings
from segadapt.methods.sean import SeanSettings
from segadapt.methods.self_training import SelfTrainingSettings
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.methods.tgstn import TgstnSettings
from segadapt.methods.vfm_uda import VfmUdaSettings
from segadapt.models.networks import build
from segadapt.models.segmenter import Segmenter
from suite.sizes import Size, Sizes

CLASSES = 19
STEPS = 80_000  # of the schedules; none is reached
VGG, RESNET = "deeplab_vgg16", "deeplab_resnet101"
_RESNET_SGD = {"network": RESNET, "optimizer": "sgd", "lr": 2.5e-5, "head_lr": 10}
_PUBLISHED: dict[str, tuple[type[TrainingSettings], dict[str, Any]]] = {
    "source_only": (SourceOnlySettings, {"network": VGG, "lr": 1e-4}),
    "adaptsegnet": (AdaptSegNetSettings, _RESNET_SGD | {"lr": 2.5e-4, "weight_decay": 5e-4}),
    "sean": (SeanSettings, {"network": VGG, "ema_warmup": False}),
    "tgstn": (TgstnSettings, {"segmenter": "@none", "lr": 5e-4}),
    "se_gan": (SeGanSettings, _RESNET_SGD | {"rare_pixels": 4096, "ema_warmup": False, "schedule_steps": STEPS}),
    "self_training": (SelfTrainingSettings, _RESNET_SGD | {"rare_pixels": 4096, "labels": "@none"}),
}
TIMED = tuple(_PUBLISHED)
"""The methods that are timed beside a reference; `target_trained` is `source_only` on other images."""
_TRANSFORMER = {"network": {"name": "segformer", "size": "b5"}, "optimizer": "adamw", "lr": 6e-5, "head_lr": 10}
_PUBLISHED |= {
    "dacs": (DacsSettings, _RESNET_SGD | {"lr": 2.5e-4}),
    "daformer": (DaformerSettings, _TRANSFORMER),
    "mic": (MicSettings, _TRANSFORMER),
    "vfm_uda": (VfmUdaSettings, {"network": {"name": "dinov2", "size": "b"}, "optimizer": "adamw", "lr": 1e-5}),
}
EVERY = tuple(_PUBLISHED)
"""These, and the methods that have no reference here."""


@dataclass(frozen=True)
class Setup:
    """What all trainings of a benchmark share."""

    sizes: Sizes
    network: str | None = None  # instead of the published ones
    checkpointing: bool = False  # activations are computed again in the backward pass instead of being kept
    accumulate: int = 1  # micro-batches of one image, of which a batch consists


@dataclass(frozen=True)
class Case:
    """A method, ready to step on a device."""

    name: str
    method: Method
    settings: TrainingSettings
    update: Updater
    runtime: Runtime
    size: Size  # of source images
    target_size: Size

    def batch(self, step: int) -> Batch:
        """A random batch, on the device: one image per domain and micro-batch."""
        return random_batch(self.size, self.target_size, step, self.update.accumulate).to(self.runtime.device)


def published_settings(name: str, network: str | None, size: Size, target_size: Size) -> TrainingSettings:
    """A method's published settings, with another `network` if one is given."""
    kind, values = _PUBLISHED[name]
    values = {"steps": STEPS, "size": size, "target_size": target_size, **values}
    if network is not None and issubclass(kind, SegmenterSettings):
        values["network"] = network
    return kind.model_validate(values)


def make_case(name: str, setup: Setup, runtime: Runtime) -> Case:
    """The method over fresh networks, the same ones each time, on the runtime's device."""
    torch.manual_seed(0)
    size, target_size = setup.sizes.training(name)
    settings = published_settings(name, setup.network, size, target_size)
    method = METHODS[name].build(Fresh(setup.network or VGG), settings)
    for module in (*method.modules.values(), *method.helpers.values()):
        set_checkpointing(module, setup.checkpointing)
        runtime.place(module)
    update = Updater(method.optimizers, runtime, setup.accumulate)
    return Case(name, method, settings, update, runtime, size, target_size)


class Fresh:
    """The `Networks` of a benchmark: fresh weights, and for `saved_segmenter` a fresh network of this name."""

    length = STEPS
    things: tuple[int, ...] = ()

    def __init__(self, saved: str) -> None:
        self.saved = saved

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        return build(settings.network, classes=CLASSES, attention=attention)

    def saved_segmenter(self, reference: str) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        return build(self.saved, classes=CLASSES)

    def fill(self, module: nn.Module, name: str, file: str | Path | None) -> None:
        """See `segadapt.methods.method.Networks`."""


def set_checkpointing(module: nn.Module, on: bool) -> None:
    """Whether a segmenter computes its activations again in the backward pass (`Segmenter.checkpointing`)."""
    if isinstance(module, Segmenter):
        module.checkpointing = on


def random_batch(size: Size, target_size: Size, step: int, count: int = 1) -> Batch:
    """`count` source and as many target images of noise, labels in blocks."""
    generator = torch.Generator().manual_seed(step)
    parts = []
    for width, height in (size, target_size):
        image = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, CLASSES, (count, -(-height // 8), -(-width // 8)), generator=generator).byte()
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()
        parts.append(Images(image.permute(0, 3, 1, 2), labels, (f"random {step}",) * count))
    return Batch(step, tuple(range(step * count, (step + 1) * count)), *parts)

"""Any registered method over tiny networks that draw in every way: a few updates, run in one way or another."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from by_hand import CPU, batch
from forgetful import Forgetful
from plugged import EXAMPLES
from segadapt.batch import Batch
from segadapt.engine import ranks
from segadapt.engine.runtime import Runtime
from segadapt.engine.updater import Updater
from segadapt.methods.method import Method
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings
from segadapt.models.discriminators import doubling
from segadapt.models.segmenter import Segmenter
from segadapt.plugin_loading import load_plugin

STEPS, SIZE = 3, 4
COMMON: dict[str, Any] = {"steps": STEPS, "batch": SIZE, "size": [32, 32], "optimizer": "sgd", "lr": 1e-2, "ema": 0.5}
COMMON["weight_decay"] = 0.0  # a head without a loss has no gradient, but zeros when compiled: then it would decay
TELLING: dict[str, dict[str, Any]] = {
    "sean": {"noise": 5.0, "attention_threshold": 0.45},
    "se_gan": {"noise": 5.0, "auxiliary_consistency": 0.1, "lr_discriminator": 1e-4, "discriminator_width": 8},
    "tgstn": {"discriminator_width": 8},
    "class_mix": {"confidence": 0.21},
    "dacs": {"threshold": 0.21},
    "daformer": {"threshold": 0.21, "thing_ratio": 0.51, "feature_distance": 0.1},
    "vfm_uda": {"threshold": 0.21, "mask_block": 8},
    "mic": {"threshold": 0.21, "thing_ratio": 0.51, "feature_distance": 0.1, "mask_block": 8},
}
"""Settings under which all of a method's terms count for something on such networks; others have their defaults."""


class Tiny:
    """The `Networks` of these tests."""

    length = STEPS
    things: tuple[int, ...] = (0, 1)

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        return Forgetful(heads=2, attention=attention)

    def saved_segmenter(self, reference: str) -> Segmenter:
        return Forgetful()

    def fill(self, module: nn.Module, name: str, file: str | Path | None) -> None:
        pass


def made(name: str, runtime: Runtime = CPU, accumulate: int = 1, checkpointing: bool = False) -> Method:
    """The method with its fresh networks, the same ones each time, in their place."""
    kind = METHODS[name].settings_type
    needed = {key: "@before" for key, about in kind.model_fields.items() if about.is_required()}
    given = {key: value for key, value in (COMMON | TELLING.get(name, {})).items() if key in kind.model_fields}
    settings = kind.model_validate(needed | given | {"accumulate": accumulate})
    torch.manual_seed(0)
    with patch("segadapt.methods.adaptsegnet.WIDTHS", doubling(8)):  # which no recipe can change
        method = METHODS[name].build(Tiny(), settings)
    for module in (*method.modules.values(), *method.helpers.values()):
        if isinstance(module, Segmenter):
            module.checkpointing = checkpointing
        runtime.place(module)
    return method


def given(name: str, step: int) -> Batch:
    """The whole batch of a step, both domains of one size; target labels only for those that learn from them."""
    learned = METHODS[name].labelled == "target" or "labels" in METHODS[name].settings_type.model_fields
    whole = batch(step, SIZE, target_labels=learned)
    assert whole.source is not None and whole.source.labels is not None
    images, labels = whole.source.images[..., :32], whole.source.labels[..., :32]
    return replace(whole, source=replace(whole.source, images=images, labels=labels))


@dataclass
class Outcome:
    """What some updates gave."""

    losses: list[dict[str, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)  # of all modules


def updated(
    name: str,
    method: Method,
    runtime: Runtime = CPU,
    accumulate: int = 1,
    steps: range = range(STEPS),
    share: Callable[[Batch], Batch] = lambda whole: whole,
) -> Outcome:
    """Run these steps."""
    updater, outcome = Updater(method.optimizers, runtime, accumulate), Outcome()
    for step in steps:
        values = updater.run(method, share(given(name, step)))
        outcome.losses.append({key: float(value) for key, value in values.items()})
    assert not int(updater.skipped)
    for module_name, module in method.modules.items():
        outcome.weights |= {f"{module_name}.{key}": value.clone() for key, value in module.state_dict().items()}
    return outcome


def plain(name: str) -> Outcome:
    """One rank, one micro-batch, nothing special."""
    return updated(name, made(name))


def on_a_rank(names: list[str], file: Path) -> None:
    """What each of two ranks does with all methods, in float64; rank 0 writes what came out to a file."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    load_plugin(EXAMPLES / "own_method.py")
    found = {}
    with ranks.group(cuda=False):
        runtime = replace(CPU, ranks=2, rank=torch.distributed.get_rank())
        for name in names:
            method = made(name, runtime)
            found[name] = vars(updated(name, method, runtime, share=lambda whole: whole.split(2)[runtime.rank]))
    if runtime.is_main:
        torch.save(found, file)

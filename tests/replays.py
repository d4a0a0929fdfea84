"""The recorded traces, trained again as a user would: shipped official recipes on the recorded images and weights.

`tolerances.py` says how close they come.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from recorded import (
    deeplab_multi_start,
    pseudo_labels,
    sean_start,
    segan_discriminators,
    tgstn_discriminator,
    trace,
    transformer_net_start,
    vgg_base_19,
    vgg_base_start,
)
from segadapt.config.load import load_recipe
from segadapt.config.recipe_files import read_tree, shipped_recipes
from segadapt.pipeline.run import run_recipe
from segadapt.weights.key_map import own_name
from segadapt.weights.vgg16 import PUBLISHED_VGG
from tiny_runs import last_checkpoint, metrics

TRACES = (
    "sean_gta5",
    "sean_gta5_threshold05",
    "pretrain_vgg_gta5",
    "se_gan_gta5",
    "self_training_gta5",
    "tgstn_gta5",
)
STEPS = 6
SE_GAN = "se_gan_gta5_cityscapes_official"
SEAN = "sean_gta5_cityscapes_official"
NETWORKS = {
    "student_net": "student",
    "teacher_net": "teacher",
    "D_net1": "discriminator1",
    "D_net2": "discriminator2",
    "selftrain_net": "network",
    "trans_net": "generator",
    "D_net": "discriminator",
}
"""Network of the published program -> module of our method."""

Weights = dict[str, Tensor]
Change = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Trained:
    """What a trace records: losses of each step, and (sum, norm) of each parameter after the last one."""

    losses: list[dict[str, float]]
    weights: dict[str, dict[str, tuple[float, float]]]
    gradients: list[Tensor]  # of the first update: of the player that learns first; the recordings have none


def recorded_training(name: str) -> Trained:
    """The trace `name`, without its scores."""
    content = trace(name)
    losses = [{key: value for key, value in step.items() if not key.endswith("miou")} for step in content["steps"]]
    weights = {
        network: {key: (of["sum"], of["norm"]) for key, of in parameters.items()}
        for network, parameters in content["weights_after_last_step"].items()
    }
    return Trained(losses, weights, [])


def replay(name: str, micro: Path, folder: Path, steps: int = STEPS, change: Change = dict, *more: str) -> Trained:
    """Train the first `steps` of the trace `name` in `folder`, in PyTorch's default dtype.

    `micro`: the recorded images (`write_micro`). `change`: what becomes of the recorded initial weights. `more`:
    settings of the stage that come after those of the recording.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def saved(file: str, weights: Weights) -> Path:
        torch.save(change(weights), folder / file)
        return folder / file

    recipe, stage, start, settings = _setting(name, micro, folder, saved)
    changes = [
        "shuffle=false",
        "optimizer_path=single",
        f"start={saved('start.pth', start)}",
        *settings,
        "epochs=null",
        f"steps={steps}",
        *more,
    ]
    data = [
        f"data.source.root={micro / 'GTA5'}",
        "data.source.holdout=0",
        f"data.target.root={micro / 'Cityscapes'}",
    ]
    stages = read_tree(shipped_recipes()[recipe])["stages"]
    others = [f"stages.{other}=null" for other in stages if other != stage]
    ours = [f"stages.{stage}.{setting}" for setting in changes]
    with bare_runs(), _first_gradients() as gradients:
        run_recipe(load_recipe(recipe, [*data, *ours, *others]), folder / "run")
    return _trained(name, folder / "run" / stage, gradients)


@contextmanager
def bare_runs() -> Iterator[None]:
    """Runs train, and do nothing that is no part of a trace: no scores, no report, no estimate of the time left.

    An estimate is an update of its own, which may come in the middle of a training that takes long.
    """
    with (
        patch("segadapt.stages.train.after_training", return_value=None),
        patch("segadapt.pipeline.run_page.write_report"),
        patch("segadapt.pipeline.run.costs", return_value={}),
    ):
        yield


@contextmanager
def _first_gradients() -> Iterator[list[Tensor]]:
    """Yields a list that gets the gradients of the very first optimizer step (in float32, which has room for them)."""
    gradients: list[Tensor] = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        if not gradients:
            parameters = dict.fromkeys(p for group in optimizer.param_groups for p in group["params"])
            gradients.extend(p.grad.to(torch.float32, copy=True) for p in parameters if p.grad is not None)

    hook = register_optimizer_step_pre_hook(note)
    try:
        yield gradients
    finally:
        hook.remove()


def _setting(
    name: str, micro: Path, folder: Path, saved: Callable[[str, Weights], Path]
) -> tuple[str, str, Weights, list[str]]:
    """Recipe, stage, initial weights and settings of a trace."""
    small, unseen = "size=[128, 64]", ["evaluate_every=0"]
    if name.startswith("sean"):
        threshold = trace(name)["setting"]["attention_threshold"]
        return SEAN, "sean", sean_start(), [small, *unseen, "noise=0", f"attention_threshold={threshold}"]
    if name == "pretrain_vgg_gta5":
        adam = ["official=true", "lr=1.0e-4", "schedule=polynomial", f"schedule_steps={STEPS}"]
        return "source_only_gta5_cityscapes", "source_only", vgg_base_start(), [small, *unseen, *adam]
    if name == "se_gan_gta5":
        players = [saved(f"discriminator{n}.pth", weights) for n, weights in enumerate(segan_discriminators(), 1)]
        sizes = ["size=[160, 96]", "target_size=[128, 64]", *unseen]
        copies = f"extra_source={micro / 'TGSTN' / 'GTA' / 'images'}"
        return SE_GAN, "se_gan", deeplab_multi_start(), [*sizes, copies, f"discriminators=[{players[0]}, {players[1]}]"]
    if name == "self_training_gta5":
        labels = folder / "labels"
        labels.mkdir()
        for image, content in pseudo_labels().items():
            Image.fromarray(content).save(labels / f"{image}_PseudoLabel.png")
        steps = ["batch=1", "schedule_steps=20000"]
        return SE_GAN, "self_training", deeplab_multi_start(), [small, *unseen, f"labels={labels}", *steps]
    assert name == "tgstn_gta5"
    others = [
        f"segmenter={saved('segmenter.pth', vgg_base_19())}",
        f"discriminator={saved('discriminator.pth', tgstn_discriminator())}",
    ]
    return SE_GAN, "style", transformer_net_start(), [small, "batch=1", f"schedule_steps={STEPS}", *others]


def _trained(name: str, stage: Path, gradients: list[Tensor]) -> Trained:
    recorded = recorded_training(name)
    losses = []
    for line, expected in zip(metrics(stage), recorded.losses, strict=False):
        values = {key: line[f"loss/{key}"] for key in expected}
        if name.startswith("sean"):
            values["consistency"] *= 0.3  # the recorded term is weighted
        losses.append(values)
    modules: dict[str, Any] = last_checkpoint(stage)["modules"]
    weights: dict[str, dict[str, tuple[float, float]]] = {}
    for network, parameters in recorded.weights.items():
        module = "network" if name == "pretrain_vgg_gta5" else NETWORKS[network]
        assert len(modules[module]) == len(parameters)
        weights[network] = {}
        for key in parameters:
            tensor = modules[module][own_name(key, PUBLISHED_VGG) or key.replace("conv2d_list", "convs")].double()
            weights[network][key] = float(tensor.sum()), float(tensor.norm())
    return Trained(losses, weights, gradients)

"""The recorded traces of DACS, DAFormer and MIC, trained again: shipped official recipes on the recorded crops.

What the published program drew is taken from the recording: `recorded_draws` puts it in the place of the functions that
draw. Everything else is a run as a user's.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from recorded import tensor, trace
from recorded.images import UNLABELLED, scene
from replays import bare_runs
from segadapt.augment.colour import JitterDraws
from segadapt.augment.strong import StrongDraws
from segadapt.batch import Batch
from segadapt.config.load import load_recipe
from segadapt.data.loader import Steps
from segadapt.methods.method import Method
from segadapt.methods.mixing import PseudoLabels, weighed
from segadapt.models import networks
from segadapt.models.hrda import Hrda
from segadapt.pipeline.run import run_recipe
from segadapt.stages import training
from tiny_runs import last_checkpoint, metrics

TRACES = (
    "dacs",
    "daformer",
    "daformer_same_start",
    "mic_daformer",
    "mic_daformer_augmented",
    "mic_daformer_mixed_domains",
    "hrda",
    "mic_hrda",
)
NETWORK = {"name": "segformer", "size": "b0", "dropout": 0.0, "drop_path": 0.0}
HRDA = {"name": "hrda", "of": NETWORK, "boxes": "batch", "reach_border": False}
TERMS = {
    "decode.loss_seg": ("seg", 0.9),
    "decode.hr.loss_seg": ("seg_detail", 0.1),
    "src.loss_imnet_feat_dist": ("feature", 0.005),
    "mix.decode.loss_seg": ("mixed", 0.9),
    "mix.decode.hr.loss_seg": ("mixed_detail", 0.1),
    "masked.decode.loss_seg": ("masked", 0.9),
    "masked.decode.hr.loss_seg": ("masked_detail", 0.1),
}
"""Recorded loss -> our term, and its weight in the recording; 0.9 is 1 without details."""
RECIPES = {"daformer_same_start": "daformer", "mic_hrda": "mic"} | {
    name: "mic_daformer" for name in TRACES if name.startswith("mic_daformer")
}

Weights = dict[str, Tensor]


@dataclass
class Replayed:
    """What came of a trace."""

    losses: list[dict[str, float]] = field(default_factory=list)  # by their recorded names
    pseudo: list[PseudoLabels] = field(default_factory=list)  # of each step
    gradients: dict[str, float] = field(default_factory=dict)  # norms, before the first update
    weights: dict[str, Weights] = field(default_factory=dict)  # student and teacher


def replay(name: str, folder: Path) -> Replayed:
    """Train the trace `name` in `folder`, in PyTorch's default dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    content = trace(name)
    setting = content["setting"]
    write_crops(setting, folder)
    saved = {key: folder / f"{key}.pth" for key in ("start", "frozen")}
    network = HRDA if setting["network"] == "hrda" else NETWORK
    torch.save(start_of(network, setting["prefix"]), saved["start"])
    recipe = f"{RECIPES.get(name, name)}_gta5_cityscapes_official"
    changes = {**changes_of(setting), "start": str(saved["start"])}
    if setting.get("feature_distance") and setting["frozen_prefix"] not in ("start", setting["prefix"]):
        torch.save(start_of(network, setting["frozen_prefix"]), saved["frozen"])
        changes["feature_start"] = str(saved["frozen"])
    data = [f"data.{d}.{key}={value}" for d in ("source", "target") for key, value in DATA.items()]
    roots = [f"data.{d}.root={folder / d}" for d in ("source", "target")]
    ours = [f"stages.adapt.{key}={written(value)}" for key, value in changes.items()]
    found = Replayed()
    with ExitStack() as stack:
        stack.enter_context(bare_runs())
        stack.enter_context(recorded_draws(content))
        stack.enter_context(noted(found))
        run_recipe(load_recipe(recipe, [*data, *roots, *ours]), folder / "run")
    stage = folder / "run" / "adapt"
    for line, step in zip(metrics(stage), content["steps"], strict=True):
        terms = {key: TERMS[key] for key in step["losses"] if key in TERMS}
        plain = 1.0 if "loss/seg_detail" in line else 0.9
        found.losses.append(
            {
                key: line[f"loss/{own}"] * (weight / plain if weight == 0.9 else weight)
                for key, (own, weight) in terms.items()
            }
        )
    for network, tensors in last_checkpoint(stage)["modules"].items():
        found.weights[network] = {published_name(key): value for key, value in tensors.items()}
    found.gradients = {published_name(key): norm for key, norm in found.gradients.items()}
    return found


DATA = {"layout": "folder", "images": "images", "labels": "labels", "encoding": "train", "holdout": 0}


def changes_of(setting: dict[str, Any]) -> dict[str, Any]:
    """What a trace has otherwise than the recipe."""
    size = [setting["crop"], setting["crop"]]
    none = {"keep_aspect": False, "crop": None, "crop_max_share": None, "mirror": 0}
    changes = {
        "network": HRDA if setting["network"] == "hrda" else NETWORK,
        "size": size,
        "target_size": size,
        "steps": setting["steps"],
        "schedule_steps": setting["max_iters"],
        "warmup_steps": setting["warmup_iters"],
        "sampler": "in_order",
        "target_sampler": "in_order",
        "rare_classes": None,
        "ema": setting["alpha"],
        "threshold": setting["pseudo_threshold"],
        "margins": [setting["ignore_top"], setting["ignore_bottom"]],
        "evaluate_every": 0,
        "log_every": 1,
        "optimizer_path": "single",
        **{f"augment.{key}": value for key, value in none.items()},
        "target_augment": {},
    }
    if setting.get("mask_mode"):
        changes |= {"mask_block": setting["mask_block"], "mask_ratio": setting["mask_ratio"]}
        changes["masked_domains"] = "target" if setting["mask_mode"].startswith("separatetrg") else "both"
        changes["masked_augment"] = setting["mask_mode"].endswith("aug")
    if not setting["augment"]:
        changes |= {"jitter_strength": 0, "blur_probability": 0}
    return changes


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def crop(place: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """[seed, top, left, flip] -> image (size, size, 3) and label (size, size)."""
    seed, top, left, flip = place
    image, label = (pixels[top : top + size, left : left + size] for pixels in scene(seed, 480, 360))
    label = np.where(label == UNLABELLED, 255, label).astype(np.uint8)
    return (image[:, ::-1], label[:, ::-1]) if flip else (image, label)


def write_crops(setting: dict[str, Any], folder: Path) -> None:
    """The crops of all steps as files, in the order in which they are asked for."""
    for domain in ("source", "target"):
        for kind in ("images", "labels"):
            (folder / domain / kind).mkdir(parents=True)
        places = [place for batch in setting["batches"] for place in batch[domain]]
        for number, place in enumerate(places):
            for kind, pixels in zip(("images", "labels"), crop(place, setting["crop"]), strict=True):
                Image.fromarray(np.ascontiguousarray(pixels)).save(folder / domain / kind / f"{number:02}.png")


def start_of(network: dict[str, Any], prefix: str) -> Weights:
    """Parameters by rule, from their published names; running statistics as those of a fresh network."""
    fresh = networks.build(network, classes=19, attention=False).state_dict()
    running = ("running_mean", "running_var")
    return {
        name: value if name.endswith(running) else tensor(prefix + published_name(name), tuple(value.shape))
        for name, value in fresh.items()
    }


def published_name(name: str) -> str:
    """Our name of a tensor -> that of the published program: they differ in HRDA."""
    for ours, theirs in (
        ("network.decode_head.", "decode_head.head."),
        ("network.", ""),
        ("scale_attention.", "decode_head.scale_attention."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


@contextmanager
def recorded_draws(content: dict[str, Any]) -> Iterator[None]:
    """Each function that draws gives what the program drew, call by call."""
    steps, setting = content["steps"], content["setting"]
    order = {name: iter(steps) for name in ("classes", "mixed", "masked", "blocks")}
    boxes = iter(
        [(top, bottom, left, right) for step in steps for top, bottom, left, right in step.get("detail_boxes", ())]
    )
    margins = setting.get("valid_margins")

    def classes(labels: Tensor, *_: Any, **__: Any) -> Tensor:
        chosen = torch.zeros(len(labels), 256, dtype=torch.bool)
        for row, ids in zip(chosen, next(order["classes"])["mix_classes"], strict=True):
            row[ids] = True
        return chosen

    def strong(seeds: Tensor, stream: str, *_: Any, **__: Any) -> StrongDraws:
        step = next(order[stream])
        jitters, blurs = step.get("jitter") or [], step.get("blur") or []
        of_masked = [one for one in jitters if len(one["hue_factor"]) == len(seeds)]
        if stream == "mixed":
            mixed = [one for one in jitters if len(one["hue_factor"]) == 1]
            sigmas = [one["sigma"] for one in blurs] if len(blurs) >= 2 else []
            return draws(mixed, sigmas[:2], len(seeds))
        sigmas = [blurs[-1]["sigma"]] * len(seeds) if len(blurs) in (1, 3) else []
        return draws(of_masked, sigmas, len(seeds))

    def blocks(seeds: Tensor, stream: str, size: tuple[int, int], *_: Any) -> Tensor:
        kept = torch.tensor(next(order["blocks"])["kept_blocks"], dtype=torch.float32)[:, None]
        return torch.nn.functional.interpolate(kept, size=size, mode="nearest").bool()

    def detail(network: Hrda, images: int, size: Any) -> tuple[Any, ...]:
        return (next(boxes),) * images

    def read(self: Steps, step: int) -> Batch:
        batch = plain_read(self, step)
        assert isinstance(batch, Batch) and margins is not None
        places = setting["batches"][step]["target"]
        valid = torch.stack([within(margins, place, setting["crop"]) for place in places])
        return replace(batch, target=replace(batch.of("target"), valid=valid))

    plain_read = Steps.__getitem__
    with (
        patch.object(Hrda, "draw_boxes", detail),
        patch.object(Steps, "__getitem__", read if margins else plain_read),
        patch("segadapt.augment.class_mix.draw_classes", classes),
        patch("segadapt.methods.mixing.draw_strong", strong),
        patch("segadapt.methods.mic.draw_blocks", blocks),
    ):
        yield


def within(margins: list[int], place: list[int], size: int) -> Tensor:
    """(size, size) bool: which pixels of a crop are not in the margins of its scene."""
    valid = torch.zeros(360, 480, dtype=torch.bool)
    valid[margins[0] : 360 - margins[1], margins[2] : 480 - margins[3]] = True
    _, top, left, flip = place
    cut = valid[top : top + size, left : left + size]
    return cut.flip(1) if flip else cut


def draws(jitters: list[dict[str, Any]], sigmas: list[float], count: int) -> StrongDraws:
    """Recorded jitters (one each, or one of a batch) and blurs as draws of `count` images."""
    plain = {"brightness_factor": 1.0, "contrast_factor": 1.0, "saturation_factor": 1.0, "hue_factor": 0.0}
    b, c, s, h = (
        torch.tensor([value for one in jitters for value in one[key]] or [none] * count) for key, none in plain.items()
    )
    orders = [one["order"] for one in jitters for _ in one["hue_factor"]] or [[0, 1, 2, 3]] * count
    jittered, blurred = torch.tensor([bool(jitters)] * count), torch.tensor([bool(sigmas)] * count)
    return StrongDraws(
        JitterDraws(b, c, s, h, torch.tensor(orders)), jittered, torch.tensor(sigmas or [1.0] * count), blurred
    )


@contextmanager
def noted(found: Replayed) -> Iterator[None]:
    """Pseudo-labels of each step, and the norms of the first gradients, are written down as they come."""
    methods: list[Method] = []

    def fresh(*given: Any) -> Method:
        methods.append(training_fresh(*given))
        return methods[-1]

    def weigh(*given: Any) -> list[PseudoLabels]:
        found.pseudo.extend(weighed(*given))
        return found.pseudo[-1:]

    def first(optimizer: Optimizer, *_: Any) -> None:
        if not found.gradients:
            student = methods[0].modules["student"]
            found.gradients |= {k: float(p.grad.norm()) for k, p in student.named_parameters() if p.grad is not None}

    training_fresh: Callable[..., Method] = training.fresh_method
    hook = register_optimizer_step_pre_hook(first)
    try:
        with patch.object(training, "fresh_method", fresh), patch("segadapt.methods.dacs.weighed", weigh):
            yield
    finally:
        hook.remove()

"""Stages that make pictures, without a training before them: a fresh generator and a fresh small network as files."""

from pathlib import Path
from typing import Any

import torch

from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.models.networks import build
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.saved import GeneratorHeader, ModelHeader, save_generator, save_model
from tiny_runs import tree, write_data, write_recipe

SIZE = (96, 48)  # (W, H) of both networks' input


def write_generator(path: Path) -> Path:
    """A generator with random weights; its header names SIZE."""
    torch.manual_seed(1)
    save_generator(path, StyleTransfer(), GeneratorHeader(size=SIZE))
    return path


def write_model(path: Path, space: LabelSpace | None = None) -> Path:
    """A small network with random weights, strong enough that it prefers several classes."""
    space = space or load_label_space("cityscapes19")
    torch.manual_seed(0)
    network = build("deeplab_small", classes=len(space))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    header = ModelHeader(
        network="deeplab_small",
        attention=False,
        pixels=network.pixels.name,
        label_space=space.as_dict(),
        size=SIZE,
    )
    save_model(path, network, header)
    return path


def write_stages(folder: Path, **stages: dict[str, Any]) -> Path:
    """A recipe of these stages on sample data: `stylize` and `pseudo_labels` have a generator and a model to use."""
    defaults: dict[str, dict[str, Any]] = {
        "stylize": {"generator": str(write_generator(folder / "generator.safetensors"))},
        "pseudo_labels": {"model": str(write_model(folder / "model.safetensors")), "scales": [1, 1.5]},
    }
    content = tree(
        write_data(folder / "data"),
        **{name: {"method": name, **defaults.get(name, {}), **settings} for name, settings in stages.items()},
    )
    return write_recipe(folder / "recipe.yaml", content)


def files(stage: Path) -> dict[str, bytes]:
    """Path below the stage's folder -> content, of all that it made; without files half written by a killed run."""
    about = ("stage.json", "cost.json")  # not made by it
    made = sorted(path for path in stage.rglob("[!.]*") if path.is_file() and path.name not in about)
    return {path.relative_to(stage).as_posix(): path.read_bytes() for path in made}

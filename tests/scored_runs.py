"""A network whose right answers are known, painted data for it, and run folders around it, for the tests."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import IGNORE, LabelSpace
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.evaluation.evaluate import evaluate_domain, evaluation_record
from segadapt.evaluation.label_free import label_free_agreement
from segadapt.files import write_json
from segadapt.inference.predictor import Predictor
from segadapt.models import networks
from segadapt.models.segmenter import IMAGENET, NetworkOptions, Segmenter
from segadapt.weights.saved import ModelHeader, save_model

SIZE = (32, 16)  # (W, H) of images and network input: nothing is resized
Labels = NDArray[np.uint8]


class ColourNetwork(Segmenter):
    """Logits 2 c·x - |c|² of each pixel x for each class colour c: the arg-max is the class of the nearest colour."""

    pixels = IMAGENET
    stride = 1

    def __init__(self, classes: int, attention: bool = False, options: NetworkOptions | None = None) -> None:
        super().__init__(classes, 3, attention, options)
        self.conv = nn.Conv2d(3, classes, 1)
        if self.attention is not None:
            nn.init.constant_(self.attention.conv.weight, -1.0)  # attention 0: the colours stay as they are

    def encode(self, pixels: Tensor) -> Tensor:
        return self.pixels.inverse(pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = self.conv(features)
        return (logits,)


def colour_network(space: LabelSpace, attention: bool = False) -> ColourNetwork:
    """The network that knows every colour of `space`."""
    network = ColourNetwork(len(space), attention)
    colours = torch.tensor(space.colors.astype(np.float32))
    network.conv.weight.data = 2 * colours[:, :, None, None]
    assert network.conv.bias is not None
    network.conv.bias.data = -colours.square().sum(1)
    return network


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """`colour` is a network that recipes and saved models know."""
    monkeypatch.setitem(networks.NETWORKS, "colour", ColourNetwork)


def blocks(space: LabelSpace, seed: int, classes: int | None = None) -> Labels:
    """Random train ids (H, W) of SIZE, in blocks of 4 pixels, some ignored."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, classes or len(space), (SIZE[1] // 4, SIZE[0] // 4)).astype(np.uint8)
    small[rng.random(small.shape) < 0.1] = IGNORE
    return small.repeat(4, 0).repeat(4, 1)


def paint(root: Path, space: LabelSpace, split: str, labels: list[Labels], seen: list[Labels] | None = None) -> None:
    """Cityscapes layout with these train ids as labels; the images show `seen` (the labels) in class colours."""
    for number, (label, shown) in enumerate(zip(labels, seen or labels, strict=True)):
        name = f"brno/brno_000000_{number:06d}"
        image = root / "leftImg8bit" / split / f"{name}_leftImg8bit.png"
        truth = root / "gtFine" / split / f"{name}_gtFine_labelIds.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        truth.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(space.palette[shown]).save(image)
        raw = np.zeros(256, np.uint8)
        raw[: len(space)] = space.raw_ids("cityscapes")
        Image.fromarray(raw[label]).save(truth)


def opened(root: Path, space: LabelSpace, split: str = "val", labels: bool = True) -> SegmentationDataset:
    """The painted data in any label space."""
    return open_domain(DomainSettings(layout="cityscapes", root=root), space, split, SIZE, labels=labels)


def save(path: Path, space: LabelSpace, stage: str = "s", method: str = "sean", attention: bool = False) -> ModelHeader:
    """Save the colour network of `space` as a stage's model."""
    header = ModelHeader(
        network="colour",
        attention=attention,
        pixels="imagenet",
        label_space=space.as_dict(),
        size=SIZE,
        stage=stage,
        method=method,
        step=20,
        selection="last",
        used_target_labels=method == "target_trained",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, colour_network(space, attention), header)
    return header


def write_run(run: Path, space: LabelSpace, data: Path) -> None:
    """A run of three scored stages, and an evaluation that is still to do; its source data is nowhere."""
    methods = {"baseline": "source_only", "adapt": "sean", "bound": "target_trained", "final": "evaluate"}
    stages: dict[str, Any] = {name: {"method": method} for name, method in methods.items()}
    stages["final"]["model"] = "@adapt"
    recipe = {
        "description": "a <b>test</b> & more",
        "label_space": space.name,
        "data": {
            "source": {"layout": "gta5", "root": "nowhere", "holdout": 2},
            "target": {"layout": "cityscapes", "root": str(data)},
        },
        "stages": stages,
        "seed": 0,
    }
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    write_json(
        run / "environment.json", {"segadapt": "1.2.3", "torch": "9.9", "command": "segadapt run this --out that"}
    )
    for name in ("baseline", "adapt", "bound"):
        model = run / name / "model.safetensors"
        header = save(model, space, name, methods[name], attention=name == "adapt")
        write_metrics(run / name / "metrics.jsonl")
        predictor = Predictor(colour_network(space), SIZE)
        scores = evaluate_domain(predictor, opened(data, space), space, space, layout="cityscapes", split="val")
        scores["miou"] = {"baseline": 30.0, "adapt": 45.0, "bound": 60.0}[name]
        record = evaluation_record(model, header, space, {"target": scores}, label_free_agreement(run / name))
        write_json(run / name / "evaluation.json", record)


def write_metrics(path: Path) -> None:
    """20 steps with losses, rates and four evaluations, in which InfoMax orders mIoU with one swap."""
    lines: list[dict[str, float]] = []
    for step in range(1, 21):
        loss = math.exp(-step / 10)
        lines.append({"step": step, "loss/total": loss, "loss/seg": loss, "loss/consistency": loss / 500})
        lines[-1] |= {"lr/student": 1e-4, "time/step": 0.5}
        if step % 5 == 0:
            infomax = {5: 0.1, 10: 0.3, 15: 0.2, 20: 0.4}[step]
            lines.append({"step": step, "val/target_miou": 10.0 + step, "val/infomax": infomax})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

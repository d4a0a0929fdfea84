"""Runs that take seconds: the small network on a few generated pictures."""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from segadapt.config.load import load_recipe
from segadapt.pipeline.plan import ALL, Choice
from segadapt.pipeline.run import run_recipe
from segadapt.sample import write_sample

TRAINING = {
    "network": "deeplab_small",
    "size": [96, 48],
    "batch": 2,
    "steps": 4,
    "lr": 1e-3,
    "augment": {"mirror": 0.5, "brightness": 0.2},
    "evaluate_every": 2,
    "log_every": 2,
    "checkpoint_every": 100,
}

GENERATOR = {key: value for key, value in TRAINING.items() if key not in ("network", "evaluate_every")}
DEFAULTS: dict[str, dict[str, Any]] = {"tgstn": GENERATOR, "evaluate": {}, "stylize": {}, "pseudo_labels": {}}
"""Method -> what its stages have in common, where that is not TRAINING."""


@cache
def _drawn() -> TemporaryDirectory[str]:
    """The pictures of `write_data`, drawn once per process."""
    folder = TemporaryDirectory(prefix="segadapt-tests-")
    write_sample(Path(folder.name), train=6, val=2, size=(128, 64))
    return folder


def write_data(folder: Path) -> Path:
    """Six train and two val pictures per domain; the test may change them."""
    return Path(shutil.copytree(_drawn().name, folder))


def tree(data: Path, **stages: dict[str, Any]) -> dict[str, Any]:
    """A recipe as plain data; each stage is a diff over DEFAULTS or TRAINING."""
    return {
        "data": {
            "source": {"layout": "gta5", "root": str(data / "gta5"), "holdout": 2},
            "target": {"layout": "cityscapes", "root": str(data / "cityscapes")},
        },
        "stages": {name: DEFAULTS.get(settings["method"], TRAINING) | settings for name, settings in stages.items()},
    }


def write_recipe(path: Path, content: dict[str, Any]) -> Path:
    """The recipe as a file."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(
    recipe: Path, out: Path, *overrides: str, choice: Choice = ALL, yes: bool = False, dry_run: bool = False
) -> None:
    """As `segadapt run RECIPE OVERRIDES --out OUT`."""
    run_recipe(load_recipe(str(recipe), list(overrides)), out, choice=choice, yes=yes, dry_run=dry_run)


def metrics(stage: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def last_checkpoint(stage: Path) -> dict[str, Any]:
    """The content of the newest checkpoint."""
    path = sorted((stage / "checkpoints").glob("*.pt"))[-1]
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors and plain data are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)

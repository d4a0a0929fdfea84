"""The three examples of plug-ins, together in one run through the command line; their pages show them as they are."""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import Outcome, command
from pages import ROOT, blocks
from planning import without_report
from plugged import EXAMPLES, own_registries
from segadapt.config.load import load_recipe
from segadapt.data.catalog import LAYOUTS
from segadapt.engine.trainer import Trainer
from segadapt.methods.registry import METHODS
from segadapt.models.networks import NETWORKS
from segadapt.plugin_loading import load_plugin
from tiny_runs import last_checkpoint, metrics, same, write_recipe

PLUGINS = [f"--plugin={EXAMPLES / name}" for name in ("own_method.py", "own_network.py", "own_data.py")]
PAGES = {"own-method": "own_method.py", "own-network": "own_network.py", "own-data": "own_data.py"}


pytestmark = pytest.mark.usefixtures("own_registries")


def write_harbour(root: Path, light: int) -> None:
    """Pictures of the example's data set: water, a quay and ships, by daylight or in the dusk."""
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            random = np.random.default_rng([light, len(split), number])
            ids = np.full((32, 48), 1, np.uint8)
            ids[20:], ids[:4, 30:] = 5, 0
            ids[8:18, 4 + 6 * number : 16 + 6 * number] = 9
            picture = np.stack([ids * 20, 255 - ids * 12, ids * 9], axis=-1).astype(np.int64)
            picture = np.clip(picture * light // 100 + random.integers(0, 20, picture.shape), 0, 255)
            for folder, name, pixels in (("camera", "rgb", picture.astype(np.uint8)), ("truth", "ids", ids)):
                path = root / folder / split / f"{number:04d}_{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name, light in (("day", 100), ("dusk", 50)):
        write_harbour(tmp_path / name, light)
    stage: dict[str, Any] = {"method": "class_mix", "network": "two_scales", "size": [48, 32], "batch": 2, "steps": 4}
    stage |= {"confidence": 0.34, "lr": 1e-3, "log_every": 1, "evaluate_every": 2}
    content = {
        "label_space": str(EXAMPLES / "harbour.yaml"),
        "data": {
            "source": {"layout": "rig", "root": str(tmp_path / "day")},
            "target": {"layout": "rig", "root": str(tmp_path / "dusk")},
        },
        "stages": {"mix": stage},
    }
    return write_recipe(tmp_path / "recipe.yaml", content)


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_run_of_ones_own(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, stops, resumes to the last bit, and its model predicts; without plug-ins nothing of it is known."""
    without_report(monkeypatch)
    folder, runs = tmp_path / "dusk", [tmp_path / "whole", tmp_path / "parts"]
    fine(command(capsys, "run", recipe, "--out", runs[0], *PLUGINS))
    after = Trainer._after

    def interrupting(self: Trainer, done: int, *rest: Any) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        after(self, done, *rest)

    monkeypatch.setattr(Trainer, "_after", interrupting)
    assert command(capsys, *PLUGINS, "run", recipe, "--out", runs[1]).code == 128 + signal.SIGTERM
    monkeypatch.setattr(Trainer, "_after", after)
    assert "resumed from step 1" in fine(command(capsys, "run", *PLUGINS, recipe, "--out", runs[1])).err
    whole, parts = (run / "mix" for run in runs)
    assert metrics(whole) == metrics(parts) and same(last_checkpoint(whole), last_checkpoint(parts))
    losses = [line["loss/mixed"] for line in metrics(whole) if "loss/seg" in line]
    assert len(losses) == 4 and min(losses) > 0

    said = json.loads((whole.parent / "environment.json").read_text())["plugins"]
    files = [EXAMPLES / name for name in PAGES.values()]
    assert [one["file"] for one in said] == [str(file) for file in files]
    assert [one["sha256"] for one in said] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    picture = folder / "camera/val/0000_rgb.png"
    predict = ["predict", whole / "model.safetensors", picture, "--out", tmp_path / "predicted"]
    fine(command(capsys, *predict, "--plugin", EXAMPLES / "own_network.py"))
    assert Image.open(next((tmp_path / "predicted").rglob("*.png"))).size == (48, 32)
    check = ["data", "check", "rig", folder, "--label-space", EXAMPLES / "harbour.yaml"]
    assert "all sound" in fine(command(capsys, *check, *PLUGINS)).out
    assert "class_mix" in fine(command(capsys, "schema")).out  # the process knows them by now
    with own_registries():
        del METHODS["class_mix"], NETWORKS["two_scales"], LAYOUTS["rig"]
        for arguments in (predict, check, ["run", recipe, "--out", runs[0]]):
            said_without = command(capsys, *arguments)
            assert said_without.code == 2 and "--plugin FILE.py" in said_without.err


def test_both_images_must_have_one_size(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = command(capsys, "run", recipe, "stages.mix.target_size=[32, 32]", "--dry-run", *PLUGINS)
    assert said.code == 2 and "Leave `target_size` out" in said.err


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_show_the_examples_as_they_are(page: str) -> None:
    shown = blocks(ROOT / f"docs/{page}.md", "python", "yaml")
    texts = [(EXAMPLES / PAGES[page]).read_text(encoding="utf-8")]
    if page == "own-data":
        texts.append((EXAMPLES / "harbour.yaml").read_text(encoding="utf-8"))
    for text in texts:
        assert text in [block.text for block in shown], f"docs/{page}.md and examples/ differ"


@pytest.mark.parametrize("page", PAGES)
def test_their_recipes_are_valid(page: str, tmp_path: Path) -> None:
    for file in PAGES.values():
        load_plugin(EXAMPLES / file)
    for block in blocks(ROOT / f"docs/{page}.md", "yaml plugin"):
        (tmp_path / "recipe.yaml").write_text(block.text)
        load_recipe(str(tmp_path / "recipe.yaml"), [])


def test_the_method_is_short() -> None:
    """As people copy it."""
    assert len((EXAMPLES / "own_method.py").read_text(encoding="utf-8").splitlines()) <= 80

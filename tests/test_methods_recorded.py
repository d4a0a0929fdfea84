"""The official recipes compute what the published programs computed: their recorded losses and weights.

Run as a user runs them: a shipped recipe with overrides, on images and from weights drawn as for the recording.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from recorded import sean_start, trace, vgg_base_start, write_micro
from segadapt.config.load import load_recipe
from segadapt.models.layouts import PUBLISHED_VGG, own_name
from segadapt.pipeline.run import run_recipe
from tiny_runs import last_checkpoint, metrics

NAMES = {"student_net": "student", "teacher_net": "teacher"}


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded images, drawn once."""
    folder = tmp_path_factory.mktemp("micro")
    write_micro(folder)
    return folder


def replay(recipe: str, stage: str, micro: Path, folder: Path, start: dict[str, torch.Tensor], *overrides: str) -> Path:
    """Run a shipped recipe's stage on the recorded images from the recorded weights; gives the stage's folder."""
    torch.save(start, folder / "start.pth")
    data = [
        f"data.source.root={micro / 'GTA5'}",
        "data.source.holdout=0",
        f"data.target.root={micro / 'Cityscapes'}",
    ]
    settings = ("size=[128, 64]", "epochs=2", "shuffle=false", "evaluate_every=0", f"start={folder / 'start.pth'}")
    changes = [f"stages.{stage}.{setting}" for setting in (*settings, *overrides)]
    run_recipe(load_recipe(recipe, data + changes), folder / "run")
    return folder / "run" / stage


def check_weights(modules: dict[str, dict[str, torch.Tensor]], recorded: dict[str, Any], names: dict[str, str]) -> None:
    """Norm within 1e-5, sum within 2e-3 of the norm, for every parameter."""
    for network, parameters in recorded.items():
        state = modules[names[network]]
        assert len(state) == len(parameters)
        for name, expected in parameters.items():
            tensor = state[str(own_name(name, PUBLISHED_VGG))].double()
            assert float(tensor.norm()) == pytest.approx(expected["norm"], rel=1e-5), (network, name)
            assert abs(float(tensor.sum()) - expected["sum"]) < 2e-3 * expected["norm"], (network, name)


@pytest.mark.parametrize("name", ["sean_gta5", "sean_gta5_threshold05"])
def test_sean_gives_the_published_losses_and_weights(micro: Path, tmp_path: Path, name: str) -> None:
    recorded = trace(name)
    threshold = recorded["setting"]["attention_threshold"]
    changes = ("noise=0", f"attention_threshold={threshold}")
    stage = replay("sean_gta5_cityscapes_official", "sean", micro, tmp_path, sean_start(), *changes)
    lines = metrics(stage)
    assert len(lines) == len(recorded["steps"]) == 6
    for line, expected in zip(lines, recorded["steps"], strict=True):
        within = 1e-5 if line["step"] <= 3 else 1e-4
        assert line["loss/total"] == pytest.approx(expected["total"], rel=within)
        assert line["loss/seg"] == pytest.approx(expected["seg"], rel=within)
        # the recorded term is weighted
        assert 0.3 * line["loss/consistency"] == pytest.approx(expected["consistency"], rel=within, abs=1e-7)
    check_weights(last_checkpoint(stage)["modules"], recorded["weights_after_last_step"], NAMES)


def test_supervised_training_gives_the_published_vgg_pretraining(micro: Path, tmp_path: Path) -> None:
    recorded = trace("pretrain_vgg_gta5")
    changes = ("official=true", "lr=1.0e-4", "schedule=polynomial")
    stage = replay("source_only_gta5_cityscapes", "source_only", micro, tmp_path, vgg_base_start(), *changes)
    lines = metrics(stage)
    for line, expected in zip(lines, recorded["steps"], strict=True):
        assert line["loss/seg"] == pytest.approx(expected["seg"], rel=1e-4 if line["step"] <= 3 else 1e-3)
    check_weights(last_checkpoint(stage)["modules"], recorded["weights_after_last_step"], {"student_net": "network"})

"""The official recipes compute what the published programs computed: their recorded losses and weights.

Run as a user runs them: a shipped recipe with overrides, on images and from weights drawn as for the recording.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

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
    write_micro,
)
from segadapt.config.load import load_recipe, read_tree, shipped_recipes
from segadapt.models.layouts import PUBLISHED_VGG, own_name
from segadapt.pipeline.run import run_recipe
from tiny_runs import last_checkpoint, metrics

NAMES = {"student_net": "student", "teacher_net": "teacher"}
SE_GAN = "se_gan_gta5_cityscapes_official"


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
    settings = ("size=[128, 64]", "shuffle=false", f"start={folder / 'start.pth'}", "optimizer_path=single")
    changes = [f"stages.{stage}.{setting}" for setting in (*settings, *overrides)]
    others = [f"stages.{name}=null" for name in read_tree(shipped_recipes()[recipe])["stages"] if name != stage]
    # As recorded: another number of threads adds in another order, which these losses feel (2e-5 by step 6).
    run_recipe(load_recipe(recipe, [*data, *changes, *others, "runtime.threads=2"]), folder / "run")
    return folder / "run" / stage


def check_losses(stage: Path, recorded: dict[str, Any], close: float = 1e-5, later: float = 1e-4) -> None:
    """Every recorded loss within `close` up to step 3 and `later` up to step 6; losses recorded as 0: 1e-7."""
    lines = metrics(stage)
    assert len(lines) == len(recorded["steps"]) == 6
    for line, expected in zip(lines, recorded["steps"], strict=True):
        for name, value in expected.items():
            if not name.endswith("miou"):
                within = close if line["step"] <= 3 else later
                assert line[f"loss/{name}"] == pytest.approx(value, rel=within, abs=1e-7 if value == 0 else 0.0), name


def check_weights(modules: dict[str, dict[str, torch.Tensor]], recorded: dict[str, Any], names: dict[str, str]) -> None:
    """Norm within 1e-5, sum within 2e-3 of the norm, for every parameter."""
    for network, parameters in recorded.items():
        state = modules[names[network]]
        assert len(state) == len(parameters)
        for name, expected in parameters.items():
            tensor = state[own_name(name, PUBLISHED_VGG) or name.replace("conv2d_list", "convs")].double()
            assert float(tensor.norm()) == pytest.approx(expected["norm"], rel=1e-5), (network, name)
            assert abs(float(tensor.sum()) - expected["sum"]) <= 2e-3 * expected["norm"], (network, name)


@pytest.mark.parametrize("name", ["sean_gta5", "sean_gta5_threshold05"])
def test_sean_gives_the_published_losses_and_weights(micro: Path, tmp_path: Path, name: str) -> None:
    recorded = trace(name)
    threshold = recorded["setting"]["attention_threshold"]
    changes = ("noise=0", f"attention_threshold={threshold}", "epochs=2", "evaluate_every=0")
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
    changes = ("official=true", "lr=1.0e-4", "schedule=polynomial", "epochs=2", "evaluate_every=0")
    stage = replay("source_only_gta5_cityscapes", "source_only", micro, tmp_path, vgg_base_start(), *changes)
    check_losses(stage, recorded, 1e-4, 1e-3)
    check_weights(last_checkpoint(stage)["modules"], recorded["weights_after_last_step"], {"student_net": "network"})


def test_se_gan_gives_the_published_losses_and_weights(micro: Path, tmp_path: Path) -> None:
    recorded = trace("se_gan_gta5")
    players = []
    for number, weights in enumerate(segan_discriminators(), start=1):
        players.append(tmp_path / f"discriminator{number}.pth")
        torch.save(weights, players[-1])
    changes = (
        "size=[160, 96]",
        "target_size=[128, 64]",
        f"extra_source={micro / 'TGSTN' / 'GTA' / 'images'}",
        f"discriminators=[{players[0]}, {players[1]}]",
        "steps=6",
        "evaluate_every=0",
    )
    stage = replay(SE_GAN, "se_gan", micro, tmp_path, deeplab_multi_start(), *changes)
    check_losses(stage, recorded)
    names = {**NAMES, "D_net1": "discriminator1", "D_net2": "discriminator2"}
    check_weights(last_checkpoint(stage)["modules"], recorded["weights_after_last_step"], names)


def test_self_training_gives_the_published_losses(micro: Path, tmp_path: Path) -> None:
    """Step 1 as closely as all others; then within what rounding does.

    Batch statistics of one small image make this network amplify rounding: a relative change of 1e-6 of its weights
    moves the second loss by 1 %, and in float64 the fourth is 7 % away from the recorded one. What is left tells a
    wrong head rate, class balance, auxiliary share or batch norm (all 14 % and more), but not `repeated_updates`: that
    is shown by SE-GAN's trace, and the step itself in float64 (tests/test_methods_self_training.py).
    """
    recorded = trace("self_training_gta5")
    labels = tmp_path / "labels"
    labels.mkdir()
    for name, content in pseudo_labels().items():
        Image.fromarray(content).save(labels / f"{name}_PseudoLabel.png")
    changes = (f"labels={labels}", "batch=1", "steps=6", "schedule_steps=20000", "evaluate_every=0")
    stage = replay(SE_GAN, "self_training", micro, tmp_path, deeplab_multi_start(), *changes)
    losses = [line["loss/seg"] for line in metrics(stage)]
    expected = [step["seg"] for step in recorded["steps"]]
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert losses == pytest.approx(expected, rel=0.1)
    modules, weights = last_checkpoint(stage)["modules"], recorded["weights_after_last_step"]["selftrain_net"]
    for name, value in weights.items():
        if name.endswith(("num_batches_tracked", "weight", "bias")):
            norm = float(modules["network"][name.replace("conv2d_list", "convs")].double().norm())
            assert norm == pytest.approx(value["norm"], rel=2e-3, abs=1e-12), name


def test_tgstn_gives_the_published_losses(micro: Path, tmp_path: Path) -> None:
    recorded = trace("tgstn_gta5")
    torch.save(vgg_base_19(), tmp_path / "segmenter.pth")
    torch.save(tgstn_discriminator(), tmp_path / "discriminator.pth")
    changes = (
        f"segmenter={tmp_path / 'segmenter.pth'}",
        f"discriminator={tmp_path / 'discriminator.pth'}",
        "batch=1",
        "epochs=2",
    )
    stage = replay(SE_GAN, "style", micro, tmp_path, transformer_net_start(), *changes)
    lines = metrics(stage)
    assert len(lines) == 6
    for line, expected in list(zip(lines, recorded["steps"], strict=True))[:2]:  # then it is chaotic
        for name in ("total", "semantic", "perceptual", "adversarial", "discriminator"):
            assert line[f"loss/{name}"] == pytest.approx(expected[name], rel=1e-3), name

"""Updates: accumulation and ranks change nothing, what is not finite is skipped, clipping clips."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from by_hand import EQUAL
from segadapt.engine.updater import Updater
from segadapt.methods import sean as sean_file
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.segmentation import segmentation_loss
from segadapt.models.small import DeepLabSmall
from test_methods_sean import CPU, batch
from tiny_runs import last_checkpoint, metrics, tree, write_data, write_recipe


def sean(**changes: object) -> Sean:
    torch.manual_seed(0)
    settings = SeanSettings.model_validate({"steps": 3, "lr": 1e-3, "ema": 0.9, "attention_threshold": 0.5} | changes)
    return Sean(DeepLabSmall(5, attention=True), settings)


def gradients(method: Sean) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in method.student.parameters() if p.grad is not None])


@pytest.mark.numeric
@pytest.mark.usefixtures("float64")
def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    whole, split = (sean(noise=5.0, attention_threshold=0.43) for _ in range(2))
    values = Updater(whole.optimizers, CPU).run(whole, batch(0, 4))
    same = Updater(split.optimizers, CPU, accumulate=4).run(split, batch(0, 4))
    assert float(values["consistency"]) > 1e-6
    assert {name: float(v) for name, v in same.items()} == pytest.approx(
        {n: float(v) for n, v in values.items()}, rel=EQUAL
    )
    # Counts differ between the micro-batches (ignored pixels, attention), so a mean of means would not do.
    expected = gradients(whole)
    assert float((gradients(split) - expected).abs().max()) <= EQUAL * float(expected.abs().max())


def test_an_update_that_is_not_finite_changes_nothing_and_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    method = sean()
    update = Updater(method.optimizers, CPU)
    update.run(method, batch(0))
    before = copy.deepcopy({name: module.state_dict() for name, module in method.modules.items()})

    monkeypatch.setattr(
        sean_file, "segmentation_loss", lambda *given, **named: segmentation_loss(*given, **named).times(float("nan"))
    )
    update.run(method, batch(7))
    for name, module in method.modules.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in module.state_dict().items())
    assert int(update.skipped) == 1 and int(update.first_skipped) == 7
    assert (7, batch(7).names) in update.recent


@pytest.mark.numeric
def test_the_gradient_is_clipped_to_its_norm() -> None:
    method = sean()
    Updater(method.optimizers, CPU, clip_norm=1e-3).run(method, batch(0))
    assert float(gradients(method).norm()) == pytest.approx(1e-3, rel=1e-3)


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.numeric
def test_two_ranks_equal_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    content = tree(data, sean={"method": "sean", "steps": 3, "evaluate_every": 0, "optimizer": "sgd", "lr": 1e-3})
    content["runtime"] = {"device": "cpu", "threads": 1}
    recipe = write_recipe(tmp_path / "recipe.yaml", content)
    run = ["-m", "segadapt", "run", str(recipe), "--out"]
    subprocess.run([sys.executable, *run, str(tmp_path / "one")], check=True, capture_output=True)
    subprocess.run([sys.executable, *TORCHRUN, *run, str(tmp_path / "two")], check=True, capture_output=True)
    one, two = (tmp_path / name / "sean" for name in ("one", "two"))
    assert len(metrics(one)) == len(metrics(two)) == 3
    for a, b in zip(metrics(one), metrics(two), strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)
    for network in ("student", "teacher"):
        a, b = (last_checkpoint(stage)["modules"][network] for stage in (one, two))
        for name, tensor in a.items():
            assert float((tensor - b[name]).abs().max()) < 1e-6, (network, name)

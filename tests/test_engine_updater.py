"""Updates: what is not finite is skipped, clipping clips."""

import copy

import pytest
import torch

from segadapt.engine.updater import Updater
from segadapt.methods import sean as sean_file
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.segmentation import segmentation_loss
from segadapt.models.small import DeepLabSmall
from test_methods_sean import CPU, batch


def sean(**changes: object) -> Sean:
    torch.manual_seed(0)
    settings = SeanSettings.model_validate({"steps": 3, "lr": 1e-3, "ema": 0.9, "attention_threshold": 0.5} | changes)
    return Sean(DeepLabSmall(5, attention=True), settings)


def gradients(method: Sean) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in method.student.parameters() if p.grad is not None])


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

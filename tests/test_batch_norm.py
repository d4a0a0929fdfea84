"""Batch norms that learn: by what they see, a teacher's by the target alone; frozen ones stay as they were."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segadapt.batch import Batch
from segadapt.batch_norm import BatchNorm2d, batch_norms, normed
from segadapt.engine.updater import Updater
from segadapt.methods.cbst import Cbst, CbstSettings
from segadapt.methods.method import Method
from segadapt.methods.se_gan import SeGan, SeGanSettings
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.self_training import SelfTraining, SelfTrainingSettings
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings, TargetTrained, TargetTrainedSettings
from segadapt.models.networks import build
from segadapt.models.segmenter import Segmenter
from segadapt.weights.saved import load_model
from test_methods_sean import CPU, batch
from tiny_runs import last_checkpoint, run, tree, write_data, write_recipe


def network(attention: bool = False) -> Segmenter:
    torch.manual_seed(0)
    return build("deeplab_small_bn", classes=5, attention=attention)


def make(name: str, **changes: Any) -> tuple[Method, nn.Module]:
    """A method, and the module of it whose statistics are the result's."""
    common: dict[str, Any] = {"steps": 3, "batch": 2, "lr": 1e-3, **changes}
    method: Method
    match name:
        case "source_only":
            method = SourceOnly(network(), SourceOnlySettings(**common))
        case "target_trained":
            method = TargetTrained(network(), TargetTrainedSettings(**common))
        case "self_training":
            method = SelfTraining(network(), SelfTrainingSettings(labels="@x", **common))
        case "cbst":
            method = Cbst(network(), CbstSettings(labels="@x", **common))
        case "sean":
            method = Sean(network(attention=True), SeanSettings(**common))
        case _:
            method = SeGan(network(), SeGanSettings(**common), 3)
    assert isinstance(method.result, nn.Module)
    return method, method.result


def statistics(module: nn.Module) -> torch.Tensor:
    found = [values for norm in batch_norms(module) for values in (norm.running_mean, norm.running_var)]
    return torch.cat([values for values in found if values is not None]).clone()


def seen(name: str) -> Batch:
    """Two labelled source and two target images; for self-training and target-trained the target's have labels."""
    whole = batch(0, 2)
    if name == "cbst":
        assert whole.target is not None and whole.source is not None
        return replace(whole, target=replace(whole.target, labels=whole.source.labels))
    if name in ("target_trained", "self_training"):
        assert whole.source is not None
        return Batch(0, whole.seeds, None, whole.source)
    return Batch(0, whole.seeds, whole.source, None) if name == "source_only" else whole


@pytest.mark.parametrize("name", ["source_only", "target_trained", "self_training", "cbst", "sean", "se_gan"])
def test_frozen_statistics_stay_and_learning_ones_move(name: str) -> None:
    for mode in ("frozen", "learn"):
        method, result = make(name, batch_norm=mode)
        before = statistics(result)
        Updater(method.optimizers, CPU).run(method, seen(name))
        assert torch.equal(statistics(result), before) == (mode == "frozen")


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["sean", "se_gan"])
def test_a_teacher_learns_the_statistics_of_the_target_alone(name: str) -> None:
    method, teacher = make(name, batch_norm="learn", noise=0)
    alone = copy.deepcopy(teacher).train()
    given = batch(0, 2)
    assert given.target is not None
    with torch.no_grad():
        alone(given.target.images)
    Updater(method.optimizers, CPU).run(method, given)
    assert torch.equal(statistics(teacher), statistics(alone))
    student = method.modules["student"]
    assert not torch.allclose(statistics(student), statistics(teacher), rtol=1e-3)  # it has seen both domains


@pytest.mark.numeric
def test_self_training_beside_the_source_learns_the_statistics_of_the_target_alone() -> None:
    method, result = make("cbst", batch_norm="learn")
    alone, before = copy.deepcopy(result), [norm.momentum for norm in batch_norms(result)]
    given = seen("cbst")
    with torch.no_grad():
        alone(given.images("target"))
    Updater(method.optimizers, CPU).run(method, given)
    assert torch.equal(statistics(result), statistics(alone))
    assert [norm.momentum for norm in batch_norms(result)] == before and 0.0 not in before


def test_a_frozen_teacher_has_the_students_buffers() -> None:
    method, teacher = make("se_gan")
    for norm in batch_norms(method.modules["student"]):
        assert norm.running_mean is not None
        norm.running_mean.fill_(0.5)
    Updater(method.optimizers, CPU).run(method, batch(0, 2))
    assert torch.equal(statistics(teacher), statistics(method.modules["student"]))


def test_statistics_are_learned_by_the_setting_or_as_published() -> None:
    assert SourceOnlySettings(steps=1, batch_norm="learn").learns_statistics
    assert not SourceOnlySettings(steps=1).learns_statistics
    assert SourceOnlySettings(steps=1, quirks={"train_bn": True}).learns_statistics


def test_a_run_with_a_teacher_that_learns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The model written has the teacher's statistics, and a network that cannot learn is told of."""
    stage = {"network": "deeplab_small_bn", "steps": 2, "evaluate_every": 0}
    content = tree(
        write_data(tmp_path / "data"),
        learning={"method": "se_gan", "batch_norm": "learn", **stage},
        frozen={"method": "source_only", **stage},
    )
    run(write_recipe(tmp_path / "recipe.yaml", content), tmp_path / "run")
    said = " ".join(capfd.readouterr().err.split())
    assert "frozen: a fresh network whose batch norms are frozen hardly learns" in said
    assert "learning: a fresh network" not in said
    teacher = last_checkpoint(tmp_path / "run/learning")["modules"]["teacher"]
    model = load_model(tmp_path / "run/learning/model.safetensors").network.state_dict()
    name = "body.0.1.running_mean"
    assert torch.equal(model[name], teacher[name]) and float(teacher[name].abs().sum()) > 0

    trained = str(tmp_path / "run/learning/model.safetensors")
    content["stages"] = {"given": content["stages"]["frozen"] | {"stand_in": trained}}
    run(write_recipe(tmp_path / "given.yaml", content), tmp_path / "given")
    said = capfd.readouterr().err
    assert "stands in for it" in said and "a fresh network" not in said


def frozen_norm(channels: int = 6) -> BatchNorm2d:
    norm = BatchNorm2d(channels).eval().requires_grad_(False)
    for values in (norm.weight, norm.bias, norm.running_mean):
        assert values is not None
        values.data.normal_()
    assert norm.running_var is not None
    norm.running_var.uniform_(0.1, 3)
    return norm


def kept_by(work: Callable[[], Tensor]) -> tuple[Tensor, list[int]]:
    """What `work` gives, and how many values each tensor has that is kept for the backward pass."""
    kept: list[int] = []

    def note(values: Tensor) -> Tensor:
        kept.append(values.numel())
        return values

    with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        return work(), kept


@pytest.mark.numeric
def test_a_frozen_norm_is_pytorchs_and_keeps_no_map() -> None:
    torch.manual_seed(0)
    norm, plain = frozen_norm(), nn.BatchNorm2d(6).eval().requires_grad_(False)
    plain.load_state_dict(norm.state_dict())
    maps = torch.randn(2, 6, 8, 9, requires_grad=True)
    again = maps.detach().clone().requires_grad_()
    given, kept = kept_by(lambda: norm(maps))
    assert max(kept) == 6  # a factor per channel
    expected = plain(again)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    given.square().sum().backward()  # type: ignore[no-untyped-call]
    expected.square().sum().backward()
    assert maps.grad is not None and again.grad is not None
    torch.testing.assert_close(maps.grad, again.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
    ],
)
def test_under_autocast_a_frozen_norm_is_part_of_the_convolution(options: dict[str, Any]) -> None:
    """As near to float32 as convolution and norm one after another, in values and gradients; no activation is kept."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(64, 6, **options), frozen_norm()
    inputs = torch.randn(1, 64, 32, 30)

    def run(forward: Callable[[], Tensor], precision: str) -> tuple[list[Tensor], list[int]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            maps, kept = kept_by(forward)
        conv.weight.grad = None
        maps.float().square().sum().backward()  # type: ignore[no-untyped-call]
        assert conv.weight.grad is not None
        return [maps.detach().float(), conv.weight.grad], kept

    exact, _ = run(lambda: norm(conv(inputs)), "fp32")
    same, _ = run(lambda: normed(conv, norm, inputs), "fp32")
    plain, kept_plain = run(lambda: norm(conv(inputs)), "bf16")
    quick, kept = run(lambda: normed(conv, norm, inputs), "bf16")
    assert all(torch.equal(a, b) for a, b in zip(exact, same, strict=True))
    values = exact[0].numel()
    assert kept_plain.count(values) == 1 and values not in kept
    for value, near, far in zip(exact, quick, plain, strict=True):
        assert float((near - value).norm()) < 1.3 * float((far - value).norm()) < 0.01 * float(value.norm())
    norm.train()
    with torch.autocast("cpu", torch.bfloat16):
        learned = normed(conv, norm, inputs).detach().float().mean(dim=(0, 2, 3))
    assert float(learned.sub(norm.bias).abs().max()) < 0.01


def test_what_a_frozen_norm_does_is_computed_once_and_anew_when_it_has_changed() -> None:
    norm = BatchNorm2d(3).eval().requires_grad_(False)
    first = norm.factor_and_shift()
    assert norm.factor_and_shift()[0] is first[0]
    norm.running_var.fill_(4.0)  # type: ignore[union-attr]
    torch.testing.assert_close(norm.factor_and_shift()[0], torch.full((3,), (4 + norm.eps) ** -0.5))
    twin = copy.deepcopy(norm)
    twin.load_state_dict({**norm.state_dict(), "bias": torch.ones(3)})
    assert torch.equal(twin.factor_and_shift()[1], torch.ones(3)) and not norm.factor_and_shift()[1].any()
    assert norm.double().factor_and_shift()[0].dtype == torch.float64
    with torch.inference_mode():
        assert BatchNorm2d(3).eval().requires_grad_(False).factor_and_shift()[0].shape == (3,)


def test_a_norm_that_learns_or_sees_another_dtype_is_pytorchs() -> None:
    torch.manual_seed(0)
    maps = 3 + torch.randn(2, 6, 8, 9)
    learning, frozen = frozen_norm().train(), frozen_norm()
    before = copy.deepcopy(learning.running_mean)
    assert float(learning(maps).mean(dim=(0, 2, 3)).sub(learning.bias).abs().max()) < 1e-4
    assert before is not None and learning.running_mean is not None and not torch.equal(learning.running_mean, before)
    assert frozen(maps.bfloat16()).dtype == torch.bfloat16
    learned = BatchNorm2d(6).eval()
    learned(maps).sum().backward()
    assert learned.weight.grad is not None


def test_a_copy_of_a_frozen_norm_keeps_nothing_of_the_original() -> None:
    """A copy's tensors count their versions anew: changed as often, they look like the original's, and are others."""
    norm = BatchNorm2d(3).eval().requires_grad_(False)
    norm(torch.ones(1, 3, 2, 2))
    twin = copy.deepcopy(norm)
    for own, of_twin in ((norm.weight, twin.weight), (norm.bias, twin.bias)):
        assert of_twin._version < own._version
        while of_twin._version < own._version:
            of_twin.add_(1.0)
    assert torch.equal(twin.factor_and_shift()[0], twin._factor_and_shift()[0])

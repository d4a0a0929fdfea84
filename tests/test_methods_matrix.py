"""Every registered method, run in every way that there is, against the plain run.

The networks draw (dropout, drop path), have two heads and attention where it is asked for. A method joins by being
registered: the example's is one of them.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import Adam

import matrix
from by_hand import CPU, EQUAL
from forking import Forks
from plugged import EXAMPLES, own_registries
from segadapt.engine import checkpoints
from segadapt.engine.updater import parameters_of
from segadapt.methods.registry import METHODS
from segadapt.plugin_loading import load_plugin
from tiny_runs import same

with own_registries():
    load_plugin(EXAMPLES / "own_method.py")
    NAMES = list(METHODS)
EACH_METHOD = pytest.mark.parametrize("name", NAMES)

BF16 = 2**-8
"""What bf16 rounds off, relative to the number."""
OUTCOMES: dict[tuple[str, torch.dtype], matrix.Outcome] = {}


@pytest.fixture(autouse=True)
def _example() -> Iterator[None]:
    with own_registries():
        load_plugin(EXAMPLES / "own_method.py")
        yield


def plain(name: str) -> matrix.Outcome:
    """Once for each method and default dtype."""
    key = name, torch.get_default_dtype()
    if key not in OUTCOMES:
        OUTCOMES[key] = matrix.plain(name)
    return OUTCOMES[key]


def assert_same(found: matrix.Outcome, name: str) -> None:
    """Up to the rounding of float64: each loss of each step, and each tensor of each module."""
    expected = plain(name)
    for step, (losses, wanted) in enumerate(zip(found.losses, expected.losses, strict=True)):
        assert losses == pytest.approx(wanted, rel=EQUAL, abs=1e-12), step
    assert found.weights.keys() == expected.weights.keys()
    for key, weights in expected.weights.items():
        distance = float((found.weights[key].double() - weights.double()).norm())
        assert distance <= EQUAL * (float(weights.double().norm()) + 1e-3), key


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_the_plain_run_moves_every_network_and_every_loss(name: str) -> None:
    """Else the other tests would show nothing."""
    method, outcome = matrix.made(name), plain(name)
    for key, module in method.modules.items():
        before = {f"{key}.{own}": value for own, value in module.state_dict().items()}
        assert any(not torch.equal(outcome.weights[own], value) for own, value in before.items()), key
    assert all(value != 0 for losses in outcome.losses[:2] for value in losses.values()), outcome.losses


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_two_micro_batches(name: str) -> None:
    assert_same(matrix.updated(name, matrix.made(name, accumulate=2), accumulate=2), name)


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_checkpointed(name: str) -> None:
    assert_same(matrix.updated(name, matrix.made(name, checkpointing=True)), name)


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch traces and differentiates it; what the C++ compiler makes of that is in test_engine_runtime.py."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(
        logging.getLogger("torch.__trace"), "disabled", True
    )  # pytest would keep thousands of its lines
    runtime = replace(CPU, compile=True)
    torch.compiler.reset()  # as a training's beginning does
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # else it would no longer be compiled
        assert_same(matrix.updated(name, matrix.made(name, runtime), runtime), name)


@EACH_METHOD
def test_resumed(name: str, tmp_path: Path) -> None:
    """From a checkpoint, by a method that was made anew: to the last bit."""
    folder, first = checkpoints.Checkpoints(tmp_path, 1), matrix.made(name)
    losses = matrix.updated(name, first, steps=range(1)).losses
    path = folder.save(1, first, checkpoints.pixel_facts(first))
    second = matrix.made(name)
    for module in second.modules.values():
        for parameter in module.parameters():
            parameter.data.fill_(7.0)  # nothing of it may be left
    assert checkpoints.restore(checkpoints.read(path), second, path)[0] == 1
    rest = matrix.updated(name, second, steps=range(1, matrix.STEPS))
    assert losses + rest.losses == plain(name).losses
    assert same(rest.weights, plain(name).weights)


@EACH_METHOD
def test_in_bf16(name: str) -> None:
    """Losses, and how far each module moves as a whole, in units of bf16's rounding.

    Measured on a CPU with AVX-512 for bf16: losses 1.4 at most, modules under SGD 12, under Adam, which makes large
    steps of small gradients too, 44. A gradient that is lost would be 256.
    """
    runtime = replace(CPU, precision="bf16")
    found, expected, before = matrix.updated(name, matrix.made(name, runtime), runtime), plain(name), matrix.made(name)
    for losses, wanted in zip(found.losses, expected.losses, strict=True):
        assert losses == pytest.approx(wanted, rel=8 * BF16)
    by_adam = {id(p) for o in before.optimizers.values() if isinstance(o, Adam) for p in parameters_of(o)}
    for key, module in before.modules.items():
        keys = [f"{key}.{own}" for own, _ in module.named_parameters()]
        if not keys:
            continue
        start = torch.cat([p.detach().flatten() for p in module.parameters()])
        ends = [torch.cat([outcome.weights[own].flatten() for own in keys]) for outcome in (found, expected)]
        roundings = 128 if any(id(p) in by_adam for p in module.parameters()) else 36
        assert (ends[0] - ends[1]).norm() <= roundings * BF16 * (ends[1] - start).norm(), key


@pytest.fixture(scope="module")
def on_two_ranks(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, matrix.Outcome]:
    """All methods at once: two processes are started."""
    folder = tmp_path_factory.mktemp("ranks")
    file = folder / "found.pt"
    for process in forks.ranks(2, [str(file), *NAMES], folder, inside="methods_on_a_rank"):
        assert process.wait() == 0, process.said.read_text()
    return {name: matrix.Outcome(**found) for name, found in torch.load(file, weights_only=True).items()}


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_two_ranks(name: str, on_two_ranks: dict[str, matrix.Outcome]) -> None:
    assert_same(on_two_ranks[name], name)

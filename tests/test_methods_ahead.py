"""No step of any method makes the host wait for its device, and each step is one program: captured, it can be replayed.

On a device that is not there (`on_meta.py`), on a CPU that is treated as a device that the host runs ahead of, and on a
GPU where there is one. A method joins by being registered.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import matrix
import on_meta
from again import AHEAD, Again
from by_hand import CPU, EQUAL
from plugged import EXAMPLES, own_registries
from segadapt.batch import Batch
from segadapt.engine.graphs import NOTED, PLAIN, Graphed, Inputs
from segadapt.engine.program import Program, difference
from segadapt.engine.rates import Rates
from segadapt.engine.step_numbers import Slots
from segadapt.engine.updater import Updater
from segadapt.methods.method import Method, Values
from segadapt.methods.registry import METHODS
from segadapt.methods.teacher import TeacherSettings
from segadapt.noise import SampleNoise
from segadapt.plugin_loading import load_plugin
from tiny_runs import same

with own_registries():
    load_plugin(EXAMPLES / "own_method.py")
    NAMES = list(METHODS)
ACCUMULATE = 2
STEPS = 8  # of which the last two are replayed without a look at them
EACH_METHOD = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(TeacherSettings, "decay", lambda settings, step: 1 - 1 / (step + 2))  # another one each step
    with own_registries():
        load_plugin(EXAMPLES / "own_method.py")
        yield


@pytest.mark.parametrize(("name", "accumulate"), [*((name, 1) for name in NAMES), ("sean", 2)])
def test_no_step_waits_for_the_device_and_each_is_the_same_program(name: str, accumulate: int) -> None:
    """Launched by itself or from tensors that stay, nothing is read of the device, and nothing is copied to it.

    Then steps have the same operations with the same plain numbers: what changes is in those tensors.
    """
    method, programs = on_meta.made(name, accumulate), [Program(on_meta.META) for _ in range(3)]
    updater = Updater(method.optimizers, on_meta.RUNTIME, accumulate, clip_norm=1.0)
    rates, batches = Rates(method.optimizers, on_meta.RUNTIME), [on_meta.given(name, step) for step in range(3)]
    inputs, slots = Inputs.like(batches[1]), Slots(1, on_meta.META)
    with on_meta.fused():
        with programs[0]:
            updater.run(method, batches[0])
        for step in (1, 2):
            inputs.fill(batches[step])
            rates.set(1 / step)
            slots.begin()
            with programs[step]:
                updater.compute(method, inputs.batch, slots)
    assert [program.waits for program in programs] == [[], [], []]
    assert difference(*programs[1:]) is None and all(len(program.lines) > 50 for program in programs)


@EACH_METHOD
def test_what_is_brought_before_a_step_is_no_wait_of_it(name: str) -> None:
    """A step with numbers of its own is asked for them, and noted: nothing of that speaks against a capture."""
    method = on_meta.made(name)
    updater, rates = Updater(method.optimizers, on_meta.RUNTIME), Rates(method.optimizers, on_meta.RUNTIME)
    graphed = Graphed(method, updater, Again, print, required=True)
    with on_meta.fused():
        for step in range(PLAIN + NOTED):
            rates.set(1 / (1 + step))
            graphed.run(method, on_meta.given(name, step))
    assert graphed.refused is None and graphed._slots.functions


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x[x > 0], "aten.index"),
        (lambda x: x.new_tensor([1.0]), "new_tensor"),
        (lambda x: torch.tensor(1.0, device=x.device), "tensor"),
        (lambda x: torch.ones(2).to(x.device), "_to_copy"),
        (lambda x: x.cpu(), "_to_copy"),
        (lambda x: x.copy_(torch.ones(2)), "copy_"),
        (lambda x: (x * 2.0 + x.mean()).masked_fill(x > 0, 1.0).where(x > 0, 3.0), None),
    ],
)
def test_what_waits_is_seen(work: Callable[[Tensor], object], waits: str | None) -> None:
    program = Program(on_meta.META)
    with program, contextlib.suppress(RuntimeError, NotImplementedError):  # there is nothing to be read
        work(torch.zeros(2, device=on_meta.META))
    assert [waits in line for line in program.waits] == [True] if waits else program.waits == []


def test_a_number_that_changes_makes_another_program() -> None:
    programs = [Program(on_meta.META) for _ in range(2)]
    for number, program in enumerate(programs, start=2):
        with program:
            torch.zeros(2, device=on_meta.META).mul_(3.0).add_(1.0, alpha=number)
    assert difference(programs[1], programs[0]) == "aten.add_.Tensor with 3 where it was 2 a step before"
    assert difference(programs[0], programs[0]) is None


def trained(name: str, run: Callable[[Method, Updater], Callable[[Method, Batch], Values]]) -> object:
    """Losses, weights and optimizers' states after STEPS updates at rates that change."""
    method = matrix.made(name, AHEAD, ACCUMULATE)
    updater, rates = Updater(method.optimizers, AHEAD, ACCUMULATE), Rates(method.optimizers, AHEAD)
    update, losses = run(method, updater), []
    for step in range(STEPS):
        rates.set(1 / (1 + step))
        losses.append(update(method, matrix.given(name, step)))
    states = [[optimizer.state[p] for p in optimizer.state] for optimizer in method.optimizers.values()]
    return losses, {key: module.state_dict() for key, module in method.modules.items()}, copy.deepcopy(states)


@EACH_METHOD
def test_replayed_steps_are_the_steps(name: str) -> None:
    """To the last bit: batches, rates, decays and seeds reach them, and nothing else does."""
    said: list[str] = []

    def replayed(method: Method, updater: Updater) -> Callable[[Method, Batch], Values]:
        graphed = Graphed(method, updater, Again, said.append, required=True)
        return graphed.run

    eager = trained(name, lambda method, updater: updater.run)
    assert same(eager, trained(name, replayed))
    assert said == ["each step is one CUDA graph from here on"]


@pytest.mark.usefixtures("float64")
@EACH_METHOD
def test_ahead_of_the_device_the_same_is_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the rounding of float64, but for noise, which is drawn otherwise there."""
    monkeypatch.setattr(SampleNoise, "_drawn", lambda noise, like: torch.ones_like(like))
    plain, ahead = (matrix.updated(name, matrix.made(name, place), place) for place in (CPU, AHEAD))
    for found, wanted in zip(ahead.losses, plain.losses, strict=True):
        assert found == pytest.approx(wanted, rel=EQUAL, abs=1e-12)
    for key, weights in plain.weights.items():
        torch.testing.assert_close(ahead.weights[key], weights, rtol=EQUAL, atol=1e-12)


def test_noise_ahead_of_the_device_is_normal_and_each_samples_own() -> None:
    pair = Batch(0, (5, 9), step_seed=5).ahead_on(torch.device("cpu"))
    images = torch.zeros(2, 3, 64, 65)
    both = SampleNoise(pair, images.device)
    drawn = torch.stack([both.add(images, 2.0) / 2 for _ in range(2)])  # (2, B, …)
    alone = SampleNoise(Batch(0, (9,), step_seed=5).ahead_on(images.device), images.device)
    assert all(torch.equal(alone.add(images[:1], 2.0)[0] / 2, one[1]) for one in drawn)
    numbers = drawn.flatten(2).flatten(0, 1)  # four streams of n
    n = numbers.shape[1]
    assert (numbers.mean(1).abs() < 5 / n**0.5).all() and (
        (numbers.square().mean(1) - 1).abs() < 5 * (2 / n) ** 0.5
    ).all()
    assert ((numbers.pow(4).mean(1) - 3).abs() < 5 * (96 / n) ** 0.5).all()
    assert ((numbers @ numbers.T / n - torch.eye(4)).abs() < 5 * (2 / n) ** 0.5).all()

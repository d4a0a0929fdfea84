"""What only a GPU shows: no step waits for it, and a captured step is the step. It is seen with SEGADAPT_TEST_GPU=1."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import matrix
from by_hand import CPU
from plugged import EXAMPLES, own_registries
from segadapt.engine.graphs import CudaGraph, Graphed
from segadapt.engine.rates import Rates
from segadapt.engine.runtime import Precision
from segadapt.engine.updater import Updater
from segadapt.methods.registry import METHODS
from segadapt.plugin_loading import load_plugin
from segadapt.setup import machine
from segadapt.setup.self_test import self_test

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is to be seen")
with own_registries():
    load_plugin(EXAMPLES / "own_method.py")
    NAMES = list(METHODS)
EACH_METHOD = pytest.mark.parametrize("name", NAMES)
STEPS = 10


@pytest.fixture(autouse=True)
def _example() -> Iterator[None]:
    with own_registries():
        load_plugin(EXAMPLES / "own_method.py")
        yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@EACH_METHOD
def test_no_step_waits_for_the_gpu(name: str, precision: Precision) -> None:
    runtime = replace(CPU, device=torch.device("cuda", 0), precision=precision)
    method = matrix.made(name, runtime)
    updater = Updater(method.optimizers, runtime)
    updater.run(method, matrix.given(name, 0).ahead_on(runtime.device))
    later = matrix.given(name, 1).ahead_on(runtime.device)
    torch.cuda.set_sync_debug_mode("error")
    updater.run(method, later)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@EACH_METHOD
def test_a_captured_step_is_the_step(name: str, precision: Precision) -> None:
    """`required`: each replay that is looked at is as near to the step as two runs of it are to each other."""
    runtime = replace(CPU, device=torch.device("cuda", 0), precision=precision)
    method = matrix.made(name, runtime)
    updater, rates = Updater(method.optimizers, runtime), Rates(method.optimizers, runtime)
    graphed = Graphed(method, updater, lambda: CudaGraph(method.optimizers), print, required=True)
    for step in range(STEPS):
        rates.set(1 / (1 + step))
        batch = matrix.given(name, step).ahead_on(runtime.device)
        torch.cuda.set_sync_debug_mode("error" if graphed.replays else "default")
        graphed.run(method, batch)
    torch.cuda.set_sync_debug_mode("default")
    assert graphed.replays and not int(updater.skipped)


def test_the_doctor_tries_the_gpu() -> None:
    trials = {trial.name: trial.failure for trial in self_test()}
    assert trials["training on cuda:0 in fp32"] is None and set(trials.values()) == {None}
    assert machine.gpus()[0]["memory (GB)"] > 1 and machine.gpu_problems() == []

"""What only a GPU shows: no step waits for it, and a captured step is the step. It is seen with SEGADAPT_TEST_GPU=1."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import matrix
from by_hand import CPU
from plugged import EXAMPLES, own_registries
from segadapt import batch_norm
from segadapt.engine.graphs import CudaGraph, Graphed
from segadapt.engine.rates import Rates
from segadapt.engine.runtime import Precision
from segadapt.engine.updater import Updater
from segadapt.methods.registry import METHODS
from segadapt.models.deeplab_v2 import Bottleneck
from segadapt.plugin_loading import load_plugin
from test_batch_norm import frozen_norm

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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_shortcut", [False, True])
def test_norm_shortcut_and_relu_in_one_kernel(precision: Precision, relu: bool, has_shortcut: bool) -> None:
    """Against PyTorch's operations in float32 on what the convolution gave: within one rounding of the result."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    norm = frozen_norm().cuda()
    shape = (2, 6, 33, 57)
    given, shortcut = (
        torch.randn(shape, device="cuda").to(dtype, memory_format=torch.channels_last).requires_grad_() for _ in range(2)
    )
    with torch.no_grad():
        given[0, 0, 0, 0] = float("nan")
    plus = shortcut if has_shortcut else None
    kernels = batch_norm._kernels()
    assert kernels is not None and kernels.fits(given, plus)
    wanted = norm(given.float()) + (shortcut.float() if has_shortcut else 0)
    wanted = wanted.relu() if relu else wanted
    found, towards = kernels.normed(given, norm, plus, relu), torch.randn(shape, device="cuda").to(dtype)
    leaves = [given, shortcut] if has_shortcut else [given]
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 2e-6, "equal_nan": True}
    torch.testing.assert_close(found.float(), wanted, **tolerance)
    gradients = (torch.autograd.grad(y, leaves, towards.to(y.dtype)) for y in (found, wanted))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), **tolerance)


def test_a_frozen_network_uses_the_kernel_and_gives_what_the_cpu_gives() -> None:
    torch.manual_seed(0)
    block = Bottleneck(16, 8, 1, 2, first=True).eval()
    for module in block.modules():
        if isinstance(module, batch_norm.BatchNorm2d):
            module.requires_grad_(False)
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    inputs = torch.randn(2, 16, 17, 23)
    there = copy.deepcopy(block).to("cuda", memory_format=torch.channels_last)
    torch.backends.cudnn.allow_tf32 = False
    try:
        given, found = inputs.clone().requires_grad_(), inputs.cuda().requires_grad_()
        wanted, ours = block(given), there(found)
        wanted.square().sum().backward()
        ours.square().sum().backward()
    finally:
        torch.backends.cudnn.allow_tf32 = True
    names = {str(node.name()) for node in graph_of(ours)}
    assert any("_Normed" in name for name in names)
    torch.testing.assert_close(ours.cpu(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.grad.cpu(), given.grad, rtol=1e-3, atol=1e-4)  # type: ignore[union-attr]


def graph_of(result: torch.Tensor) -> list[Any]:
    """The nodes of its backward pass."""
    found, left = [], [result.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.append(node)
            left += [of for of, _ in node.next_functions]
    return found

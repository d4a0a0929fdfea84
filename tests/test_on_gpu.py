"""What only a GPU shows: no step waits for it, and a captured step is the step. It is seen with SEGADAPT_TEST_GPU=1."""

import copy
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import matrix
from by_hand import CPU
from plugged import EXAMPLES, own_registries
from scored_runs import SIZE, blocks, colour_network, opened, paint
from segadapt.batch_norm import BatchNorm2d
from segadapt.data.label_spaces import load_label_space
from segadapt.devices import gpu_kernels
from segadapt.engine.graphs import CudaGraph, Graphed
from segadapt.engine.rates import Rates
from segadapt.engine.runtime import Precision
from segadapt.engine.updater import Updater
from segadapt.evaluation.confusion import Confusion
from segadapt.evaluation.criteria import CRITERIA
from segadapt.evaluation.evaluate import Tally, evaluate_domain, quick_sums
from segadapt.inference.predictor import Predictor
from segadapt.inference.replay import Replayed
from segadapt.inference.stylizer import Stylizer
from segadapt.inference.transfers import Fetched, sent
from segadapt.methods.registry import METHODS
from segadapt.models.deeplab_v2 import Bottleneck
from segadapt.models.efficientnet_lite import SameConv2d
from segadapt.models.heads import _Shifted
from segadapt.models.style_transfer import StyleTransfer
from segadapt.plugin_loading import load_plugin
from segadapt.setup import machine
from segadapt.setup.self_test import self_test
from test_batch_norm import frozen_norm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is to be seen")
with own_registries():
    load_plugin(EXAMPLES / "own_method.py")
    NAMES = list(METHODS)
EACH_METHOD = pytest.mark.parametrize("name", NAMES)
STEPS = 10
SPACE = load_label_space("cityscapes19")


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


def test_an_evaluation_during_training_counts_without_waiting() -> None:
    """The counts and sums are those of the CPU, and none of them is asked for before the end."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 20, (64, 48), generator=random, dtype=torch.uint8)
    labels[labels == 19] = 255
    predictions = torch.randint(0, 19, (64, 48), generator=random, dtype=torch.uint8)
    logits = torch.randn(1, 19, 16, 12, generator=random)
    names = [str(number) for number in range(19)]
    plain, quick = Confusion(names), Confusion(names)
    plain.add(labels.numpy(), predictions.numpy())
    given, said, seen = labels.cuda(), predictions.cuda(), logits.cuda()
    criteria = {name: make(19) for name, make in CRITERIA.items()}
    for again in range(2):  # the first time, libraries make their work spaces, and sums move to the device
        torch.cuda.set_sync_debug_mode("error" if again else "default")
        quick.add_on_device(given, said)
        for criterion in criteria.values():
            criterion.add(seen)
    torch.cuda.set_sync_debug_mode("default")
    assert (quick.counts == 2 * plain.counts).all()
    for name, criterion in criteria.items():
        here = CRITERIA[name](19)
        here.add(logits)
        assert criterion.value() == pytest.approx(here.value(), rel=1e-3), name


def test_batches_are_counted_without_waiting_and_as_on_a_cpu(tmp_path: Path) -> None:
    """Pixels, single images and calibration of an evaluation, its passes replayed, and what is fetched for files."""
    labels = [blocks(SPACE, seed, classes=11) for seed in range(24)]
    paint(tmp_path, SPACE, "val", labels, labels[1:] + labels[:1])
    data = opened(tmp_path, SPACE)
    names = [pair.name for pair in data.pairs]
    images, known = ([read(number) for number in range(24)] for read in (data.image, data.label))
    found, fetched = [], []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            predictor = Predictor(colour_network(SPACE), SIZE, scales=(1, 2), mirror=True, device=device)
            assert predictor.batch == (1 if device == "cpu" else 4)
            tally, batch = Tally(predictor, SPACE, SPACE), predictor.batch
            for start in range(0, 24, batch):
                if device == "cuda" and start >= 4 * batch:  # until then, libraries set up and passes are recorded
                    torch.cuda.set_sync_debug_mode("error")
                here = slice(start, start + batch)
                fetched += [Fetched(own) for own in tally.add(names[here], images[here], known[here])]
            torch.cuda.set_sync_debug_mode("default")
            found.append(tally.scores())
    assert isinstance(predictor._pass, Replayed) and len(predictor._pass._graphs) == 2
    for one, other in zip(fetched[:24], fetched[24:], strict=True):
        np.testing.assert_array_equal(other.numpy(), one.numpy())
    for key in ("confusion", "per_image", "miou"):
        assert found[1][key] == found[0][key]
    assert found[1]["ece"] == pytest.approx(found[0]["ece"], abs=1e-2)


def test_an_evaluation_in_batches_keeps_and_scores_what_one_on_a_cpu_does(tmp_path: Path) -> None:
    """Nine images: the last batch has one. From files to what is kept, with the threads that read and write."""
    labels = [blocks(SPACE, seed) for seed in range(9)]
    paint(tmp_path, SPACE, "val", labels, labels[1:] + labels[:1])
    kept: list[dict[str, Any]] = []
    scores = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            kept.append({})
            predictor, data = Predictor(colour_network(SPACE), SIZE, device=device), opened(tmp_path, SPACE)

            def keep(name: str, image: Any, predicted: Any, into: dict[str, Any] = kept[-1]) -> None:
                into[name] = predicted.copy()

            scored = evaluate_domain(predictor, data, SPACE, SPACE, layout="cityscapes", split="val", keep=keep)
            sums = quick_sums(predictor, SPACE, target_val=data)
            scores.append((scored["confusion"], scored["per_image"], sums["target_miou"].tolist()))
    assert scores[0] == scores[1] and list(kept[0]) and kept[0].keys() == kept[1].keys()
    assert all((kept[1][name] == predicted).all() for name, predicted in kept[0].items())


def test_what_is_sent_and_fetched_arrives_unmixed() -> None:
    """Many at once, whose memory is used again as soon as it is free; the values are asked for in another thread."""
    device, random = torch.device("cuda", 0), np.random.default_rng(0)
    given = [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(64)]
    noise = heavy = torch.randn(1024, 1024, device=device)
    fetched = []
    for number in range(0, 64, 4):
        pixels = sent(given[number : number + 4], device)
        heavy = (noise @ heavy).clamp(-1, 1)  # the copies run far ahead of it
        fetched += [Fetched(one.permute(2, 0, 1) + (heavy[0, 0] * 0).to(torch.uint8)) for one in pixels]
        del pixels
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.numpy(), fetched))
    for image, same in zip(given, found, strict=True):
        np.testing.assert_array_equal(same, image.transpose(2, 0, 1))


def test_stylized_images_are_those_of_the_cpu() -> None:
    """Within a level of their values, recorded passes and the last, smaller batch too."""
    torch.manual_seed(0)
    generator, random = StyleTransfer(), np.random.default_rng(0)
    images = [np.kron(random.integers(0, 256, (8, 12, 3), np.uint8), np.ones((4, 4, 1), np.uint8)) for _ in range(9)]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        there = Stylizer(copy.deepcopy(generator), (48, 32), device="cuda")
        here = Stylizer(generator, (48, 32))
        for start in range(0, 9, 2):
            wanted = here(images[start : start + 2]).astype(int)
            assert np.abs(there(images[start : start + 2]) - wanted).max() <= 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("relu_to", [None, math.inf, 1.0])
@pytest.mark.parametrize("has_shortcut", [False, True])
@pytest.mark.parametrize("channels", [6, 200])
def test_norm_shortcut_and_relu_in_one_kernel(
    precision: Precision, relu_to: float | None, has_shortcut: bool, channels: int
) -> None:
    """Against PyTorch's operations in float32 on what the convolution gave: within one rounding of the result."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    norm, shape = frozen_norm(channels).cuda(), (2, channels, 33, 57)

    def drawn() -> Tensor:
        return torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last)

    given, shortcut, towards = drawn(), drawn(), drawn()
    given[0, 0, 0, 0] = math.nan
    leaves = [one.requires_grad_() for one in ([given, shortcut] if has_shortcut else [given])]
    plus = shortcut if has_shortcut else None
    kernels = gpu_kernels(given)
    assert kernels is not None and kernels.fits(given, plus)
    wanted = (norm(given.float()) + (shortcut.float() if has_shortcut else 0)).to(dtype).float()
    if relu_to is not None:  # of the rounded sum: at its ends a gradient begins
        wanted = wanted.relu() if relu_to == math.inf else F.hardtanh(wanted, 0.0, relu_to)
    found = kernels.normed(given, norm, plus, relu_to)

    def close(ours: Tensor, theirs: Tensor) -> None:
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=2 * eps, atol=2e-6, equal_nan=True)

    close(found, wanted)
    gradients = (torch.autograd.grad(y, leaves, towards.to(y.dtype)) for y in (found, wanted))
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("relu_to", [None, 1.0])
@pytest.mark.parametrize(("channels", "size"), [(6, (33, 57)), (200, (5, 7)), (70, (190, 130))])
def test_the_gradients_of_a_norm_that_learns(
    precision: Precision, relu_to: float | None, channels: int, size: tuple[int, int]
) -> None:
    """As in float64, but where a ReLU begins or ends: there rounding decides. A second time they are the same."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    norm = frozen_norm(channels).cuda().requires_grad_()
    exact = copy.deepcopy(norm).double()

    def drawn() -> Tensor:
        return torch.randn(2, channels, *size, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last)

    given, shortcut, towards = drawn().requires_grad_(), drawn(), drawn()
    before = exact(given.double()) + shortcut.double()
    wanted = before if relu_to is None else F.hardtanh(before, 0.0, relu_to)
    towards = towards.masked_fill((before.abs() < 0.02) | ((before - 1).abs() < 0.02), 0.0)
    kernels = gpu_kernels(given)
    assert kernels is not None
    found = kernels.normed(given, norm, shortcut, relu_to)
    ours, again = (
        torch.autograd.grad(found, [given, norm.weight, norm.bias], towards, retain_graph=True) for _ in range(2)
    )
    theirs = torch.autograd.grad(wanted, [given, exact.weight, exact.bias], towards.double())
    assert all(map(torch.equal, ours, again))
    # The sums are float32, of inputs that are known exactly.
    roundings = (2 * torch.finfo(dtype).eps, *[16 * torch.finfo(torch.float32).eps] * 2)
    for one, other, rounding in zip(ours, theirs, roundings, strict=True):
        assert (one.double() - other).abs().max() < rounding * other.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "dilation", "size"),
    [(24, 3, 1, 1, (33, 57)), (200, 5, 1, 2, (10, 15)), (40, 5, 2, 1, (31, 43)), (16, 3, 2, 1, (80, 120))],
)
def test_depthwise_convolutions(
    precision: Precision, channels: int, kernel: int, stride: int, dilation: int, size: tuple[int, int]
) -> None:
    """As the CPU computes them in float64, there and back; a second time the gradients are the same."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    conv = SameConv2d(channels, channels, kernel, stride, dilation=dilation, groups=channels, bias=False)
    conv.weight.data = conv.weight.data.to(dtype).float()
    given = torch.randn(2, channels, *size).to(dtype)
    moved, there = copy.deepcopy(conv).cuda(), given.cuda().requires_grad_()
    conv, given = conv.double(), given.double().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        found = moved(there)
    assert any("Depthwise" in name for name in graph_of(found))
    wanted = conv(given)
    towards = torch.randn_like(wanted).to(dtype)
    ours, again = (
        torch.autograd.grad(found, [there, *moved.parameters()], towards.cuda(), retain_graph=True) for _ in range(2)
    )
    assert all(map(torch.equal, ours, again))
    theirs = torch.autograd.grad(wanted, [given, *conv.parameters()], towards.double())
    roundings = (*[2 * torch.finfo(dtype).eps] * 2, 16 * torch.finfo(torch.float32).eps)  # sums are float32
    for one, other, rounding in zip((found, *ours), (wanted, *theirs), roundings, strict=True):
        assert (one.cpu().double() - other).abs().max() < rounding * other.abs().max()


def test_a_frozen_network_uses_the_kernel_and_gives_what_the_cpu_gives() -> None:
    torch.manual_seed(0)
    block = Bottleneck(16, 8, 1, 2, first=True).eval()
    for module in block.modules():
        if isinstance(module, BatchNorm2d) and module.running_var is not None:
            module.requires_grad_(False)
            module.running_var.uniform_(0.5, 2)
    given = torch.randn(2, 16, 17, 23).requires_grad_()
    there = copy.deepcopy(block).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    moved = given.detach().cuda().requires_grad_()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wanted, found = block(given), there(moved)
        wanted.square().sum().backward()
        found.square().sum().backward()
    assert any("_Normed" in name for name in graph_of(found))
    assert given.grad is not None and moved.grad is not None
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.grad.cpu(), given.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_atrous_head_in_one_kernel(precision: Precision) -> None:
    """As the CPU adds up what the same product gives: the sum to the last bit, the gradient too."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    size, dilations = (29, 41), [6, 12, 18, 24]
    taps, bias, towards = torch.randn(2, 29 * 41, 4 * 9 * 19).to(dtype), torch.randn(19), torch.randn(2, 19, *size)
    found = []
    for device in ("cpu", "cuda"):
        leaves = [one.to(device, copy=True).requires_grad_() for one in (taps, bias)]
        given = _Shifted.apply(*leaves, size, dilations)  # type: ignore[no-untyped-call]
        found.append([given, *torch.autograd.grad(given, leaves, towards.to(device))])
    for (ours, theirs), exact in zip(zip(*reversed(found), strict=True), (True, True, False), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)


def graph_of(result: Tensor) -> list[str]:
    """The names of the nodes of its backward pass."""
    found: list[Any] = []
    left: list[Any] = [result.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.append(node)
            left += [of for of, _ in node.next_functions]
    return [node.name() for node in found]


def test_the_doctor_tries_the_gpu() -> None:
    trials = {trial.name: trial.failure for trial in self_test()}
    assert trials["training on cuda:0 in fp32"] is None and set(trials.values()) == {None}
    assert machine.gpus()[0]["memory (GB)"] > 1 and machine.gpu_problems() == []

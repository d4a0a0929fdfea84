"""The runtime: compiled networks compute what they computed before, and stay what they are."""

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn

from segadapt.engine.runtime import Runtime, RuntimeSettings, start
from segadapt.errors import UsageError
from segadapt.models.segmenter import IMAGENET, Segmenter

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


class Tiny(Segmenter):
    """Two convolutions, stride 8: quick to compile."""

    pixels = IMAGENET
    stride = 8

    def __init__(self, classes: int, feature_channels: int, attention: bool) -> None:
        super().__init__(classes, feature_channels, attention)
        self.body = nn.Sequential(nn.Conv2d(3, feature_channels, 8, stride=8), nn.ReLU())
        self.head = nn.Conv2d(feature_channels, classes, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.through(self.body, pixels)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = self.head(features)
        return (logits,)


def placed(compile: bool) -> Segmenter:
    torch.manual_seed(0)
    network = Tiny(classes=5, feature_channels=8, attention=True)
    Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0, compile=compile).place(network)
    return network


def losses(network: Segmenter, steps: int = 3) -> list[float]:
    """Of a few updates on one batch, source and target passes in each."""
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = (images[:, 0, ::8, ::8] // 52).long()
    optimizer, found = torch.optim.SGD(network.parameters(), lr=1e-2), []
    for _ in range(steps):
        optimizer.zero_grad()
        source, target = network(images), network(255 - images)
        assert target.attention is not None
        loss = nn.functional.cross_entropy(source.logits, labels) + target.attention.mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same() -> None:
    from torch._inductor import config  # takes a second

    plain, compiled = placed(compile=False), placed(compile=True)
    compiled.checkpointing = True  # both together, too
    # To spend less time in the C++ compiler: no trials of the vectors this CPU has, and no precompiled headers.
    with config.patch({"cpp.vec_isa_ok": True, "cpp.simdlen": 1, "cpp_cache_precompile_headers": False}):
        found = losses(compiled)
    assert found == pytest.approx(losses(plain), abs=1e-4)
    state = compiled.state_dict()
    assert list(state) == list(plain.state_dict())
    for key, values in plain.state_dict().items():
        torch.testing.assert_close(state[key], values, rtol=0, atol=1e-4)


def test_a_machine_that_cannot_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found.\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", fails)
    Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0).need_compiler()
    with pytest.raises(UsageError, match=r"does not work on this machine \(Inv.* found\)\. Install") as error:
        Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0, compile=True).need_compiler()
    assert error.value.where == "runtime.compile"


def test_copies_are_not_compiled() -> None:
    compiled = placed(compile=True)
    assert compiled._compiled_call_impl is not None
    assert copy.deepcopy(compiled)._compiled_call_impl is None
    assert compiled.for_inference()._compiled_call_impl is None
    assert placed(compile=False)._compiled_call_impl is None


def test_what_is_left_to_it_on_a_cpu() -> None:
    with start(RuntimeSettings(device="cpu")) as runtime:
        assert (runtime.workers, runtime.measure_workers, runtime.compile) == (0, False, False)
    with start(RuntimeSettings(device="cpu", workers=3, compile=True)) as runtime:
        assert (runtime.workers, runtime.measure_workers, runtime.compile) == (3, False, True)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_kernels_are_tried_on_a_gpu_while_a_training_lasts(device: str) -> None:
    runtime = Runtime(torch.device(device), "bf16", 0, 1, 1, 0)
    with pytest.raises(ZeroDivisionError), runtime.kernels_by_trial():
        assert torch.backends.cudnn.benchmark is (device == "cuda")
        raise ZeroDivisionError
    assert torch.backends.cudnn.benchmark is False

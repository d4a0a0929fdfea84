"""The benchmarks run, and the reference that segadapt is held against is the same computation."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench
import bf16_accuracy
import gpu
import network_memory
import profile_step
from bf16_accuracy import verdict
from reference import steps
from reference.pictures import predict as plain_predict
from reference.pictures import stylize as plain_stylize
from reference.pictures import view_sum
from reference.reading import known_ids, read_example
from reference.steps import examples_of
from suite import activations, layers, memory
from suite.frames import opened, write_domain
from suite.measure import in_fresh_process, peak_memory
from suite.rows import Report, Row
from suite.sizes import NAMED
from suite.steps import plain_step, union_seconds
from suite.trainings import CLASSES, TIMED, Case, Setup, make_case

from layouts import write_layout
from segadapt.data.label_spaces import load_label_space
from segadapt.data.loader import Sampled, Steps
from segadapt.data.reading import read_rgb
from segadapt.data.samplers import Passes
from segadapt.engine.runtime import Runtime
from segadapt.inference.predictor import PUBLISHED_RULES, Predictor
from segadapt.inference.stylizer import Stylizer
from segadapt.models import networks
from segadapt.models.networks import build
from segadapt.models.segmenter import CAFFE
from segadapt.models.small import WIDTHS, DeepLabSmall, SmallOptions
from segadapt.models.style_transfer import StyleTransfer

TINY = NAMED["tiny"]
CPU = Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0)


class Small(DeepLabSmall):
    """The small network with the published pixels and a second head."""

    pixels = CAFFE
    number_of_heads = 2

    def __init__(self, classes: int, attention: bool = False, options: SmallOptions | None = None) -> None:
        super().__init__(classes, attention, options)
        self.auxiliary = nn.Conv2d(WIDTHS[-1], classes, 3, padding=1)
        nn.init.normal_(self.head.branches[0].weight, std=0.1)  # type: ignore[arg-type]

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.auxiliary(features), *super().heads(features))

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.auxiliary.parameters(), *super().head_parameters()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of `Small` in recipes."""
    monkeypatch.setitem(networks.NETWORKS, "small_caffe", Small)
    return "small_caffe"


def roughen(case: Case) -> None:
    """Let the teacher be another network than the student, so that the consistency loss is not 0."""
    teacher = case.method.modules.get("teacher")
    if teacher is not None:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", TIMED)
def test_the_reference_step_computes_the_same(name: str, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(images: Tensor, sigma: float) -> Tensor:
        return images + sigma * torch.randn(images.shape).flip(1)

    monkeypatch.setattr(steps, "noisy", noisy)  # segadapt's noise is drawn for RGB, the reference's for BGR
    case = make_case(name, Setup(TINY, small), CPU)
    roughen(case)
    plain = plain_step(case)
    for step in range(3):
        batch = case.batch(step)
        torch.manual_seed(batch.seeds[0])  # the reference draws its noise from PyTorch's own generator
        theirs = plain.step(step, *plain.prepared(batch))
        ours = {key: float(value) for key, value in case.update.run(case.method, batch).items()}
        assert set(ours) == set(theirs) - {"miou"}
        assert 0 <= theirs["miou"] <= 100
        for key, value in ours.items():
            assert theirs[key] == pytest.approx(value, rel=1e-4, abs=1e-9), f"{key} of step {step}"
            assert value > 0


def test_the_reference_reads_the_same(tmp_path: Path) -> None:
    space = load_label_space("cityscapes19")
    settings = write_domain(tmp_path / "gta5", "gta5", (100, 60), 1)
    data = opened(settings, (64, 32))
    batch = Steps(0, 1, Sampled(data, Passes(0, 1, images=1, domain=0)), None)[0]
    ours = examples_of(batch.source)  # type: ignore[union-attr]
    theirs = read_example(data.pairs[0], (64, 32), known_ids(space, "cityscapes"))
    assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    assert (theirs.labels < len(space)).any()


@pytest.mark.numeric
def test_the_reference_sums_views_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Small(CLASSES).eval()
    data = opened(write_domain(tmp_path / "cityscapes", "cityscapes", (128, 64), 1), (64, 32))
    image = data.image(0)
    scales, rules = (1.0, 0.75, 1.25, 1.5), PUBLISHED_RULES
    ours = Predictor(network, (64, 32), scales=scales, mirror=True, rules=rules).probabilities(image, (64, 32))
    pixels = CAFFE(torch.from_numpy(np.array(read_rgb(data.pairs[0].image, (64, 32)))).permute(2, 0, 1)[None])
    with torch.no_grad():
        theirs = view_sum(network, pixels)[0] / 8
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    labels, maps = plain_predict(network, data.pairs[0].image, (64, 32))
    alone = Predictor(network, (64, 32))
    np.testing.assert_allclose(alone.probabilities(image), maps, atol=1e-5)
    assert (alone.labels(image) == labels).mean() > 0.999


@pytest.mark.numeric
def test_the_reference_stylizes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = StyleTransfer()
    data = opened(write_domain(tmp_path / "gta5", "gta5", (64, 32), 1), (64, 32))
    ours = Stylizer(network, (64, 32), truncated=True)([data.image(0)])[0]
    plain_stylize(network, [data.pairs[0].image], tmp_path / "plain", (64, 32))
    theirs = np.asarray(read_rgb(tmp_path / "plain" / "00000.png"))
    assert (np.abs(ours.astype(int) - theirs) <= 1).all() and (ours == theirs).mean() > 0.99


def run(json_file: Path, *options: str) -> list[dict[str, Any]]:
    """The rows of a benchmark of tiny things."""
    tiny = ["--sizes", "tiny", "--network", "deeplab_small", "--pairs", "1", "--images", "1", "--threads", "1"]
    bench.main([*tiny, "--json", str(json_file), *options])
    content = json.loads(json_file.read_text())
    assert {"cpu", "torch", "threads", "device", "date"} <= set(content)
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def check(row: dict[str, Any], *, bare: bool = True) -> None:
    """A row whose figures fit together."""
    for key in ("seconds", "reference", "ratio", *(("bare", "efficiency") if bare else ())):
        spread = row[key]
        assert 0 < spread["low"] <= spread["median"] <= spread["high"] < math.inf, (row["what"], key)
    assert row["ratio"]["median"] == pytest.approx(row["reference"]["median"] / row["seconds"]["median"])


def test_steps(tmp_path: Path) -> None:
    options = ("--reference", "--only", "steps", "--peak-tflops", "1")
    rows = run(tmp_path / "all.json", *options, "--precisions", "fp32")
    rows += run(tmp_path / "one.json", *options, "--precisions", "bf16", "--methods", "sean")  # slow where emulated
    assert [(row["what"], row["precision"]) for row in rows] == [*((name, "fp32") for name in TIMED), ("sean", "bf16")]
    for row in rows:
        check(row)
        assert row["more"]["mfu"] == pytest.approx(row["more"]["tflops"]) and row["more"]["mfu"] > 0


def test_reading_and_pictures(tmp_path: Path) -> None:
    parts = ("loader", "evaluation", "stylize", "predict")
    rows = run(tmp_path / "rows.json", "--reference", "--only", *parts, "--precisions", "fp32")
    assert [row["part"] for row in rows] == ["loader"] * 15 + ["evaluation"] * 3 + ["stylize", "predict"]
    for row in rows:
        check(row, bare=row["part"] != "loader" or row["what"].endswith("files"))


def test_layers(tmp_path: Path) -> None:
    rows = run(tmp_path / "rows.json", "--only", "layers", "--precisions", "bf16")
    assert [row["what"].split(",")[0] for row in rows] == ["head", "head", "bottleneck", "bottleneck"]
    for row in rows:
        check(row, bare=False)


@pytest.mark.numeric
def test_layers_are_the_usual_ones() -> None:
    torch.manual_seed(0)
    for layer in layers.layers():
        maps = torch.rand(1, layer.channels, 5, 9, requires_grad=True)
        ours = layers.both_ways(layer.module, nn.Module.__call__, CPU, maps)
        usual = layers.both_ways(layer.module, layer.usual, CPU, maps)
        for a, b in zip(ours, usual, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_memory_and_linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(memory, "in_fresh_process", here)  # a process takes seconds to begin
    options = ("--methods", "sean", "--precisions", "fp32", "--linear-images", "1")
    peak, *linear = run(tmp_path / "rows.json", "--only", "memory", "linear", *options)
    if peak["more"]:  # where the system tells a process its memory
        assert {"step_mb", "step_reference_mb", "step_ratio", "whole_ratio"} <= set(peak["more"])
    (two,) = run(tmp_path / "two.json", "--only", "memory", "--accumulate", "2", *options)
    assert two["what"] == "sean, 2 micro-batches" and "step_ratio" not in two["more"]
    assert [row["what"] for row in linear] == ["prepare", "check", "stylize", "evaluate"]
    assert all(row["more"]["time_ratio"] > 0 for row in linear)


def test_a_fresh_process_is_another_one() -> None:
    assert in_fresh_process(os.getpid) != os.getpid()


def test_peak_memory_sees_what_is_gone_again() -> None:
    found = peak_memory(lambda: torch.ones(20_000_000).sum(), torch.device("cpu"))  # 80 MB
    assert found is None or 70 < found.added_mb < 120


def test_the_gpu_script_runs_on_a_cpu(tmp_path: Path) -> None:
    file, some = (
        tmp_path / "gpu.json",
        ("se_gan step, bf16", "se_gan end to end", "se_gan memory", "stylize", "mic step"),
    )
    with patch.object(gpu, "EVERY", ("se_gan", "mic")):
        gpu.main(["--tiny", "--minutes", "9", "--json", str(file), "--peak-tflops", "1", "--only", *some])
    content = json.loads(file.read_text())
    found = {(row["part"], row["what"], row["precision"], row["note"].split(";")[0]): row for row in content["rows"]}
    assert content["left_out"] == content["cut_off"] == [] and content["failed"] == {}
    alone, whole = found["steps", "se_gan", "bf16", "eager"], found["end to end", "se_gan", "bf16", ""]
    assert alone["more"]["mfu"] > 0 and alone["ratio"]["median"] > 0 and whole["ratio"]["median"] > 0
    assert found["steps", "mic", "fp32", "eager"]["ratio"] is None  # it has no reference here
    assert whole["more"]["hours_of_50000_steps"] == pytest.approx(50_000 * whole["seconds"]["median"] / 3600)
    first = next(row for row in content["rows"] if row["what"] == "se_gan")
    flops = [row["more"]["tflops"] * row["seconds"]["median"] for row in (first, whole)]
    assert flops[0] == pytest.approx(flops[1])
    assert {("memory", "fp32"), ("stylize", "bf16"), ("predict", "bf16")} <= {(p, c) for p, _, c, _ in found}


def test_a_part_of_the_gpu_script_that_hangs_or_fails_does_not_end_the_others(tmp_path: Path) -> None:
    def broken() -> Iterator[Row]:
        yield Row("first", "a", "")
        raise RuntimeError("no such kernel")

    def endless() -> Iterator[Row]:
        yield Row("second", "b", "")
        while True:
            sum(range(100))

    def good() -> Iterator[Row]:
        yield Row("third", "c", "")

    class Plan:
        device = torch.device("cpu")

        def parts(self) -> list[gpu.Part]:
            return [gpu.Part("x", 9, broken), gpu.Part("y", 0.05, endless), gpu.Part("z", 9, good)]

    report = Report({"segadapt": "", "torch": "", "cpu": "", "threads": 1}, tmp_path / "rows.json")
    gpu.measure(Plan(), report, 1)  # type: ignore[arg-type]
    content = json.loads((tmp_path / "rows.json").read_text())
    assert [row["part"] for row in content["rows"]] == ["first", "second", "third"]
    assert content["failed"] == {"x": "RuntimeError: no such kernel"} and content["cut_off"] == ["y"]


def test_the_gpu_script_keeps_to_its_minutes(tmp_path: Path) -> None:
    gpu.main(["--tiny", "--minutes", "0", "--json", str(tmp_path / "gpu.json")])
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["rows"] == [] and "se_gan end to end, bf16" in content["left_out"]


def test_bf16_accuracy_trains_and_scores(tmp_path: Path) -> None:
    write_layout(tmp_path / "carla", "carla", (96, 48))
    write_layout(tmp_path / "camvid", "camvid", (96, 48))
    for split in ("val", "test"):
        shutil.copytree(tmp_path / "camvid" / "train", tmp_path / "camvid" / split)
        shutil.copytree(tmp_path / "camvid" / "trainannot", tmp_path / "camvid" / f"{split}annot")
    few = ["--steps", "2", "--seeds", "1", "--start-steps", "1", "--size", "96x48", "--holdout", "1", "--threads", "1"]
    bf16_accuracy.main([str(tmp_path / "carla"), str(tmp_path / "camvid"), *few, "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "bf16.json").read_text())
    assert {len(values) for values in found["miou"].values()} == {1} and found["allowed"] == 1
    starts = {
        yaml.safe_load((tmp_path / "out" / f"{p}_seed0" / "recipe.yaml").read_text())["stages"]["se_gan"]["start"]
        for p in ("fp32", "bf16")
    }
    assert starts == {str(tmp_path / "out" / "start" / "start" / "model.safetensors")}


def test_bf16_is_judged_by_the_spread_of_the_seeds() -> None:
    apart = verdict({"fp32": [30.0, 30.2, 30.4], "bf16": [28.6, 28.8, 29.0]})
    assert apart["difference"] == pytest.approx(-1.4) and apart["allowed"] == 1 and not apart["equal"]
    wide = verdict({"fp32": [29.0, 30.0, 31.0], "bf16": [27.6, 28.6, 29.6]})
    assert wide["allowed"] == pytest.approx(2) and wide["equal"]


def test_busy_time_is_the_union_of_what_ran() -> None:
    assert union_seconds([(0, 2e6), (1e6, 3e6), (5e6, 6e6), (5.2e6, 5.4e6)]) == pytest.approx(4)


def test_a_profile_sorts_all_of_a_steps_time(tmp_path: Path, small: str) -> None:
    file = tmp_path / "profile.json"
    few = ["--sizes", "tiny", "--network", small, "--precisions", "fp32", "--steps", "1", "--threads", "1"]
    profile_step.main(["se_gan", *few, "--reference", "--json", str(file)])
    (found,) = json.loads(file.read_text())["steps"]
    for way in ("segadapt", "reference"):
        kinds = found["kinds"][way]
        assert set(kinds) == {*profile_step.KINDS, profile_step.OTHER}
        assert kinds["convolutions"] > 0 and kinds["softmax and losses"] > 0 and found["seconds"][way] > 0
    assert found["flops"] > 0 and found["best_flops"] > 0
    names = ("aten::mkldnn_convolution", "aten::native_group_norm", "aten::_log_softmax", "_fused_adam_", "aten::mul")
    kinds = ["convolutions", "norms", "softmax and losses", "optimizer, moving average", profile_step.OTHER]
    assert [profile_step.kind_of(name) for name in names] == kinds


def test_without_a_reference_there_are_no_ratios(tmp_path: Path) -> None:
    (row,) = run(tmp_path / "rows.json", "--only", "steps", "--methods", "sean", "--precisions", "fp32")
    assert row["reference"] is None and row["ratio"] is None and row["bare"] is not None
    with pytest.raises(SystemExit):
        bench.main(["--only", "everything"])


def test_the_memory_of_networks_is_estimated_without_their_numbers() -> None:
    """On the meta device; attention keeps no matrix, so that twice the pixels take twice the memory."""
    network = network_memory.on_meta({"name": "segformer", "size": "b0", "width": 16})
    one, two = (network_memory.kept(network, 128, batch) for batch in (1, 2))
    assert 1.9 * one < two <= 2 * one and network_memory.kept(network, 128, 1, checkpointing=True) < 0.8 * one
    (*_, row) = network_memory.table(["deeplab_small"], [64], 1).splitlines()
    assert row.startswith("| `deeplab_small` | 0.7 million | 0.0 GB | 0.0 GB (0.0) |")


def test_activations_without_a_pass_are_those_of_one() -> None:
    """Fake tensors keep what real ones do; twice the images twice of it, and a frozen encoder keeps nothing."""
    size, network = (64, 32), build("deeplab_small", classes=19)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def seen(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        output = network(torch.zeros(2, 3, 32, 64, dtype=torch.uint8))
        loss = nn.functional.cross_entropy(
            network.upsample(output.logits, (32, 64)), torch.zeros(2, 32, 64, dtype=torch.long)
        )
    real = sum(storage.nbytes() for storage in kept.values())
    assert loss.requires_grad and activations.activations("deeplab_small", size) == real
    assert activations.activations("deeplab_small", size, batch=4) == pytest.approx(2 * real, rel=0.01)
    dino = {"name": "dinov3", "size": "s"}
    frozen = activations.activations(dino | {"freeze": "encoder"}, size)
    assert 0 < frozen < 0.2 * activations.activations(dino, size)


def test_the_cost_of_a_video() -> None:
    pytest.importorskip("av", reason="the extra is not installed: pip install 'segadapt[video]'")
    import video

    found = video.costs(video.Case((64, 32), (32, 16), models=2, frames=6, device="cpu"))
    assert list(found) == ["reading", "network", "writing", "one after another", "all of it"]
    for kind in (0, 1):
        *parts, together, _ = (cost[kind] for cost in found.values())
        assert together == pytest.approx(sum(parts)) and min(parts) > 0

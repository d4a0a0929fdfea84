"""What a training step costs beside the bare forward and backward passes of its networks.

    python benchmarks/step.py [--methods sean se_gan] [--sizes 1024x512 240x160] [--precisions fp32 bf16] [--pairs 5]
                              [--network deeplab_vgg16] [--threads 2]

The bare passes are those of each network call of the step, with the same weights, pixels, dtype and memory format: for
SEAN the teacher's forward, the student's forward and backward on source and target; for SE-GAN the same and the
discriminators' (on the target's maps with gradients to the maps, on both domains' maps with gradients to the weights);
for TGSTN two forward passes of the generator and one backward, the segmenter's on original and stylized pixels, the
discriminator's four; for self-training one forward and backward. The step adds the losses at full size, softmax maps,
noise, the check for finite gradients, the optimizers and the moving average; reading images is timed by loader.py. Bare
passes and steps take turns, so that a machine whose speed drifts slows both; the figure is the median of the pairs'
ratios with its 10-90 % range.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from segadapt.batch import Batch, Images
from segadapt.engine.runtime import Precision, Runtime, choose_device
from segadapt.engine.updater import GradientUpdater
from segadapt.methods.method import Method, frozen
from segadapt.methods.se_gan import SeGan, SeGanSettings
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.self_training import SelfTraining, SelfTrainingSettings
from segadapt.methods.tgstn import Tgstn, TgstnSettings
from segadapt.models.networks import NETWORKS, build
from segadapt.models.segmenter import CAFFE
from segadapt.models.style_transfer import StyleTransfer

METHODS = ("sean", "se_gan", "self_training", "tgstn")
STEPS = 1000  # of the schedules; none is reached


def random_batch(size: tuple[int, int], step: int) -> Batch:
    """One source and one target image of noise, labels in blocks."""
    width, height = size
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (2, 1, height, width, 3), dtype=torch.uint8, generator=generator).permute(
        0, 1, 4, 2, 3
    )
    labels = torch.randint(0, 19, (1, height // 8, width // 8), generator=generator).byte()
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return Batch(step, (step,), Images(images[0], labels, ("s",)), Images(images[1], labels, ("t",)))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, with the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def make(name: str, network: str) -> Method:
    """The method with its published settings over fresh networks."""
    segmenter = build(network, classes=19, attention=name == "sean")
    match name:
        case "sean":
            return Sean(segmenter, SeanSettings(steps=STEPS, network=network))
        case "se_gan":
            return SeGan(segmenter, SeGanSettings(steps=STEPS, network=network, optimizer="sgd", noise=1), STEPS)
        case "self_training":
            settings = SelfTrainingSettings(steps=STEPS, network=network, optimizer="sgd", labels="@none")
            return SelfTraining(segmenter, settings)
    return Tgstn(StyleTransfer(), segmenter, TgstnSettings(steps=STEPS, segmenter="@none"))


def total(tensors: list[Tensor]) -> Tensor:
    """A scalar that sends a gradient of ones back."""
    return torch.stack([tensor.float().sum() for tensor in tensors]).sum()


def bare_sean(method: Sean | SeGan, batch: Batch) -> Tensor:
    """Teacher on the target, student on target and source."""
    assert batch.source is not None and batch.target is not None
    with torch.no_grad():
        method.teacher(batch.target.images)
    passes = [method.student(images.images) for images in (batch.target, batch.source)]
    return total([head for output in passes for head in output.heads])


def bare_se_gan(method: SeGan, batch: Batch) -> Tensor:
    """The same, and each discriminator three times."""
    passes = [bare_sean(method, batch)]
    assert batch.source is not None
    classes, size = method.student.classes, batch.source.images.shape[-2:]
    for d in method.players.values():
        maps = torch.rand(len(batch.seeds), classes, *size, device=batch.source.images.device)
        with frozen(d):
            passes.append(total([d(maps.clone().requires_grad_())]))
        passes += [total([d(maps)]), total([d(maps)])]
    return total(passes)


def bare_tgstn(method: Tgstn, batch: Batch) -> Tensor:
    """Generator twice (backward once), segmenter twice (backward to its input once), discriminator four times."""
    assert batch.source is not None
    pixels = CAFFE(batch.source.images)
    with torch.no_grad():
        method.generator(pixels)
        method.segmenter.segment(pixels)
    stylized = method.generator(pixels)
    d = method.discriminator
    with frozen(d):
        fooled = d(stylized.detach().requires_grad_())
    real = [d(pixels) for _ in range(3)]
    return total([stylized, method.segmenter.segment(stylized).logits, fooled, *real])


def bare_self_training(method: SelfTraining, batch: Batch) -> Tensor:
    """The network on the target."""
    assert batch.target is not None
    return total(list(method.network(batch.target.images).heads))


def bare(method: Method, batch: Batch, runtime: Runtime) -> None:
    """Forward and backward passes of the method's networks alone."""
    with runtime.autocast():
        match method:
            case SeGan():
                result = bare_se_gan(method, batch)
            case Sean():
                result = bare_sean(method, batch)
            case Tgstn():
                result = bare_tgstn(method, batch)
            case SelfTraining():
                result = bare_self_training(method, batch)
            case _:
                raise AssertionError(type(method))
    result.backward()  # type: ignore[no-untyped-call]
    for module in method.modules.values():
        module.zero_grad(set_to_none=True)


def measure(name: str, network: str, size: tuple[int, int], runtime: Runtime, pairs: int) -> list[tuple[float, float]]:
    """(bare, step) seconds of each pair, after one of each for warming up."""
    torch.manual_seed(0)
    method = make(name, network)
    for module in (*method.modules.values(), *method.helpers.values()):
        module.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
    update = GradientUpdater(method.optimizers, runtime)
    found = []
    for pair in range(pairs + 1):
        batch = random_batch(size, pair).to(runtime.device)
        times = [0.0, 0.0]
        # Which of the two goes first takes turns as well.
        for which in (0, 1) if pair % 2 else (1, 0):
            work = partial(bare, method, batch, runtime) if which == 0 else partial(method.step, batch, update)
            times[which] = seconds(work, runtime.device)
        found.append((times[0], times[1]))
    return found[1:]


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=["sean"], choices=METHODS)
    parser.add_argument("--network", default="deeplab_vgg16", choices=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=["1024x512", "240x160"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    table = Table("method", "size", "precision", "bare s", "step s", "step / bare", "10-90 %")
    rows = []
    for name, text, precision in itertools.product(options.methods, options.sizes, options.precisions):
        width, height = (int(side) for side in text.split("x"))
        kind: Precision = "bf16" if precision == "bf16" else "fp32"
        runtime = Runtime(device, kind, 0, 1, options.threads, 0)
        times = np.array(measure(name, options.network, (width, height), runtime, options.pairs))
        ratios = times[:, 1] / times[:, 0]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        bare_time, step_time = np.median(times, axis=0)
        table.add_row(
            name, text, precision, f"{bare_time:.3f}", f"{step_time:.3f}", f"{middle:.3f}", f"{low:.3f}-{high:.3f}"
        )
        about = {"method": name, "network": options.network, "size": [width, height], "precision": precision}
        rows.append({**about, "pairs": times.tolist(), "ratio": [low, middle, high]})
    Console().print(f"torch {torch.__version__}, {device}, {options.threads} threads, {options.pairs} pairs")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

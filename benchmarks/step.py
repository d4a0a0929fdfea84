"""What a training step costs beside the bare forward and backward passes of its networks.

    python benchmarks/step.py [--sizes 1024x512 240x160] [--precisions fp32 bf16] [--pairs 5] [--threads 2]

For SEAN the bare passes are the teacher's forward and the student's forward and backward on source and target, with the
same weights, pixels, dtype and memory format. The step adds the loss at full size, noise, the check for finite
gradients, Adam and the moving average; reading images is timed by loader.py. Bare passes and steps take turns, so that
a machine whose speed drifts slows both; the figure is the median of the pairs' ratios with its 10-90 % range.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from segadapt.batch import Batch, Images
from segadapt.engine.runtime import Precision, Runtime, choose_device
from segadapt.engine.updater import GradientUpdater
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.models.networks import build


def random_batch(size: tuple[int, int], step: int) -> Batch:
    """One source and one target image of noise, labels in blocks."""
    width, height = size
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (2, 1, height, width, 3), dtype=torch.uint8, generator=generator).permute(
        0, 1, 4, 2, 3
    )
    labels = torch.randint(0, 19, (1, height // 8, width // 8), generator=generator).byte()
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return Batch(step, (step,), Images(images[0], labels, ("s",)), Images(images[1], None, ("t",)))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, with the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measure(size: tuple[int, int], runtime: Runtime, pairs: int) -> list[tuple[float, float]]:
    """(bare, step) seconds of each pair, after one of each for warming up."""
    torch.manual_seed(0)
    network = build("deeplab_vgg16", classes=19, attention=True)
    network = network.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
    method = Sean(network, SeanSettings(steps=pairs + 1))
    update = GradientUpdater(method.optimizers, runtime)

    def bare(batch: Batch) -> None:
        assert batch.source is not None and batch.target is not None
        with runtime.autocast():
            with torch.no_grad():
                method.teacher(batch.target.images)
            passes = [method.student(images.images).logits for images in (batch.target, batch.source)]
        torch.stack([logits.float().sum() for logits in passes]).sum().backward()  # type: ignore[no-untyped-call]
        method.student.zero_grad(set_to_none=True)

    found = []
    for pair in range(pairs + 1):
        batch = random_batch(size, pair).to(runtime.device)
        times = [0.0, 0.0]
        # Which of the two goes first takes turns as well.
        for which in (0, 1) if pair % 2 else (1, 0):
            work = (lambda b=batch: bare(b)) if which == 0 else (lambda b=batch: method.step(b, update))
            times[which] = seconds(work, runtime.device)
        found.append((times[0], times[1]))
    return found[1:]


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", nargs="+", default=["1024x512", "240x160"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    table = Table("SEAN step", "precision", "bare s", "step s", "step / bare", "10-90 %")
    rows = []
    for text in options.sizes:
        width, height = (int(side) for side in text.split("x"))
        for precision in options.precisions:
            kind: Precision = "bf16" if precision == "bf16" else "fp32"
            runtime = Runtime(device, kind, 0, 1, options.threads, 0)
            times = np.array(measure((width, height), runtime, options.pairs))
            ratios = times[:, 1] / times[:, 0]
            low, middle, high = np.percentile(ratios, [10, 50, 90])
            bare, step = np.median(times, axis=0)
            table.add_row(text, precision, f"{bare:.3f}", f"{step:.3f}", f"{middle:.3f}", f"{low:.3f}-{high:.3f}")
            rows.append(
                {"size": [width, height], "precision": precision, "pairs": times.tolist(), "ratio": [low, middle, high]}
            )
    Console().print(f"torch {torch.__version__}, {device}, {options.threads} threads, {options.pairs} pairs")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

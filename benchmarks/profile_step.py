"""Where the time of a training step goes: its operations by kind, and how far it is from the device's best.

    python benchmarks/profile_step.py sean se_gan [--sizes half] [--precisions fp32 bf16] [--reference] [--json FILE]

For each method and precision one table: milliseconds of one step (mean of `--steps` profiled ones) and their share, by
kind of operation, with the reference's step beside it if asked for. Below it the operations per second of the bare
passes in the whole step, and of a large matrix product in the same precision, which is what this device can do at best.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from reference.defaults import pytorch_defaults
from rich.console import Console
from rich.table import Table
from suite.machine import describe
from suite.measure import cores
from suite.sizes import NAMED, parse_sizes, shown
from suite.steps import needed_flops, plain_step
from suite.trainings import TIMED, Case, Setup, make_case
from torch.profiler import ProfilerActivity, profile

from segadapt.devices import choose_device
from segadapt.engine.runtime import Precision, Runtime
from segadapt.files import write_json

KINDS: dict[str, tuple[str, ...]] = {
    "convolutions": ("conv", "aten::addmm", "aten::mm", "aten::bmm"),
    "norms": ("batch_norm", "group_norm", "var_mean", "rsqrt"),
    "pooling": ("pool2d",),
    "ReLU, sigmoid": ("threshold", "clamp_min", "relu", "sigmoid"),
    "padding, nearest upsampling": ("reflection_pad", "replication_pad", "upsample_nearest", "constant_pad"),
    "bilinear upsampling": ("upsample_bilinear",),
    "softmax and losses": ("softmax", "nll_loss", "mse_loss", "binary_cross_entropy", "bincount", "gather", "scatter"),
    "optimizer, moving average": ("_fused_", "_foreach_", "addcdiv", "linalg_vector_norm", "sqrt"),
    "copies and casts": ("copy_", "aten::cat", "aten::fill_", "zero_", "index", "contiguous"),
}
"""Kind -> parts of the names of its operations; the first kind that fits counts."""
OTHER = "sums, products, the rest"
PRODUCT = 2048
"""Side of the square matrices whose product shows the device's best."""


def kind_of(operation: str) -> str:
    """The kind of an operation by its name in the profile."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), OTHER)


def self_milliseconds(work: Callable[[], object], steps: int, device: torch.device) -> dict[str, float]:
    """Kind -> milliseconds of one call of `work`, on the device."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            work()
        if on_gpu:
            torch.cuda.synchronize()
    found = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiled.key_averages():
        if "CUDA" in str(event.device_type):
            continue  # a kernel: its time is that of the operation which launched it, too
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found[kind_of(str(event.key))] += float(spent) / 1e3 / steps
    return found


def seconds_of(work: Callable[[], object], steps: int, device: torch.device) -> float:
    """Wall time of one call, without the profiler."""
    start = time.perf_counter()
    for _ in range(steps):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def best_flops(device: torch.device, precision: str, rounds: int = 5) -> float:
    """Operations per second of a large matrix product, the best of some rounds."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(PRODUCT, PRODUCT, device=device).to(dtype)
    return 2 * PRODUCT**3 / min(seconds_of(lambda: matrix @ matrix, 1, device) for _ in range(rounds + 1))


def profiled_step(case: Case, setup: Setup, steps: int, reference: bool) -> dict[str, Any]:
    """One table's content."""
    device, batch = case.runtime.device, case.batch(0)

    def ours() -> None:
        case.update.run(case.method, batch)

    works: dict[str, Callable[[], None]] = {"segadapt": ours}
    if reference:
        plain = plain_step(case)
        examples = plain.prepared(batch)

        def theirs() -> None:
            with pytorch_defaults():
                plain.step(0, *examples)

        works["reference"] = theirs
    found: dict[str, Any] = {"method": case.name, "precision": case.runtime.precision, "kinds": {}, "seconds": {}}
    with case.runtime.kernels_by_trial():
        for name, work in works.items():
            work()  # the first one makes the optimizers' states
            found["seconds"][name] = seconds_of(work, steps, device)
            found["kinds"][name] = self_milliseconds(work, steps, device)
    found["size"] = shown(case.size, case.target_size)
    found["flops"] = needed_flops(case.name, setup, case.runtime)
    found["best_flops"] = best_flops(device, case.runtime.precision)
    return found


def show(console: Console, found: dict[str, Any]) -> None:
    """The table of one step."""
    ways = list(found["kinds"])
    table = Table("kind of operation", title=f"{found['method']}, {found['size']}, {found['precision']}")
    for way in ways:
        table.add_column(f"{way}, ms", justify="right")
        table.add_column("share", justify="right")
    totals = {way: sum(found["kinds"][way].values()) for way in ways}
    for kind in [*KINDS, OTHER]:
        cells = [(f"{found['kinds'][way][kind]:.1f}", f"{found['kinds'][way][kind] / totals[way]:.1%}") for way in ways]
        table.add_row(kind, *(cell for pair in cells for cell in pair))
    console.print(table)
    rate, best = found["flops"] / found["seconds"]["segadapt"], found["best_flops"]
    seconds = ", ".join(f"{way} {seconds:.3f} s" for way, seconds in found["seconds"].items())
    console.print(f"a step: {seconds}; {rate / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s ({rate / best:.0%})\n")


def main(given: Sequence[str] | None = None) -> None:
    """Profile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=TIMED, metavar="METHOD", help=", ".join(TIMED))
    parser.add_argument("--sizes", type=parse_sizes, default=NAMED["half"], help=f"{', '.join(NAMED)} or WxH")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--network", help="instead of the published ones (loses the meaning)")
    parser.add_argument("--steps", type=int, default=2, help="steps of which the mean is taken")
    parser.add_argument("--reference", action="store_true", help="beside the published programs' way")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(given)
    device = choose_device(options.device)
    torch.set_num_threads(options.threads)
    console, tables = Console(), []
    for method in options.methods:
        for precision in cast(Sequence[Precision], options.precisions):
            runtime = Runtime(device, precision, 0, 1, options.threads, 0)
            setup = Setup(options.sizes, options.network)
            tables.append(profiled_step(make_case(method, setup, runtime), setup, options.steps, options.reference))
            show(console, tables[-1])
    if options.json is not None:
        write_json(options.json, {"machine": describe(device), "steps": tables})


if __name__ == "__main__":
    main()

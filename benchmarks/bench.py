"""How fast segadapt is here, how near to its networks alone, and how much faster than the published programs' way.

    python benchmarks/bench.py [--quick] [--reference] [--json FILE]
    python benchmarks/bench.py --only steps --sizes half --reference --precisions fp32 bf16 --pairs 7

prints one table and writes one JSON. Parts (`--only`):

    steps        a training step of each method; bare: its network passes
    loader       reading a sample, CPU time on one core; bare: Pillow's decoding and resizing
    evaluation   scores and pseudo-labels of an image; bare: the forward pass of every view
    stylize      a stylized copy; bare: the generator
    predict      latency of one image file; bare: the forward pass
    memory       peak memory of a step, at the published sizes unless `--sizes` says otherwise, each in a fresh process
    layers       layers that are written otherwise than usual, beside the usual way
    linear       prepare, check, stylize, evaluate on N and 10·N images

What is timed takes turns with its bare work and the reference, so that a machine whose speed drifts slows all alike;
figures are medians of seconds with their 10-90 % range; efficiency is bare / whole, ratio is reference / ours, pair by
pair. Run it on a machine that does nothing else.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from suite import linear, pictures
from suite.layers import layer_rows
from suite.loading import loader_rows
from suite.machine import describe, peak_flops
from suite.measure import cores
from suite.memory import memory_rows
from suite.rows import Report, Row
from suite.sizes import NAMED, Sizes, parse_sizes
from suite.steps import step_rows
from suite.trainings import RESNET, TIMED, Setup

from segadapt.devices import choose_device
from segadapt.engine.runtime import Precision, Runtime
from segadapt.models.networks import NETWORKS

PARTS = ("steps", "loader", "evaluation", "stylize", "predict", "layers", "memory", "linear")
QUICK_PARTS = PARTS[:5]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with what `--quick` and the device decide filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="bf16, quarter sizes, few pairs, the first five parts")
    parser.add_argument(
        "--reference", action="store_true", help="beside the published programs' way (layers, memory: always)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--methods", nargs="+", choices=TIMED, default=TIMED, metavar="METHOD", help=", ".join(TIMED))
    parser.add_argument("--sizes", type=parse_sizes, help=f"{', '.join(NAMED)} or WxH; default half, GPU published")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), help="default both; quick bf16")
    parser.add_argument("--pairs", type=int, help="rounds in which works take turns; default 5, quick 2")
    parser.add_argument("--images", type=int, help="images of a round of evaluation; default 4, quick 1")
    parser.add_argument("--linear-images", type=int, default=20, help="N of the linear part")
    parser.add_argument("--network", choices=list(NETWORKS), help="instead of the published ones (loses the meaning)")
    parser.add_argument("--compile", action="store_true", help="steps of compiled networks")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations twice, to save memory")
    parser.add_argument(
        "--accumulate", type=int, default=1, metavar="K", help="memory: batches of K images in K micro-batches"
    )
    parser.add_argument("--published-rules", action="store_true", help="put views together as the published program")
    parser.add_argument("--picture", type=Path, help="a street picture for the loader, instead of a drawn one")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads; default: all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak in 10^12 operations per second, for MFU")
    parser.add_argument("--json", type=Path, help="write the figures there")
    found = parser.parse_args(given)
    found.device = choose_device(found.device)
    usual = NAMED["published" if found.device.type == "cuda" else "half"]
    found.memory_sizes = found.sizes or NAMED["published"]
    found.sizes = found.sizes or (NAMED["quarter"] if found.quick else usual)
    found.only = found.only or (QUICK_PARTS if found.quick else PARTS)
    found.precisions = found.precisions or (("bf16",) if found.quick else ("fp32", "bf16"))
    found.pairs = found.pairs or (2 if found.quick else 5)
    found.images = found.images or (1 if found.quick else 4)
    return found


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """All rows that were asked for, part by part; `folder` is for files."""
    sizes: Sizes = options.sizes
    runtimes = [
        Runtime(options.device, precision, 0, 1, options.threads, 0, compile=options.compile)
        for precision in options.precisions
    ]
    # Files are read at their published sizes, however small the networks' inputs are.
    published = sizes if sizes.name not in NAMED or sizes.name == "tiny" else NAMED["published"]
    if "steps" in options.only:
        yield from step_rows(
            options.methods,
            Setup(sizes, options.network, options.checkpointing),
            runtimes,
            rounds=options.pairs,
            reference=options.reference,
            peak=lambda precision: peak_flops(options.device, precision, options.peak_tflops),
        )
    if "loader" in options.only:
        yield from loader_rows(
            published,
            folder / "loader",
            samples=options.images,
            rounds=options.pairs,
            reference=options.reference,
            picture=options.picture,
        )
    for runtime in runtimes:
        yield from picture_rows(options, runtime, folder / runtime.precision)
    if "layers" in options.only:
        yield from layer_rows(sizes.target, runtimes, options.pairs)
    if "memory" in options.only:
        setup = Setup(options.memory_sizes, options.network, options.checkpointing, options.accumulate)
        precisions = cast(Sequence[Precision], options.precisions)
        yield from memory_rows(options.methods, setup, runtimes[0], precisions)
    if "linear" in options.only:
        small = linear.Setting(folder / "linear", runtimes[0], options.linear_images)
        yield from linear.linear_rows(small, options.pairs)


def picture_rows(options: argparse.Namespace, runtime: Runtime, folder: Path) -> Iterator[Row]:
    """Evaluation, pseudo-labels, stylized copies and prediction in one precision."""
    folder.mkdir()
    setting = pictures.Setting(
        options.sizes,
        runtime,
        folder,
        options.images,
        options.pairs,
        options.reference,
        options.network or RESNET,
        options.published_rules,
    )
    if "evaluation" in options.only:
        yield from pictures.evaluation_rows(setting)
        yield pictures.pseudo_label_row(setting)
    if "stylize" in options.only:
        yield pictures.stylize_row(setting)
    if "predict" in options.only:
        yield pictures.predict_row(setting)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    options = arguments(given)
    torch.set_num_threads(options.threads)
    report = Report({**describe(options.device), "pairs": options.pairs, "sizes": options.sizes.name}, options.json)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            report.add(row)
    report.show()


if __name__ == "__main__":
    main()

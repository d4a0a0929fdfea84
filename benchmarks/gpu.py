"""All that is to be known of segadapt on a GPU, in one call of four minutes.

    python benchmarks/gpu.py [--minutes 4] [--json gpu.json]
    python benchmarks/gpu.py --quick                    # the most wanted of it, in 90 seconds
    python benchmarks/gpu.py --tiny                     # the same on the CPU with small things, to see that it runs

Part by part, the most wanted first: SE-GAN's step as one CUDA graph in bf16 beside the reference's step, with MFU,
idle share, kernels, and how often the host waits; a whole SE-GAN training from prepared copies of generated GTA5 and
Cityscapes frames (loader processes, steps, logging) beside the reference's loop, with the hours of 50,000 steps; the
kernels that take most of a step; SE-GAN launched operation by operation, and in fp32 (which means TF32 convolutions);
the other methods; evaluation, several scales, pseudo-labels and stylized copies in images per second; peak memory.

Each part has a time limit and is cut off there. The JSON file is written anew after each row; what was left out, cut
off or has failed is named in it.
"""

import argparse
import faulthandler
import gc
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from suite import pictures
from suite.end_to_end import Data, Lengths, end_to_end_row, write_data
from suite.gpu_steps import gpu_step_row, kernel_rows, reference_seconds, with_reference
from suite.machine import describe, peak_flops
from suite.measure import cores
from suite.memory import memory_of, memory_row
from suite.rows import Report, Row
from suite.sizes import NAMED
from suite.trainings import EVERY, RESNET, Setup

from segadapt.devices import choose_device
from segadapt.engine.runtime import Precision, RuntimeSettings, start

MAIN = "se_gan"
PROJECTED = 50_000  # steps of the published training
HOUR = 3600
MINUTES, QUICK = 4.0, 1.5
GRACE = 120
"""Seconds after its time in which a call that hangs may end."""


class OutOfTime(BaseException):
    """A part has reached its limit. No Exception, which the code that is measured might take for its own."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    setup: Setup
    rounds: int
    steps: int  # of a round
    frames: int  # per domain
    lengths: Lengths
    images: int  # of a round of evaluation


FULL = Scale(Setup(NAMED["published"]), 3, 20, 4, Lengths(ours=200, warm_up=60, reference=8, log_every=20), 4)
TINY = Scale(Setup(NAMED["tiny"], "deeplab_small"), 1, 1, 2, Lengths(ours=6, warm_up=2, reference=2, log_every=1), 1)


@dataclass(frozen=True)
class Part:
    """A part of the whole, and the seconds after which it is cut off."""

    name: str
    limit: float
    rows: Callable[[], Iterator[Row]]


class Plan:
    """One call: the parts, and what the later ones need of the earlier ones."""

    def __init__(self, scale: Scale, device: torch.device, folder: Path, peak_tflops: float | None) -> None:
        self.scale, self.device, self.folder, self.peak_tflops = scale, device, folder, peak_tflops
        self.alone: Row | None = None  # SE-GAN's step in bf16
        self.references: dict[str, float | None] = {}  # method -> seconds of the reference's step
        self.data: Data | None = None

    def parts(self) -> list[Part]:
        """In the order in which they are wanted."""
        others = [name for name in EVERY if name != MAIN]
        found = [
            Part(f"{MAIN} step, bf16", 40, lambda: self.step(MAIN, "bf16", graph=True)),
            Part(f"{MAIN} end to end, bf16", 140, self.end_to_end),
            Part(f"{MAIN} kernels", 15, self.kernels),
            Part(f"{MAIN} step, fp32", 60, lambda: self.step(MAIN, "fp32", graph=True)),
            Part(f"{MAIN} eager step, bf16", 20, lambda: self.step(MAIN, "bf16", graph=False)),
        ]
        found += [Part(f"{n} step, bf16", 20, lambda n=n: self.step(n, "bf16", graph=True)) for n in others]  # type: ignore[misc]
        found += [
            Part("evaluation", 40, lambda: self.pictures(scored)),
            Part("stylize", 30, lambda: self.pictures(stylized)),
            Part(f"{MAIN} memory", 15, lambda: self.memory(MAIN)),
        ]
        found += [Part(f"{n} eager step, bf16", 15, lambda n=n: self.step(n, "bf16", graph=False)) for n in others]  # type: ignore[misc]
        found += [Part(f"{n} step, fp32", 20, lambda n=n: self.step(n, "fp32", graph=True)) for n in others]  # type: ignore[misc]
        return found

    def step(self, name: str, precision: Precision, graph: bool) -> Iterator[Row]:
        """A step alone; beside the reference's, if there is time for that."""
        scale, peak = self.scale, peak_flops(self.device, precision, self.peak_tflops)
        with start(RuntimeSettings(device=str(self.device), precision=precision)) as place:
            row = gpu_step_row(name, scale.setup, place, graph, scale.rounds, scale.steps, peak)
            if name == MAIN and precision == "bf16" and graph:
                self.alone = row
            try:
                if name not in self.references:
                    steps = max(1, scale.steps // 3)
                    self.references[name] = reference_seconds(name, scale.setup, place, steps)
            finally:
                yield with_reference(row, self.references.get(name))

    def kernels(self) -> Iterator[Row]:
        """The longest ones of SE-GAN's step."""
        if self.device.type != "cuda":
            return
        with start(RuntimeSettings(device=str(self.device), precision="bf16")) as place:
            yield from kernel_rows(MAIN, self.scale.setup, place)

    def end_to_end(self) -> Iterator[Row]:
        """Whole trainings; the figures of the step alone carry over to their steady rate."""
        scale, folder, begun = self.scale, self.folder / "end to end", time.monotonic()
        if self.data is None:
            workers = max(1, min(8, cores(), scale.frames // 2))
            self.data = write_data(self.folder / "data", scale.setup.sizes, scale.frames, workers)
        written = time.monotonic() - begun
        with start(RuntimeSettings(device=str(self.device), precision="bf16")) as place:
            row = end_to_end_row(MAIN, scale.setup, place, self.data, folder, scale.lengths, 1)
        assert row.seconds is not None
        row = row.with_more(hours_of_50000_steps=PROJECTED * row.seconds.median / HOUR, data_s=written)
        if row.reference is not None:
            row = row.with_more(reference_hours=PROJECTED * row.reference.median / HOUR)
        yield self.steady(row, self.alone)

    def steady(self, row: Row, alone: Row | None) -> Row:
        """MFU and idle share at the rate of the whole training, from the work of the step alone."""
        if alone is None or alone.seconds is None or row.seconds is None:
            return row
        slower = row.seconds.median / alone.seconds.median
        found = {name: alone.more[name] / slower for name in ("tflops", "mfu") if name in alone.more}
        busy = alone.more.get("busy_s")
        return row.with_more(**found, idle=None if busy is None else 1 - busy / row.seconds.median)

    def memory(self, name: str) -> Iterator[Row]:
        """Peak memory of a step; in this process, whose other tensors are gone by now."""
        scale = self.scale

        def measured(precision: Precision, reference: bool) -> dict[str, float]:
            with start(RuntimeSettings(device=str(self.device), precision=precision)) as place:
                return memory_of(name, scale.setup, precision, place, reference)

        theirs = measured("fp32", True)
        precisions: tuple[Precision, ...] = ("bf16", "fp32")
        for precision in precisions:
            yield memory_row(name, scale.setup.sizes, precision, measured(precision, False), theirs)

    def pictures(self, make: Callable[[pictures.Setting], Iterator[Row]]) -> Iterator[Row]:
        """Rows of a part that makes files, in bf16."""
        scale, folder = self.scale, self.folder / f"pictures {make.__name__}"
        folder.mkdir()
        with start(RuntimeSettings(device=str(self.device), precision="bf16")) as place:
            network = scale.setup.network or RESNET
            yield from make(pictures.Setting(scale.setup.sizes, place, folder, scale.images, 2, True, network))


def scored(setting: pictures.Setting) -> Iterator[Row]:
    """Scores and pseudo-labels."""
    yield from pictures.evaluation_rows(setting)
    yield pictures.pseudo_label_row(setting)


def stylized(setting: pictures.Setting) -> Iterator[Row]:
    """Stylized copies, and the latency of a prediction."""
    yield pictures.stylize_row(setting)
    yield pictures.predict_row(setting)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Context that ends in OutOfTime after so many seconds, between two lines of Python."""

    def end(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(plan: Plan, report: Report, minutes: float, only: Sequence[str] = ()) -> None:
    """All parts, or those whose names begin with one of `only`, until the time is over.

    `left_out`, `cut_off` and `failed` of the report have what is not there; a part that fails does not end the others.
    """
    until = time.monotonic() + 60 * minutes
    report.about |= {"left_out": list[str](), "cut_off": list[str](), "failed": dict[str, str]()}
    for part in plan.parts():
        if only and not part.name.startswith(tuple(only)):
            continue
        left = until - time.monotonic()
        if left <= 0:
            report.about["left_out"].append(part.name)
            continue
        try:
            with limited(min(part.limit, left)):
                for row in part.rows():
                    report.add(row)
        except OutOfTime:
            report.about["cut_off"].append(part.name)
        except Exception as error:  # of any kind: what is measured next has nothing to do with it
            report.about["failed"][part.name] = f"{type(error).__name__}: {error}"[:400]
        report.write()
        gc.collect()
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
    for key in ("left_out", "cut_off", "failed"):
        if report.about[key]:
            report.console.print(f"{key.replace('_', ' ')}: {report.about[key]}", markup=False)
    report.show()


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything; what comes after is left out")
    parser.add_argument("--quick", action="store_true", help=f"as --minutes {QUICK:g}")
    parser.add_argument("--only", nargs="+", default=[], metavar="BEGINNING", help="parts whose names begin so")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, on the CPU")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak in 10^12 operations per second, for MFU")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(given)
    device = choose_device("cpu" if options.tiny else "cuda")
    minutes = QUICK if options.quick else options.minutes
    report = Report({**describe(device), "minutes": minutes, "tiny": options.tiny}, options.json)
    faulthandler.dump_traceback_later(60 * minutes + GRACE, exit=True)  # what hangs outside of Python is ended, too
    with tempfile.TemporaryDirectory() as folder:
        scale = TINY if options.tiny else FULL
        measure(Plan(scale, device, Path(folder), options.peak_tflops), report, minutes, options.only)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()

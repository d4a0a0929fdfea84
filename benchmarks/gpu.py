"""All that is to be known of segadapt on a GPU, in one call of under ten minutes.

    python benchmarks/gpu.py [--minutes 9] [--json gpu.json]
    python benchmarks/gpu.py --tiny                     # the same on the CPU with small things, to see that it runs

Part by part, the most wanted first: SE-GAN's step alone beside its network passes and the reference's step (fp32, which
means TF32 convolutions, and bf16), with MFU and the share of idle time; whole SE-GAN trainings from prepared copies of
generated GTA5 and Cityscapes frames (loader processes, steps, logging) beside the reference's loop, with the same
figures in steady training and the hours of 50,000 steps; peak memory of both; the steps and the memory of the other
methods; evaluation, pseudo-labels, stylized copies. The JSON file is written anew after each row, and a part that no
longer fits into the minutes is left out and named.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from suite import pictures
from suite.end_to_end import Data, Lengths, end_to_end_row, write_data
from suite.machine import describe, peak_flops
from suite.measure import cores
from suite.memory import memory_of, memory_row
from suite.rows import Report, Row
from suite.sizes import NAMED
from suite.steps import step_row
from suite.trainings import RESNET, TIMED, Setup

from segadapt.devices import choose_device
from segadapt.engine.runtime import Precision, RuntimeSettings, start

MAIN = "se_gan"
PROJECTED = 50_000  # steps of the published training
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
HOUR = 3600


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    setup: Setup
    rounds: int
    frames: int  # per domain
    lengths: Lengths
    images: int  # of a round of evaluation
    share: float = 1.0  # of the seconds that a part takes


FULL = Scale(Setup(NAMED["published"]), 5, 24, Lengths(ours=300, warm_up=100, reference=30, log_every=20), 4)
TINY = Scale(Setup(NAMED["tiny"], "deeplab_small"), 1, 2, Lengths(ours=6, warm_up=2, reference=2, log_every=1), 1, 0.1)


@dataclass(frozen=True)
class Part:
    """A part of the whole, and about how many seconds it takes on a big GPU."""

    name: str
    seconds: float
    rows: Callable[[], Iterator[Row]]


class Plan:
    """One call: the parts, and what the later ones need of the earlier ones."""

    def __init__(self, scale: Scale, device: torch.device, folder: Path, peak_tflops: float | None) -> None:
        self.scale, self.device, self.folder, self.peak_tflops = scale, device, folder, peak_tflops
        self.alone: dict[str, Row] = {}  # precision -> SE-GAN's step alone
        self.data: Data | None = None

    def parts(self) -> list[Part]:
        """In the order in which they are wanted."""
        others = [name for name in TIMED if name != MAIN]
        return [
            *(Part(f"{MAIN} step, {p}", 30, lambda p=p: self.step(MAIN, p)) for p in PRECISIONS),  # type: ignore[misc]
            *(Part(f"{MAIN} end to end, {p}", 100, lambda p=p: self.end_to_end(p)) for p in PRECISIONS),  # type: ignore[misc]
            Part(f"{MAIN} memory", 15, lambda: self.memory(MAIN)),
            *(Part(f"{name} step, bf16", 25, lambda n=name: self.step(n, "bf16")) for name in others),  # type: ignore[misc]
            Part("evaluation", 40, lambda: self.pictures(scored)),
            Part("stylize", 30, lambda: self.pictures(stylized)),
            *(Part(f"{name} memory", 15, lambda n=name: self.memory(n)) for name in others),  # type: ignore[misc]
            *(Part(f"{name} step, fp32", 25, lambda n=name: self.step(n, "fp32")) for name in others),  # type: ignore[misc]
        ]

    def step(self, name: str, precision: Precision) -> Iterator[Row]:
        """A step alone."""
        scale, peak = self.scale, peak_flops(self.device, precision, self.peak_tflops)
        with start(RuntimeSettings(device=str(self.device), precision=precision)) as place:
            row = step_row(name, scale.setup, place, scale.rounds, True, peak)
        if name == MAIN:
            self.alone[precision] = row
        yield row

    def end_to_end(self, precision: Precision) -> Iterator[Row]:
        """Whole trainings; the figures of the step alone carry over to their steady rate."""
        scale, folder = self.scale, self.folder / f"end to end {precision}"
        if self.data is None:
            workers = max(1, min(8, cores(), scale.frames // 2))
            self.data = write_data(self.folder / "data", scale.setup.sizes, scale.frames, workers)
        with start(RuntimeSettings(device=str(self.device), precision=precision)) as place:
            row = end_to_end_row(MAIN, scale.setup, place, self.data, folder, scale.lengths, min(3, scale.rounds))
        assert row.seconds is not None
        row = row.with_more(hours_of_50000_steps=PROJECTED * row.seconds.median / HOUR)
        if row.reference is not None:
            row = row.with_more(reference_hours=PROJECTED * row.reference.median / HOUR)
        yield self.steady(row, self.alone.get(precision))

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
        for precision in PRECISIONS:
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


def measure(plan: Plan, report: Report, minutes: float, only: Sequence[str] = ()) -> None:
    """All parts, or those whose names begin with one of `only`, that fit into the time.

    What does not is in the report as `left_out`.
    """
    until = time.monotonic() + 60 * minutes
    report.about["left_out"] = left_out = list[str]()
    for part in plan.parts():
        if only and not part.name.startswith(tuple(only)):
            continue
        if time.monotonic() + part.seconds * plan.scale.share > until:
            left_out.append(part.name)
            report.console.print(f"no time left for: {part.name}", markup=False)
            continue
        for row in part.rows():
            report.add(row)
        gc.collect()
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
    report.show()


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="for everything; parts that do not fit are left out")
    parser.add_argument("--only", nargs="+", default=[], metavar="BEGINNING", help="parts whose names begin so")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, on the CPU")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak in 10^12 operations per second, for MFU")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(given)
    device = choose_device("cpu" if options.tiny else "cuda")
    report = Report({**describe(device), "minutes": options.minutes, "tiny": options.tiny}, options.json)
    with tempfile.TemporaryDirectory() as folder:
        scale = TINY if options.tiny else FULL
        measure(Plan(scale, device, Path(folder), options.peak_tflops), report, options.minutes, options.only)


if __name__ == "__main__":
    main()

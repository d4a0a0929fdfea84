"""A method's step on a GPU: as one graph or operation by operation, with what the device does in it."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from reference.defaults import pytorch_defaults
from torch.utils.flop_counter import FlopCounterMode

from segadapt.batch import Batch
from segadapt.engine.graphs import CudaGraph, Graphed
from segadapt.engine.rates import Rates
from segadapt.engine.runtime import Runtime
from suite.measure import Spread, seconds
from suite.rows import OURS, Row, row_of
from suite.sizes import shown
from suite.steps import IDLE_STEPS, Profiled, plain_step, profiled
from suite.trainings import TIMED, Case, Setup, make_case

BATCHES, WARM_UP = 4, 8
"""Batches that steps take in turns; steps before the clock runs (a graph is captured in them)."""
LONGEST = 10
"""Kernels that have a row."""


class Steps:
    """The steps of one training, one after another."""

    def __init__(self, name: str, setup: Setup, runtime: Runtime, graph: bool) -> None:
        self.case: Case = make_case(name, setup, runtime)
        self.device, self.said, self.number = runtime.device, list[str](), 0
        method, self.rates = self.case.method, Rates(self.case.method.optimizers, runtime)
        self.graphed: Graphed | None = None
        if graph and self.device.type == "cuda":
            self.graphed = Graphed(method, self.case.update, lambda: CudaGraph(method.optimizers), self.said.append)
        elif graph:
            self.said.append("no GPU, no graph")
        self.batches = [self.case.batch(i) for i in range(BATCHES)]
        if runtime.ahead:
            self.batches = [batch.ahead_on(self.device) for batch in self.batches]

    def batch(self) -> Batch:
        """The next one."""
        self.number += 1
        return replace(self.batches[self.number % BATCHES], step=self.number)

    def __call__(self) -> None:
        """A step, as a training has it."""
        self.rates.set(1.0 - 1e-6 * self.number)
        (self.graphed or self.case.update).run(self.case.method, self.batch())

    @property
    def way(self) -> str:
        """How it was computed, and why no graph was, if one was wanted."""
        if self.graphed is None or self.graphed.refused is not None:
            return "; ".join(["eager", *self.said])
        return "graph"


def gpu_step_row(
    name: str, setup: Setup, runtime: Runtime, graph: bool, rounds: int, steps: int, peak: float | None
) -> Row:
    """Seconds of a step with its operations, kernels, busy and idle time; the reference's where there is one."""
    work = Steps(name, setup, runtime, graph)
    device = runtime.device
    with runtime.kernels_by_trial():
        for _ in range(WARM_UP if device.type == "cuda" else 1):
            work()
        flops = operations(work)
        ours = np.array([seconds(lambda: repeat(work, steps), device) / steps for _ in range(rounds)])
        done = profiled(work, IDLE_STEPS) if device.type == "cuda" else None
        waits = waiting(work) if device.type == "cuda" else None
    row = row_of(
        "steps",
        name,
        {OURS: ours},
        size=shown(work.case.size, work.case.target_size),
        unit="step",
        precision=runtime.precision,
    )
    median = float(np.median(ours))
    rate = flops / median
    row = row.with_more(tflops=rate / 1e12, mfu=None if peak is None else rate / peak, waits=waits)
    if done is not None:
        row = row.with_more(busy_s=done.busy, idle=max(0.0, 1 - done.busy / median), kernels=done.kernels)
    return replace(row, note=work.way)


def with_reference(row: Row, seconds: float | None) -> Row:
    """The same beside the reference's step of so many seconds."""
    if seconds is None or row.seconds is None:
        return row
    ours = row.seconds
    ratio = Spread(seconds / ours.median, seconds / ours.high, seconds / ours.low)
    return replace(row, reference=Spread(seconds, seconds, seconds), ratio=ratio)


def reference_seconds(name: str, setup: Setup, runtime: Runtime, steps: int) -> float | None:
    """Seconds of the reference's step, in float32 as published; None for a method that has no reference here."""
    if name not in TIMED:
        return None
    case = make_case(name, setup, replace(runtime, precision="fp32"))
    plain = plain_step(case)
    batch = case.batch(0)
    examples = plain.prepared(batch)

    def work() -> None:
        with pytorch_defaults():
            plain.step(batch.step, *examples)

    repeat(work, 2)
    return seconds(lambda: repeat(work, steps), runtime.device) / steps


def kernel_rows(name: str, setup: Setup, runtime: Runtime) -> Iterator[Row]:
    """The kernels that take most of an eager step: seconds of a step, calls, and their share of the busy time."""
    work = Steps(name, setup, runtime, graph=False)
    with runtime.kernels_by_trial():
        repeat(work, 3)
        done: Profiled = profiled(work, IDLE_STEPS)
    for kernel, taken, calls in done.longest[:LONGEST]:
        spread = Spread(taken, taken, taken)
        row = Row("kernels", kernel[:80], "", runtime.precision, "step", spread)
        yield row.with_more(calls=calls, share=taken / done.busy if done.busy else None)


def repeat(work: Callable[[], object], times: int) -> None:
    """Without a wait between."""
    for _ in range(times):
        work()


def operations(work: Steps) -> int:
    """Of convolutions and products in one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        work.case.update.run(work.case.method, work.batch())
    return int(counter.get_total_flops())


def waiting(work: Steps) -> int:
    """How often the host waits for the GPU in one step that is launched operation by operation."""
    batch = work.batch()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work.case.update.run(work.case.method, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in found)

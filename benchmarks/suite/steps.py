"""Training steps: the whole step beside its bare passes and, if asked for, the reference's step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from reference.defaults import pytorch_defaults
from reference.steps import Examples, ReferenceStep, reference_of
from torch.profiler import ProfilerActivity, profile

from segadapt.batch import Batch
from segadapt.engine.runtime import Runtime
from suite.bare import BarePasses
from suite.measure import in_turns, peak_memory
from suite.rows import BARE, OURS, REFERENCE, Row, row_of
from suite.sizes import shown
from suite.trainings import Case, Setup, make_case, set_checkpointing

GPU_REPEAT = 8
"""Steps between two waits for a GPU, so that the host may run ahead of it."""
IDLE_STEPS = 5  # steps that are profiled for the busy time


@dataclass(frozen=True)
class Inputs:
    """What all works of one round get."""

    batch: Batch
    examples: tuple[Examples, Examples] | None  # the same for the reference


def step_rows(
    names: Sequence[str],
    setup: Setup,
    runtimes: Sequence[Runtime],
    *,
    rounds: int,
    reference: bool,
    peak: Callable[[str], float | None] = lambda precision: None,
) -> Iterator[Row]:
    """A row per method and runtime (precision). `peak`: precision -> the device's operations per second."""
    for name in names:
        for runtime in runtimes:
            yield step_row(name, setup, runtime, rounds, reference, peak(runtime.precision))


def step_row(
    name: str,
    setup: Setup,
    runtime: Runtime,
    rounds: int,
    reference: bool,
    peak: float | None = None,
) -> Row:
    """One method's step."""
    device, case = runtime.device, make_case(name, setup, runtime)
    plain = plain_step(case) if reference else None
    bare = BarePasses(case)

    def inputs(number: int) -> Inputs:
        batch = case.batch(number)
        return Inputs(batch, None if plain is None else plain.prepared(batch))

    def plain_works(given: Inputs) -> None:
        assert plain is not None and given.examples is not None
        with pytorch_defaults():
            plain.step(given.batch.step, *given.examples)

    works: dict[str, Callable[[Inputs], object]] = {
        BARE: lambda given: bare(given.batch),
        OURS: lambda given: case.update.run(case.method, given.batch),
    }
    if plain is not None:
        works[REFERENCE] = plain_works
    first = case.batch(0)
    on_gpu = device.type == "cuda"
    with runtime.kernels_by_trial():
        case.update.run(case.method, first)  # the optimizers' states come with the first step
        memory = peak_memory(lambda: case.update.run(case.method, first), device)
        times = in_turns(works, inputs, rounds, device, repeat=GPU_REPEAT if on_gpu else 1)
        busy = busy_seconds(lambda: case.update.run(case.method, first), IDLE_STEPS) if on_gpu else None
    row = row_of(
        "steps",
        name,
        times,
        size=shown(case.size, case.target_size),
        unit="step",
        precision=runtime.precision,
        memory_mb=None if memory is None else memory.added_mb,
    )
    median = float(np.median(times[OURS]))
    counted = needed_flops(name, setup, runtime) if setup.checkpointing or runtime.compile else bare.flops(first)
    rate = counted / median
    row = row.with_more(tflops=rate / 1e12, mfu=None if peak is None else rate / peak)
    if busy is not None:
        row = row.with_more(busy_s=busy, idle=1 - busy / median)
    return row


def needed_flops(name: str, setup: Setup, runtime: Runtime) -> int:
    """Operations of the bare passes, each activation computed once; compiled networks could not be counted."""
    case = make_case(name, replace(setup, checkpointing=False), replace(runtime, compile=False))
    return BarePasses(case).flops(case.batch(0))


def plain_step(case: Case) -> ReferenceStep:
    """The reference of a case: the same weights in the published memory layout."""
    plain = reference_of(case.method, case.settings)
    for module in plain.modules.values():
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        set_checkpointing(module, False)
    return plain


def busy_seconds(work: Callable[[], object], calls: int) -> float:
    """Seconds of one call in which the GPU computes or copies: the union of its kernels, by the profiler."""
    return profiled(work, calls).busy


@dataclass(frozen=True)
class Profiled:
    """What a GPU has done in one call."""

    busy: float  # seconds in which it computed or copied
    kernels: float  # how many, copies among them
    longest: list[tuple[str, float, float]]  # name, seconds, calls: those that took most, the longest first


def profiled(work: Callable[[], object], calls: int) -> Profiled:
    """By PyTorch's profiler, per call."""
    work()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
    spans: dict[str, list[tuple[float, float]]] = {}
    for event in found.events() or []:
        # What a user has marked spans the gaps between kernels.
        if str(event.device_type) == "DeviceType.CUDA" and not getattr(event, "is_user_annotation", False):
            span = float(event.time_range.start), float(event.time_range.end)
            spans.setdefault(str(event.name), []).append(span)
    every = [span for of_one in spans.values() for span in of_one]
    taken = [(name, sum(b - a for a, b in of_one) / 1e6 / calls, len(of_one) / calls) for name, of_one in spans.items()]
    longest = sorted(taken, key=lambda one: -one[1])
    return Profiled(union_seconds(every) / calls, len(every) / calls, longest)


def union_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that spans of (start, end), in microseconds, cover together."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered / 1e6

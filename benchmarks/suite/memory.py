"""Peak memory of a training step, segadapt's and the reference's, each in a fresh process.

On a CPU it is the process's resident memory above what it had before the networks were built (`whole`) and before the
first step (`step`: activations, gradients, states of the optimizers); on a GPU that of tensors (`whole` includes
weights there, too).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from segadapt.engine.runtime import Precision, Runtime
from suite.measure import MEGA, in_fresh_process, peak_memory, reset_peak, resident
from suite.rows import Row
from suite.sizes import Sizes, shown
from suite.steps import plain_step
from suite.trainings import Setup, make_case

STEPS = 2  # the second one has the optimizers' states from its beginning
Figures = dict[str, float]


def memory_rows(
    names: Sequence[str],
    setup: Setup,
    runtime: Runtime,
    precisions: Sequence[Precision],
) -> Iterator[Row]:
    """A row per method and precision, with `step_ratio` and `whole_ratio` = ours / the reference's.

    The reference takes one image per domain; no row with more micro-batches is held against it.
    """
    for name in names:
        theirs = in_fresh_process(memory_of, name, setup, "fp32", runtime, True) if setup.accumulate == 1 else {}
        for precision in precisions:
            ours = in_fresh_process(memory_of, name, setup, precision, runtime, False)
            row = memory_row(name, setup.sizes, precision, ours, theirs)
            yield row if setup.accumulate == 1 else replace(row, what=f"{name}, {setup.accumulate} micro-batches")


def memory_row(name: str, sizes: Sizes, precision: Precision, ours: Figures, theirs: Figures) -> Row:
    """Figures of both as a row; `theirs` may be empty."""
    row = Row("memory", name, shown(*sizes.training(name)), precision, memory_mb=ours.get("step"))
    for kind, value in ours.items():
        row = row.with_more(**{f"{kind}_mb": value})
        if kind in theirs:
            row = row.with_more(**{f"{kind}_reference_mb": theirs[kind], f"{kind}_ratio": value / theirs[kind]})
    return row if ours else Row(row.part, row.what, row.size, row.precision, note="the system does not say")


def memory_of(name: str, setup: Setup, precision: Precision, runtime: Runtime, reference: bool) -> Figures:
    """`whole` and `step` in megabytes; empty where the system does not say."""
    torch.set_num_threads(runtime.threads)
    device = runtime.device
    place = replace(runtime, precision=precision)
    warm_up(device)
    on_cpu = device.type == "cpu"
    if on_cpu and not reset_peak():
        return {}
    before = resident("VmRSS") if on_cpu else torch.cuda.memory_allocated(device)
    work = steps_of(name, setup, place, reference)
    found = peak_memory(work, device)
    assert found is not None
    return {"step": found.added_mb, "whole": (found.peak - before) / MEGA}


def steps_of(name: str, setup: Setup, runtime: Runtime, reference: bool) -> Callable[[], None]:
    """Some steps of segadapt or of the reference, with nothing else alive."""
    case = make_case(name, setup, runtime)
    batch = case.batch(0)
    if not reference:

        def ours() -> None:
            for _ in range(STEPS):
                case.update.run(case.method, batch)

        return ours
    plain = plain_step(case)
    examples = plain.prepared(batch)

    def theirs() -> None:
        for number in range(STEPS):
            plain.step(number, *examples)

    return theirs


def warm_up(device: torch.device) -> None:
    """Load what the first convolution and its backward load."""
    maps = torch.rand(1, 3, 16, 16, device=device, requires_grad=True)
    torch.nn.functional.conv2d(maps, torch.rand(3, 3, 3, 3, device=device)).sum().backward()  # type: ignore[no-untyped-call]

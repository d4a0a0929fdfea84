"""How close is close: what rounding does to a training, and the tolerances that follow from it. Said here alone.

Another CPU has other kernels, which add in another order: all numbers of a training differ in their last bits, and a
training makes more of that with each step (Adam's first step is nearly a sign, so that a gradient that is 0 in exact
arithmetic moves a weight by the learning rate, whichever way rounding has it; batch norm over one small image divides
by small deviations). So no tolerance here is a guess:

1. **What can be computed in float64 is** (fixture `float64`): steps against formulas written by hand (`EQUAL` of
   `by_hand.py`: 1e-8), micro-batches against the whole batch. There rounding is 1e-16, and what is left is 1e-11.
2. **The recorded trainings, in float64**, come out the same on every CPU to many digits. So their distance from the
   recording is a fixed number: the rounding of the one float32 training that was recorded. `ROUNDING` holds it
   (`recorded`), and a replay may be `SLACK` times as far away. That this is rounding and no mistake of ours is a test
   of its own: no recorded number is further from float64 than rounding moves our own training (`MARGIN` times).
3. **The recorded trainings, in float32 on the CPU at hand**: gradients of the first step against float64, losses
   against the recording. How far rounding moves them is measured (`float32` in `ROUNDING`): the largest distance
   from float64, up to that step, of the float32 trainings in `DRAWS`. Each has other kernels or threads, and most have
   initial weights changed by 1e-7 (relative, normally distributed), one unit in the last place of float32. Neither is
   enough alone: VGG pretraining stays within 3e-7 with one CPU's kernels, whatever the weights, and is 1e-4 away with
   another's. Another CPU is one more such draw; it may be `MARGIN` times as far away as the furthest of them. `FIRST`
   comes on top: the loss itself is a float32 number.
4. **Outputs** of a network or function computed in two ways in float32: 1e-5 of their scale, some hundred roundings.

Measured anew, and written to tests/recorded/rounding.json, by (about ten minutes on 2 cores; on a CPU with AVX-512):

    python tests/tolerances.py
"""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from recorded import write_micro
from replays import TRACES, Change, Trained, Weights, recorded_training, replay

FIRST = 1e-6
"""Relative: losses before the first update."""
SLACK = 1.5
MARGIN = 5.0
PERTURBATION = 1e-7
KERNELS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "sse": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""What makes a CPU compute as an older one."""
DRAWS = (
    ("native", 1, PERTURBATION),
    ("native", 2, PERTURBATION),
    ("avx2", 1, PERTURBATION),
    ("avx2", 4, PERTURBATION),
    ("sse", 1, PERTURBATION),
    ("sse", 2, PERTURBATION),
    ("sse", 1, 0.0),
)
"""Kernels, threads, and how far the initial weights are changed: not at all, too, as in what the tests train."""
SMALLEST = 1e-3
"""A parameter's gradients are judged by its root mean square, or by this share of that of all parameters."""
ROUNDING = Path(__file__).parent / "recorded" / "rounding.json"

Distances = dict[str, Any]
"""`losses`: name -> the largest so far at each step, relative; `norm` and `sum`: network -> the largest of a parameter,
relative to its norm; `gradients`: the largest of any parameter, see `gradient_distance`."""


def rounding(name: str, of: str) -> Distances:
    """What was measured for a trace; `of`: recorded or float32."""
    found: Distances = json.loads(ROUNDING.read_text())[name][of]
    return found


def distances(one: Trained, other: Trained) -> Distances:
    """How far `one` is from `other`, over the steps that both have."""
    pairs = list(zip(one.losses, other.losses, strict=False))
    losses: dict[str, list[float]] = {name: [] for name in other.losses[0]}
    for name, largest_yet in losses.items():
        for ours, theirs in pairs:
            far = abs(ours[name] - theirs[name]) / (abs(theirs[name]) or 1.0)
            largest_yet.append(max([far, *largest_yet[-1:]]))
    found: Distances = {"losses": losses}
    if len(one.losses) == len(other.losses):
        for i, what in enumerate(("sum", "norm")):
            found[what] = {
                network: max(abs(one.weights[network][key][i] - of[i]) / (of[1] or 1.0) for key, of in weights.items())
                for network, weights in other.weights.items()
            }
    if one.gradients and other.gradients:
        found["gradients"] = gradient_distance(one, other)
    return found


def gradient_distance(one: Trained, truth: Trained) -> float:
    """The largest distance of a parameter's gradient in the first step from the true one, relative.

    Of its norm, or of `SMALLEST` of that of the network (by root mean square) where it is less: a bias before an
    instance norm has the gradient 0. Entries whose signs differ have no larger share of the true gradient's norm.
    """
    squares = [float(g.double().square().mean()) for g in truth.gradients]
    least = SMALLEST * math.sqrt(sum(squares) / len(squares))
    return max(
        math.sqrt(float((ours - g).double().square().mean())) / max(math.sqrt(square), least)
        for ours, g, square in zip(one.gradients, truth.gradients, squares, strict=True)
    )


def beyond(found: Distances, allowed: Distances, times: float, least: float = 0.0) -> Iterator[str]:
    """What is further away than `times` what is allowed plus `least`, in words; `found` may have fewer steps."""
    for name, values in found["losses"].items():
        for step, (value, limit) in enumerate(zip(values, allowed["losses"][name], strict=False), 1):
            if not value <= times * limit + least:
                yield f"{name} of step {step}: {value:.2g}, allowed {times * limit + least:.2g}"
    for what in ("norm", "sum"):
        for network, value in found.get(what, {}).items():
            if not value <= times * allowed[what][network] + least:
                yield f"{what} of {network}: {value:.2g}, allowed {times * allowed[what][network] + least:.2g}"
    if "gradients" in found and not found["gradients"] <= times * allowed["gradients"]:
        yield f"gradients: {found['gradients']:.2g}, allowed {times * allowed['gradients']:.2g}"


def perturbed(seed: int, size: float) -> Change:
    """Changes weights by `size`, relative, normally distributed."""
    generator = torch.Generator().manual_seed(seed)

    def change(weights: Weights) -> Weights:
        def one(w: torch.Tensor) -> torch.Tensor:
            return w.double() * (1 + size * torch.randn(w.shape, generator=generator, dtype=torch.float64))

        return {name: one(w).float() if w.is_floating_point() else w for name, w in weights.items()}

    return change


def largest(many: Sequence[Any]) -> Any:
    """Of several `Distances`, number by number."""
    if isinstance(many[0], dict):
        return {key: largest([one[key] for one in many]) for key in many[0]}
    if isinstance(many[0], list):
        return [max(values) for values in zip(*many, strict=True)]
    return max(many)


def measure(name: str, micro: Path, folder: Path) -> dict[str, Distances]:
    """Both distances of a trace from float64."""
    torch.set_default_dtype(torch.float64)
    truth = replay(name, micro, folder / "truth")
    draws = []
    for seed, (kernels, threads, size) in enumerate(DRAWS):
        own, environment = folder / str(seed), {**os.environ, **KERNELS[kernels], "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, "--draw", name, str(seed), str(size), str(micro), str(own)]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        with (own / "trained").open("rb") as file:
            draws.append(distances(pickle.load(file), truth))
        print(name, kernels, threads, size, json.dumps(draws[-1]), flush=True)
        shutil.rmtree(own)
    return {"recorded": distances(recorded_training(name), truth), "float32": largest(draws)}


def draw(name: str, seed: int, size: float, micro: Path, folder: Path) -> None:
    """One float32 training with this process's kernels and threads, into `folder`/trained."""
    trained = replay(name, micro, folder, change=perturbed(seed, size))
    with (folder / "trained").open("wb") as file:
        pickle.dump(trained, file)


def main() -> None:
    """Measure all traces (or those named on the command line), and write ROUNDING."""
    if sys.argv[1:2] == ["--draw"]:
        name, seed, size, micro, folder = sys.argv[2:]
        draw(name, int(seed), float(size), Path(micro), Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_micro(Path(folder))
        for name in sys.argv[1:] or TRACES:
            with tempfile.TemporaryDirectory() as own:
                measured = measure(name, Path(folder), Path(own))
            found = (json.loads(ROUNDING.read_text()) if ROUNDING.exists() else {}) | {name: measured}
            rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.2g}"))
            ROUNDING.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()

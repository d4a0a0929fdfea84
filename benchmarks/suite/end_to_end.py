"""Whole training: reading, steps, logging, as a run has it, beside the reference's loop without loader processes."""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from reference.defaults import pytorch_defaults
from reference.reading import caffe_pixels, known_ids, read_example
from reference.steps import Examples, ReferenceStep
from rich.table import Table

from segadapt.config.recipe import Recipe
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.settings import open_domain
from segadapt.data.sides import DataSettings
from segadapt.data.tools.prepare import plan
from segadapt.engine.runtime import Runtime
from segadapt.methods.adaptsegnet import AdaptSegNetSettings
from segadapt.methods.se_gan import SeGanSettings
from segadapt.methods.sean import SeanSettings
from segadapt.stages import training
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains
from segadapt.stages.shipped import kinds_of
from segadapt.stages.stage import Work
from suite.frames import opened, space_of, write_domain
from suite.measure import Times
from suite.rows import OURS, REFERENCE, Row, row_of
from suite.sizes import Sizes, shown
from suite.steps import plain_step
from suite.trainings import STEPS, Case, Setup, make_case


@dataclass(frozen=True)
class Data:
    """Generated frames of GTA5's and Cityscapes' size, with prepared copies."""

    settings: DataSettings
    source: SegmentationDataset
    target: SegmentationDataset  # without labels


@dataclass(frozen=True)
class Lengths:
    """How many steps of each kind of training are run and timed in a round."""

    ours: int
    warm_up: int  # of ours, not timed: kernels are chosen, and the batches read ahead are used up
    reference: int
    log_every: int


def write_data(folder: Path, sizes: Sizes, count: int, workers: int) -> Data:
    """Files and prepared copies of both domains."""
    written = {}
    for layout, size in (("gta5", sizes.source), ("cityscapes", sizes.target)):
        written[layout] = write_domain(folder / layout, layout, sizes.frames[layout], count)
        plan(opened(written[layout], size), layout, written[layout].prepared_root).run(workers)
    settings = DataSettings(source=written["gta5"], target=written["cityscapes"])
    source = opened(settings.domains("source")[0], sizes.source)
    target = open_domain(settings.domains("target")[0], space_of("cityscapes"), "train", sizes.target, labels=False)
    assert source.image_copies is not None and target.image_copies is not None
    return Data(settings, source, target)


def end_to_end_row(
    name: str, setup: Setup, runtime: Runtime, data: Data, folder: Path, lengths: Lengths, rounds: int
) -> Row:
    """Seconds of a step of the whole training; the two trainings take turns, and each round gives one median.

    `name`: a method that learns from both domains with labels of the source.
    """
    times: dict[str, list[float]] = {OURS: [], REFERENCE: []}
    case = make_case(name, setup, runtime)
    plain = plain_step(case)
    for number in range(rounds):
        times[OURS].append(float(np.median(train(case, data, folder / str(number), lengths))))
        times[REFERENCE].append(float(np.median(train_plainly(case, plain, data, lengths.reference))))
    return row_of(
        "end to end",
        name,
        {who: np.array(values) for who, values in times.items()},
        size=shown(case.size, case.target_size),
        unit="step",
        precision=runtime.precision,
    )


class Marks:
    """A `Watcher` that notes the time whenever the losses have been fetched: then the device has done all steps."""

    def __init__(self, every: int) -> None:
        self.every, self.times = every, list[tuple[int, float]]()

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """After each step."""
        if step % self.every == 0:
            self.times.append((step, time.perf_counter()))

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """There are no evaluations."""

    def say(self, text: str) -> None:
        """Nothing is shown."""

    def images(self, done: int, count: int, note: str = "") -> None:
        """There are none."""

    def table(self, table: Table) -> None:
        """Nothing is shown."""

    def per_step(self, after: int) -> Times:
        """Seconds of a step between any two fetches from step `after` on."""
        marks = [(step, moment) for step, moment in self.times if step >= after]
        return np.array([(t1 - t0) / (s1 - s0) for (s0, t0), (s1, t1) in pairwise(marks)])


def train(case: Case, data: Data, folder: Path, lengths: Lengths) -> Times:
    """Seconds of the steps of a training stage, begun anew: its loader, its trainer, its metrics file."""
    changes = {"steps": lengths.ours, "log_every": lengths.log_every, "evaluate_every": 0}
    schedule = {"schedule": "polynomial", "schedule_steps": STEPS, "checkpoint_every": STEPS}
    settings = case.settings.model_copy(update=changes | schedule)
    assert isinstance(settings, SeanSettings | SeGanSettings | AdaptSegNetSettings)
    marks = Marks(lengths.log_every)
    recipe = Recipe.model_construct(data=data.settings, stages={case.name: settings}, seed=0)
    run = Run(recipe, folder, space_of("gta5"), case.runtime, marks, kinds_of(recipe.stages))
    run.stage_folder(case.name).mkdir(parents=True)
    domains = Domains(data.source, data.target, None, None)
    training.train(Work(run, case.name, settings, domains, {}), domains)
    return marks.per_step(lengths.warm_up)


def train_plainly(case: Case, plain: ReferenceStep, data: Data, steps: int) -> Times:
    """Seconds of the reference's steps after the first: read, copy, step, note the losses, one after another."""
    space, device = space_of("gta5"), case.runtime.device
    known = known_ids(space, "cityscapes")
    noted: list[dict[str, float]] = []
    taken: list[float] = []
    for number in range(steps + 1):
        begun = time.perf_counter()
        source = read_example(data.source.pairs[number % len(data.source)], case.size, known)
        image = caffe_pixels(data.target.pairs[number % len(data.target)].image, case.target_size)
        target = Examples(torch.from_numpy(image)[None], source.labels)  # the labels are not looked at
        with pytorch_defaults():
            noted.append(plain.step(number, source.to(device), target.to(device)))
        taken.append(time.perf_counter() - begun)
    return np.array(taken[1:])

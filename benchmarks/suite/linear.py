"""Does cost grow linearly? `prepare`, `check`, `stylize` and `evaluate` on N and 10·N small generated images.

The figures are the ratio of times (10 is linear) and that of peak memory (1 is flat); the two take turns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from segadapt.data.label_spaces import load_label_space
from segadapt.data.tools.check import check_split
from segadapt.data.tools.prepare import plan
from segadapt.engine.runtime import Runtime
from segadapt.evaluation.evaluate import evaluate_domain
from segadapt.inference.predictor import Predictor
from segadapt.models.networks import build
from segadapt.models.style_transfer import StyleTransfer
from segadapt.pipeline.show import Display
from segadapt.stages.image_files import places
from segadapt.stages.stylize import StylizeSettings, stylize_images
from segadapt.weights.saved import GeneratorHeader, save_generator
from suite.frames import opened, write_domain
from suite.measure import in_turns, peak_memory
from suite.rows import Row
from suite.sizes import Size, shown

FACTOR = 10
FILES, INPUT = (256, 128), (128, 64)
"""Sizes of the files and of the networks' input."""
FEW, MANY = "few", "many"
Work = Callable[[int], object]
"""Told the number of the round: what is written must be new in each."""


@dataclass(frozen=True)
class Setting:
    """N, and where things are made."""

    folder: Path
    runtime: Runtime
    images: int
    files: Size = FILES
    input: Size = INPUT


def linear_rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """A row per verb."""
    counts = {FEW: setting.images, MANY: FACTOR * setting.images}
    both = {name: verbs(setting, name, count) for name, count in counts.items()}
    for verb in both[FEW]:
        works = {name: made[verb] for name, made in both.items()}
        memory = {}
        for name, work in works.items():
            work(-2)
            memory[name] = peak_memory(partial(work, -1), setting.runtime.device)
        times = in_turns(works, lambda number: number, rounds, setting.runtime.device)
        few, many = memory[FEW], memory[MANY]
        yield Row("linear", verb, f"{counts[FEW]} and {counts[MANY]} images of {shown(setting.files)}").with_more(
            time_ratio=float(np.median(times[MANY] / times[FEW])),
            time_ratio_low=float(np.percentile(times[MANY] / times[FEW], 10)),
            time_ratio_high=float(np.percentile(times[MANY] / times[FEW], 90)),
            memory_ratio=None if few is None or many is None else many.peak / few.peak,
            memory_added_mb=None if many is None else many.added_mb,
        )


def verbs(setting: Setting, name: str, count: int) -> dict[str, Work]:
    """Verb -> what it does to `count` images."""
    s, folder = setting, setting.folder / name
    settings = write_domain(folder / "files", "cityscapes", s.files, count)
    space, data = load_label_space("cityscapes19"), opened(settings, s.input)
    torch.manual_seed(0)
    generator = folder / "generator.safetensors"
    save_generator(generator, StyleTransfer(), GeneratorHeader(size=s.input))
    predictor = Predictor(
        build("deeplab_small", classes=19), s.input, device=s.runtime.device, precision=s.runtime.precision
    )
    images, how = places(data), StylizeSettings(generator="")
    return {
        "prepare": lambda number: plan(data, "cityscapes", folder / f"prepared{number}").run(workers=1),
        "check": lambda number: check_split(settings, space, "train"),
        "stylize": lambda number: stylize_images(
            s.runtime, generator, images, folder / f"stylized{number}", how, Display(main=False)
        ),
        "evaluate": lambda number: evaluate_domain(predictor, data, space, space, layout="cityscapes", split="train"),
    }

"""`segadapt doctor`: whether training works on this machine, and the facts that a bug report needs."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segadapt.config.load import load_recipe, need_closed
from segadapt.config.recipe import Recipe
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.sides import score_name
from segadapt.data.tools.check import default_splits
from segadapt.engine import runtime
from segadapt.errors import SegadaptError, SegadaptErrors, UsageErrors
from segadapt.pipeline.plan import plan
from segadapt.pipeline.run import missing_downloads, run_folder
from segadapt.pipeline.show import Display
from segadapt.setup import machine
from segadapt.setup.machine import Problem
from segadapt.setup.redaction import redacted
from segadapt.setup.self_test import Trial, self_test
from segadapt.stages.context import Run
from segadapt.stages.shipped import kinds_of

Facts = dict[str, Any]


def examine(
    recipe: str | None = None, overrides: list[str] | None = None, tried: Callable[[Trial], None] = lambda trial: None
) -> Facts:
    """Everything, as plain data; `tried` is called for each trial of the self-test. `problems` lists what would fail.

    With a `recipe`, also whether its data, weights and settings exist and are valid.
    """
    start = time.perf_counter()
    memory, disks = machine.memory(), machine.disks()
    problems = [
        *machine.package_problems(),
        *machine.gpu_problems(),
        *machine.memory_problems(memory),
        *machine.disk_problems(disks),
    ]
    facts: Facts = {
        "versions": machine.versions(),
        "cpu": machine.cpu(),
        "cuda": machine.cuda(),
        "gpus": machine.gpus(),
        "memory": memory,
        "disks": disks,
        "environment": machine.variables(),
        "extras": machine.extras(),
        "self-test": [],
    }
    for trial in self_test():
        tried(trial)
        facts["self-test"].append(vars(trial) | {"seconds": round(trial.seconds, 2)})
        found = trial.problem()
        problems += [] if found is None else [found]
    if recipe is not None:
        facts["recipe"], more = _recipe(recipe, overrides or [])
        problems += more
    facts["problems"] = [vars(problem) for problem in problems]
    facts["seconds"] = round(time.perf_counter() - start, 1)
    clean: Facts = redacted(facts)
    return clean


def _recipe(name: str, overrides: list[str]) -> tuple[Facts, list[Problem]]:
    """A recipe's data, and what would stop its run."""
    facts: Facts = {"name": name}
    try:
        recipe = load_recipe(name, overrides, keep_open=True)
        space = load_label_space(recipe.label_space)
    except SegadaptError as error:
        return facts, _problems(error)
    facts |= {"label space": space.name, "classes": len(space)}
    facts["stages"] = {stage: settings.method for stage, settings in recipe.stages.items()}
    problems: list[Problem] = []
    facts["data"] = {}
    for side in ("source", "target"):
        for own, settings in recipe.data.named(side).items():
            domain = score_name(side, own)
            facts["data"][domain], more = _domain(domain, settings, space)
            problems += more
    return facts, problems or _plan(name, recipe, space)


def _domain(name: str, settings: DomainSettings, space: LabelSpace) -> tuple[Facts, list[Problem]]:
    """A domain's splits, with its first pair read."""
    facts: Facts = {"layout": settings.layout, "root": str(settings.root), "splits": {}}
    if not settings.given:
        remedy = f"Add data.{name}.root=FOLDER to the command, or set it in the file."
        return facts, [Problem("error", f"data.{name}", "is not given", remedy)]
    try:
        for split in default_splits(settings, labels=name.startswith("source")):
            pairs = settings.pairs(split)
            labelled = sum(pair.label is not None for pair in pairs)
            facts["splits"][split] = {"images": len(pairs), "labels": labelled}
            used = bool(labelled) and (name.startswith("source") or split == "val")
            dataset = open_domain(settings, space, split, (64, 64), labels=used)
            dataset.read(0)
        facts["free (GB)"] = round(_free(settings.root.expanduser()), 1)
    except SegadaptError as error:
        return facts, _problems(error)
    return facts, []


def _free(folder: Path) -> float:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())  # it may be inside a zip file
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize / machine.GB


def _plan(name: str, recipe: Recipe, space: LabelSpace) -> list[Problem]:
    """What would stop a run before it starts: settings, files, downloads. Nothing is written."""
    try:
        need_closed(recipe, name)
        with runtime.start(recipe.runtime) as place:
            run = Run(recipe, run_folder(name, None), space, place, Display(main=False), kinds_of(recipe.stages))
            missing = missing_downloads(plan(run))
    except SegadaptError as error:
        return _problems(error)
    return [problem for error in missing for problem in _problems(error)]


def _problems(error: SegadaptError) -> list[Problem]:
    errors = error.errors if isinstance(error, (UsageErrors, SegadaptErrors)) else [error]
    return [Problem("error", str(one.where or "recipe"), one.what, one.remedy) for one in errors]

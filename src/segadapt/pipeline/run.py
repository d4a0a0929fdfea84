"""A run: its stages in order, done ones skipped, unfinished ones gone on with, changed ones refused or redone."""

import os
import platform
import shlex
import sys
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from segadapt.config.recipe import Recipe
from segadapt.config.resolved import as_yaml
from segadapt.data.label_spaces import load_label_space
from segadapt.engine import runtime
from segadapt.errors import UsageError
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.files import write_json, write_text
from segadapt.inference.settings import PseudoLabelsSettings, StylizeSettings
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.pipeline import training
from segadapt.pipeline.context import Run
from segadapt.pipeline.domains import training_domains
from segadapt.pipeline.estimate import costs
from segadapt.pipeline.evaluation import after_training, evaluate_stage
from segadapt.pipeline.lock import locked
from segadapt.pipeline.plan import ALL, Choice, Planned, need_consent, plan
from segadapt.pipeline.plan_table import show_plan
from segadapt.pipeline.pseudo_labels import pseudo_labels_stage
from segadapt.pipeline.run_page import RunPage
from segadapt.pipeline.show import Display
from segadapt.pipeline.stand_in import stand_in, stand_in_domains
from segadapt.pipeline.stylize import stylize_stage
from segadapt.pipeline.time_left import TimeLeft
from segadapt.version import __version__


def run_recipe(recipe: Recipe, folder: Path, *, choice: Choice = ALL, dry_run: bool = False, yes: bool = False) -> None:
    """Run the chosen stages of `recipe` in `folder`, then write the report. Doing it again goes on where it stopped.

    Raises UsageError when something would be deleted (stages made with other settings, `choice.fresh`) and `yes` is
    not given, and when another process is at work in the folder. `dry_run` prints the plan and writes nothing.
    """
    # `catch_warnings`: a program that calls a run hears its own warnings again afterwards.
    with runtime.start(recipe.runtime) as place, warnings.catch_warnings():
        display = Display(place.is_main)
        warnings.showwarning = lambda message, *_, **__: display.say(f"warning: {message}")
        run = Run(recipe, folder, load_label_space(recipe.label_space), place, display)
        if place.is_main:
            need_run_folder(folder)
        planned = plan(run, choice)
        if dry_run:
            if place.is_main:
                show_plan(run, planned, yes)
            return
        if not yes:
            need_consent(planned)
        with locked(folder) if place.is_main else nullcontext():
            place.barrier()
            planned = [one.now() for one in planned]  # another command may have ended since
            if not yes:
                need_consent(planned)
            place.barrier()
            _work(run, planned, display)


def _work(run: Run, planned: list[Planned], display: Display) -> None:
    """Do the stages, then the report."""
    if run.runtime.is_main:
        write_run_files(run)
    to_do = [one for one in planned if one.action not in ("leave", "skip")]
    page = RunPage(run, [one.stage.name for one in planned], display)
    if run.runtime.is_main:
        display.follow(TimeLeft([one.stage.name for one in to_do], lambda: costs(run, to_do)))
    try:
        for one in planned:
            if one.action not in ("leave", "skip"):
                page.before(one.stage.name)
            _do(run, one, display)
    except BaseException:
        page.stop()
        raise
    page.end(_is_old(page.path, planned))


def _is_old(report: Path, planned: list[Planned]) -> bool:
    """Whether a stage has ended after the report was written: in this command, or in one that was killed."""
    ended = [one.stage.file.stat().st_mtime_ns for one in planned if one.stage.file.is_file()]
    return not report.is_file() or any(time > report.stat().st_mtime_ns for time in ended)


def _do(run: Run, one: Planned, display: Display) -> None:
    """Bring one stage to its end."""
    stage = one.stage
    if one.action == "leave":
        return
    run.watcher.say(f"{stage.name}: {one.said()}")
    if one.action == "skip":
        return
    if run.runtime.is_main:
        if one.action != "go on":
            stage.clear()
        stage.mark("running")
    run.runtime.barrier()
    with display.showing(stage.name):
        match one.settings:
            case TrainingSettings() as settings:
                _train(run, stage.name, settings, display)
            case EvaluateSettings() as settings:
                if run.runtime.is_main:
                    evaluate_stage(run, stage.name, settings, display)
            case StylizeSettings() as settings:
                stylize_stage(run, stage.name, settings, display)
            case PseudoLabelsSettings() as settings:
                pseudo_labels_stage(run, stage.name, settings, display)
    run.runtime.barrier()
    if run.runtime.is_main:
        stage.mark("done")
    run.runtime.barrier()


def _train(run: Run, name: str, settings: TrainingSettings, display: Display) -> None:
    """Train, or load what stands in for it, and score the result."""
    domains = stand_in_domains(run, settings) or training_domains(run, settings)
    if settings.stand_in is not None:
        stand_in(run, name, settings)
    else:
        for domain, dataset in domains.all().items():
            run.watcher.say(f"{name}: {domain}: {dataset.origin}")
        training.train(run, name, settings, domains)
    after = after_training(name, settings, domains) if isinstance(settings, SegmenterSettings) else None
    if run.runtime.is_main and after is not None:
        evaluate_stage(run, name, after, display)


def need_run_folder(folder: Path) -> None:
    """Raise UsageError when `folder` is something else than a run, or nothing yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("the run folder is a file", where=folder, remedy="Choose another --out.")
    # Hidden files do not count: a kill may leave temporary ones.
    in_it = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    # A recipe alone is no run: it may be the user's own.
    if in_it and not ((folder / "environment.json").is_file() or any(folder.glob("*/stage.json"))):
        raise UsageError(
            "the folder holds other things than a run", where=folder, remedy="Choose an empty or new folder with --out."
        )


def write_run_files(run: Run) -> None:
    """environment.json, the mark of a run folder, and recipe.yaml (everything decided)."""
    place = run.runtime
    decided = runtime.RuntimeSettings(
        device=place.device.type,
        precision=place.precision,
        threads=place.threads,
        workers=None if place.measure_workers else place.workers,
        compile=place.compile,
    )
    write_json(run.folder / "environment.json", environment(run))
    write_text(run.folder / "recipe.yaml", as_yaml(run.recipe.model_copy(update={"runtime": decided})))


def environment(run: Run) -> dict[str, Any]:
    """Versions, machine and command line: what a person needs to judge the numbers."""
    import numpy
    import PIL

    device = run.runtime.device
    return {
        "segadapt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "precision": run.runtime.precision,
        "threads": run.runtime.threads,
        "ranks": run.runtime.ranks,
        "workers": run.runtime.workers,
        "command": shlex.join(["segadapt", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }

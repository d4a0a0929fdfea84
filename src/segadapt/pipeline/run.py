"""A run: its stages in order, done ones skipped, unfinished ones resumed, changed ones refused or redone."""

import os
import platform
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from segadapt.config.load import as_overrides, load_recipe, need_closed
from segadapt.config.recipe import Recipe
from segadapt.config.recipe_files import find_recipe
from segadapt.config.resolved import IN_A_DOMAIN, as_yaml, filled, located, recorded
from segadapt.data.label_spaces import load_label_space
from segadapt.engine import runtime
from segadapt.engine.ranks import Facts
from segadapt.errors import SegadaptError, SegadaptErrors, UsageError
from segadapt.files import write_json, write_text
from segadapt.pipeline import spent
from segadapt.pipeline.costs import costs
from segadapt.pipeline.lock import locked
from segadapt.pipeline.plan import ALL, Choice, Planned, need_consent, plan
from segadapt.pipeline.plan_table import ShowPlan, show_plan
from segadapt.pipeline.result import RunResult, result_of
from segadapt.pipeline.run_page import RunPage
from segadapt.pipeline.show import Display
from segadapt.pipeline.time_left import TimeLeft
from segadapt.plain_data import flat
from segadapt.plugin_loading import loaded
from segadapt.references import named_by, paths_in
from segadapt.stages.context import Run
from segadapt.stages.shipped import kinds_of
from segadapt.version import __version__
from segadapt.weights.starts import missing_download


def run_recipe(
    recipe: Recipe | str | Path,
    folder: Path | str | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    choice: Choice = ALL,
    dry_run: bool = False,
    yes: bool = False,
    show: ShowPlan = show_plan,
) -> RunResult:
    """Run the chosen stages of a recipe in `folder`, then write the report. A second call resumes where it stopped.

    `recipe` is a shipped recipe's name, a YAML file, or a loaded recipe; `folder` is `runs/NAME` by default;
    `overrides` change the recipe, as in `["seed=1"]` or `{"seed": 1}`. Values that it leaves open (`???`) are taken
    from the folder's own recipe.yaml. Returns the folder's contents: stages, models, scores. `dry_run` prints the plan
    (`show`: how) and writes nothing.

    Raises UsageError for errors in the recipe, if something would be deleted (stages made with different settings,
    `choice.fresh`) and `yes` is not given, and if another process is running in the folder; SegadaptError if a stage
    fails, Stopped after a signal.
    """
    folder, told = run_folder(recipe, folder), "recipe"
    if not isinstance(recipe, Recipe):
        told = str(find_recipe(str(recipe)))
        recipe = load_recipe(str(recipe), as_overrides(overrides), keep_open=True)
    elif overrides:
        raise UsageError(
            "cannot change a recipe that is loaded already", where="overrides", remedy="Give them to load_recipe."
        )
    # `catch_warnings`: a program that calls a run hears its own warnings again afterwards.
    with runtime.start(recipe.runtime) as place, warnings.catch_warnings():
        recipe = filled(recipe, place.from_main(lambda: recorded(folder / "recipe.yaml")))
        if not choice.some:
            need_closed(recipe, told)
        display = Display(place.is_main)
        warnings.showwarning = lambda message, *_, **__: display.say(f"warning: {message}")
        run = Run(recipe, folder, load_label_space(recipe.label_space), place, display, kinds_of(recipe.stages))
        planned = _agreed_plan(recipe, run, choice)
        if dry_run:
            if place.is_main:
                show(run, planned, yes, missing_downloads(planned))
            return place.from_main(lambda: result_of(folder, recipe, planned))
        if not yes:
            need_consent(planned)
        missing = missing_downloads(planned) if place.is_main else []
        if missing:  # now, and not after the hours of the stages before
            raise SegadaptErrors(missing) if len(missing) > 1 else missing[0]
        with locked(folder) if place.is_main else nullcontext():
            # Another command may have ended since.
            states = place.from_main(lambda: [one.stage.state() for one in planned])
            planned = [replace(one, state=state) for one, state in zip(planned, states, strict=True)]
            if not yes:
                need_consent(planned)
            _work(recipe, run, planned, display)
        return place.from_main(lambda: result_of(folder, recipe, planned))


def run_folder(recipe: Recipe | str | Path, folder: Path | str | None) -> Path:
    """Where a run goes: `folder`, or `runs/NAME` of a recipe that has one."""
    if folder is None and not isinstance(recipe, Recipe):
        return Path("runs") / Path(recipe).stem
    if folder is None or not str(folder):
        raise UsageError("the run folder is not given", where="folder", remedy="Give a path, for instance runs/mine.")
    return Path(folder).expanduser()


def missing_downloads(planned: list[Planned]) -> list[SegadaptError]:
    """An error for each download that a stage to be begun starts from and that cannot be had now."""
    names = {
        f"stages.{one.stage.name}.{key}": name
        for one in planned
        if one.action in ("begin", "redo")
        for key, mark in named_by(type(one.settings)).items()
        for name in (paths_in(one.settings, key) if mark.initial else ())
    }
    why = {name: missing_download(name) for name in set(names.values())}  # each is asked for once
    return [
        SegadaptError(reason, where=key, remedy=f"Give the path of a copy as `{key.rpartition('.')[2]}`.")
        for key, name in names.items()
        if (reason := why[name]) is not None
    ]


def _agreed_plan(recipe: Recipe, run: Run, choice: Choice) -> list[Planned]:
    """The plan as the run folder stands for rank 0, which alone need see it, and the files that the recipe names.

    Raises UsageError on every rank when they have not all the same version, recipe, machine settings and data.
    """
    place = run.runtime
    told = recipe.model_dump(mode="json", exclude={"runtime"})
    for side in told["data"].values():
        for domain in side if isinstance(side, list) else [side]:
            for key in IN_A_DOMAIN:  # the content of files and folders is compared
                domain[key] = domain[key] if isinstance(domain[key], int) else None
    facts: Facts = {"segadapt": __version__, "torch": str(torch.__version__), "device": place.device.type}
    facts |= {f"plug-in {plugin.name}": plugin.sha256 for plugin in loaded()}
    place.need_agreement(
        {
            **facts,
            "precision": place.precision,
            "compiling": place.compile,
            "CUDA graphs": place.cuda_graphs,
            "inference batch": place.inference_batch,
            **flat(told),
        }
    )

    def planning() -> list[Planned]:
        need_run_folder(run.folder)
        return plan(run, choice)

    planned = place.from_main(planning)
    if place.ranks > 1:
        if not place.is_main:  # each rank reads the data where it is for itself
            planned = [replace(one, data=one.kind.data(run, one.settings)) if one.chosen else one for one in planned]
        own = {one.stage.name: one.data.all() for one in planned if one.chosen}
        place.need_agreement(
            {f"{name} data of {stage}": d.digest for stage, data in own.items() for name, d in data.items()}
        )
    return planned


def _work(recipe: Recipe, run: Run, planned: list[Planned], display: Display) -> None:
    """Do the stages, then the report."""
    if run.runtime.is_main:
        write_run_files(recipe, run)
    to_do = [one for one in planned if one.to_do]
    ended = any(one.state == "done" for one in planned)
    page = RunPage(run, [one.stage.name for one in planned], display, ended)
    if run.runtime.is_main:
        display.follow(TimeLeft([one.stage.name for one in to_do], lambda: costs(run, to_do)))
    try:
        for one in planned:
            if one.to_do:
                page.before(one.stage.name)
            _do(run, one, display)
            if one.to_do:
                page.after()
    except BaseException:
        page.stop()
        raise
    page.end()


def _do(run: Run, one: Planned, display: Display) -> None:
    """Bring one stage to its end."""
    stage = one.stage
    if one.action == "leave":
        return
    run.watcher.say(f"{stage.name}: {one.said()}")
    if one.action == "skip":
        return
    if one.action == "continue" and one.continuation is not None and one.continuation.caution is not None:
        run.watcher.say(f"{stage.name}: {one.continuation.caution}")
    if run.runtime.is_main:
        if one.action in ("begin", "redo"):
            stage.clear()
        if one.action != "continue":  # which marks it when the checkpoint is known to fit
            stage.mark("running")
    run.runtime.barrier()
    with display.showing(stage.name), spent.recorded(stage.folder, run.runtime.device, run.runtime.is_main):
        one.kind.do(one.work(run))
    run.runtime.barrier()
    if run.runtime.is_main:
        stage.mark("done")
    run.runtime.barrier()


def need_run_folder(folder: Path) -> None:
    """Raise UsageError when `folder` is something else than a run, or nothing yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("the run folder is a file", where=folder, remedy="Choose another --out.")
    # Hidden files do not count: a kill may leave temporary ones.
    in_it = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    # A recipe alone is no run: it may be the user's own.
    if in_it and not ((folder / "environment.json").is_file() or any(folder.glob("*/stage.json"))):
        raise UsageError(
            "the folder is not empty and is not a run", where=folder, remedy="Choose an empty or new folder with --out."
        )


def write_run_files(recipe: Recipe, run: Run) -> None:
    """environment.json, the mark of a run folder, and recipe.yaml (everything decided)."""
    place = run.runtime
    decided = recipe.runtime.model_copy(
        update={
            "device": place.device.type,
            "precision": place.precision,
            "threads": place.threads,
            "workers": None if place.measure_workers else place.workers,
        }
    )
    write_json(run.folder / "environment.json", environment(run))
    write_text(run.folder / "recipe.yaml", as_yaml(located(recipe.model_copy(update={"runtime": decided}))))


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
        "plugins": [plugin.as_dict() for plugin in loaded()],
        "command": shlex.join(["segadapt", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }

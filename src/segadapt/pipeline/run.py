"""A run: its stages in order, done ones skipped, unfinished ones gone on with, changed ones refused or redone."""

import os
import platform
import shlex
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from segadapt.config.recipe import Recipe, StageSettings, references
from segadapt.config.resolved import as_yaml
from segadapt.data.label_spaces import load_label_space
from segadapt.engine import runtime
from segadapt.errors import UsageError
from segadapt.evaluation.report import write_report
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.files import need_file, sha256, write_json, write_text
from segadapt.inference.model import MODEL
from segadapt.methods.settings import TrainingSettings
from segadapt.models.starts import need_start
from segadapt.pipeline import training
from segadapt.pipeline.context import Run
from segadapt.pipeline.domains import evaluation_domains, training_domains
from segadapt.pipeline.evaluation import after_training, evaluate_stage
from segadapt.pipeline.show import Display
from segadapt.pipeline.stages import CODE_VERSIONS, Content, Stage, flat, need_unchanged
from segadapt.version import __version__

WORDS = {
    "new": "to do",
    "unfinished": "goes on where it stopped",
    "done": "done already, skipped",
    "changed": "made with other settings",
}


def run_recipe(recipe: Recipe, folder: Path, *, dry_run: bool = False, yes: bool = False) -> None:
    """Run all stages of `recipe` in `folder`, then write the report. Running it again goes on where it stopped.

    Raises UsageError when the folder was made with other settings and `yes` is not given.
    """
    with runtime.start(recipe.runtime) as place:
        display = Display(place.is_main)
        warnings.showwarning = lambda message, *_, **__: display.say(f"warning: {message}")
        run = Run(recipe, folder, load_label_space(recipe.label_space), place, display)
        if place.is_main:
            need_run_folder(folder)
        stages = plan(run)
        if dry_run:
            for stage in stages:
                details = f" ({'; '.join(stage.changes())})" if stage.state() == "changed" else ""
                print(f"{stage.name}  {WORDS[stage.state()]}{details}")
            return
        if not yes:
            need_unchanged(stages)
        if place.is_main:
            write_run_files(run)
        did_something = [_do(run, stage, recipe.stages[stage.name], display) for stage in stages]
        if place.is_main:
            report = folder / "report.html"
            if any(did_something) or not report.is_file():
                display.say("writing the report")
                write_report(folder, report, device=str(place.device))
            display.say(f"report: {report}")


def plan(run: Run) -> list[Stage]:
    """The stages with all that their results depend on. Raises UsageError for missing data or start files."""
    stages: list[Stage] = []
    digests: dict[str, str] = {}  # of start files, each read once
    for name, settings in run.recipe.stages.items():
        fingerprints = {stage.name: stage.fingerprint for stage in stages}
        content = _content(run, settings, fingerprints, digests)
        result = MODEL if isinstance(settings, TrainingSettings) else "evaluation.json"
        if isinstance(settings, TrainingSettings):
            training.need_equal_shares(run, name, settings)
        stages.append(Stage(name, run.stage_folder(name), content, result))
    return stages


def _content(run: Run, settings: StageSettings, before: dict[str, str], digests: dict[str, str]) -> Content:
    fields = type(settings).model_fields
    ignored = {
        name
        for name, field in fields.items()
        if (extra := field.json_schema_extra) and isinstance(extra, dict) and not extra.get("result", True)
    }
    named = references(settings)
    content: dict[str, Any] = {
        "settings": settings.model_dump(mode="json", exclude=ignored),
        "stages": {key: before[name] for key, name in named.items()},
        "label_space": run.space.digest,
        "code": CODE_VERSIONS[settings.method],
        "precision": run.runtime.precision,
    }
    file: Path | None = None  # what the stage starts from, unless it is another stage or a download
    if isinstance(settings, TrainingSettings):
        content["seed"] = run.recipe.seed
        domains = training_domains(run, settings)
        content["data"] = {name: dataset.digest for name, dataset in domains.all().items()}
        name = settings.start
        if name and not name.startswith("@"):
            file = need_start(name)
    else:
        content["data"] = {name: data.digest for name, data in evaluation_domains(run, settings).items()}
        name = settings.model
        if not name.startswith("@"):
            file = need_file(run.file_of(name), "the model")
    if file is not None and name is not None:
        if name not in digests:
            digests[name] = sha256(file)
        content["sha256"] = {name: digests[name]}
    return flat(content)


def _do(run: Run, stage: Stage, settings: StageSettings, display: Display) -> bool:
    """Bring one stage to its end; gives whether there was anything to do."""
    state = stage.state()
    run.watcher.say(f"{stage.name}: {WORDS[state]}" + (", redone" if state == "changed" else ""))
    run.runtime.barrier()
    if state == "done":
        return False
    if run.runtime.is_main:
        if state == "changed":
            stage.clear()
        stage.mark("running")
    run.runtime.barrier()
    with display.showing(stage.name):
        if isinstance(settings, TrainingSettings):
            domains = training_domains(run, settings)
            for name, dataset in domains.all().items():
                run.watcher.say(f"{stage.name}: {name}: {dataset.origin}")
            training.train(run, stage.name, settings, domains)
            after: EvaluateSettings | None = after_training(stage.name, domains)
        else:
            after = settings
        if run.runtime.is_main and after is not None:
            evaluate_stage(run, stage.name, after, display)
    if run.runtime.is_main:
        stage.mark("done")
    run.runtime.barrier()
    return True


def need_run_folder(folder: Path) -> None:
    """Raise UsageError when `folder` is something else than a run, or nothing yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("the run folder is a file", where=folder, remedy="Choose another --out.")
    # Hidden files do not count: a kill may leave temporary ones.
    in_it = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if in_it and not (folder / "recipe.yaml").is_file():
        raise UsageError(
            "the folder holds other things than a run", where=folder, remedy="Choose an empty or new folder with --out."
        )


def write_run_files(run: Run) -> None:
    """recipe.yaml (everything decided) and environment.json."""
    place = run.runtime
    decided = runtime.RuntimeSettings(
        device=place.device.type, precision=place.precision, threads=place.threads, workers=place.workers
    )
    write_text(run.folder / "recipe.yaml", as_yaml(run.recipe.model_copy(update={"runtime": decided})))
    write_json(run.folder / "environment.json", environment(run))


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

"""The verb `run`: a recipe from its beginning, or from where it stands, to its end."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from segadapt.cli.completion import one_of, overrides, recipes_and_files, stage_names
from segadapt.cli.output import need_folder_name

RecipeName = Annotated[
    str,
    typer.Argument(
        help="A shipped recipe's name (see `segadapt recipes`) or a YAML file.", autocompletion=recipes_and_files
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes to the recipe: dotted keys with YAML values, for instance stages.sean.lr=1e-4; "
        "stages.NAME=null leaves a stage out.",
        autocompletion=overrides,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="STAGE", help="Run only this stage; may be repeated.", autocompletion=stage_names),
]
First = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="Run this stage and all later ones.", autocompletion=stage_names),
]
Continued = Annotated[
    list[str] | None,
    typer.Option(
        "--continue",
        metavar="STAGE[=CHECKPOINT]",
        help="Continue this stage from its newest checkpoint (or the one named) under the current settings, which "
        "may differ from those that it was made with, for instance in the number of steps. May be repeated.",
        autocompletion=stage_names,
    ),
]
RunDevice = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of("auto", "cpu", "cuda"))
]
RunPrecision = Annotated[
    str | None,
    typer.Option(help="fp32, bf16 or auto (bf16 where it is fast).", autocompletion=one_of("fp32", "bf16", "auto")),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Also show trainings in tensorboard, mlflow, trackio or wandb (W&B); may be repeated.",
        autocompletion=one_of("tensorboard", "mlflow", "trackio", "wandb"),
    ),
]


def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/RECIPE.")] = None,
    only: Only = None,
    first: First = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan with estimated time and disk space; run nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete and redo stages whose settings have changed.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete and redo the chosen stages even if they are done; needs --yes.")
    ] = False,
    continued: Continued = None,
    device: RunDevice = None,
    precision: RunPrecision = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a process.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    track: Track = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan (with --dry-run), or else the results, as JSON on stdout.")
    ] = False,
) -> None:
    """Run a recipe: train its stages, evaluate them, and write a report. The same command resumes where it stopped.

    segadapt run sean_gta5_cityscapes data.source.root=/data/GTA5 data.target.root=/data/Cityscapes
    stages.sean.start=vgg16_hub
    """
    from segadapt.pipeline.plan import Choice
    from segadapt.pipeline.plan_table import as_json_plan, show_plan
    from segadapt.pipeline.run import run_recipe

    trackers = f"[{', '.join(track)}]" if track else None
    given = {"device": device, "precision": precision, "threads": threads, "workers": workers, "trackers": trackers}
    changes = [f"runtime.{key}={value}" for key, value in given.items() if value is not None]
    folder = None if out is None else need_folder_name(out)
    choice = Choice(tuple(only or ()), first, fresh, tuple(continued or ()))
    said, show = [*(overrides or []), *changes], as_json_plan if as_json else show_plan
    done = run_recipe(recipe, folder, said, choice=choice, dry_run=dry_run, yes=yes, show=show)
    if as_json and not dry_run and os.environ.get("RANK", "0") == "0":
        typer.echo(json.dumps(done.plain(), indent=1, allow_nan=False))

"""The verb `run`: a recipe from its beginning, or from where it stands, to its end."""

from pathlib import Path
from typing import Annotated

import typer

from segadapt.cli.output import need_folder_name


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (see `segadapt recipes`) or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes to the recipe: dotted keys with YAML values, for instance stages.sean.lr=1e-4; "
            "stages.NAME=null leaves a stage out.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/RECIPE.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="STAGE", help="Run only this stage; may be repeated.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all later ones.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan with estimated time and disk space; run nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete and redo stages whose settings have changed.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete and redo the chosen stages even if they are done; needs --yes.")
    ] = False,
    continued: Annotated[
        list[str] | None,
        typer.Option(
            "--continue",
            metavar="STAGE[=CHECKPOINT]",
            help="Continue this stage from its newest checkpoint (or the one named) under the current settings, which "
            "may differ from those that it was made with, for instance in the number of steps. May be repeated.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or auto (bf16 where it is fast).")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a process.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track", metavar="TRACKER", help="Also show trainings in tensorboard, mlflow or trackio; may be repeated."
        ),
    ] = None,
) -> None:
    """Run a recipe: train its stages, evaluate them, and write a report. The same command resumes where it stopped.

    segadapt run sean_gta5_cityscapes data.source.root=/data/GTA5 data.target.root=/data/Cityscapes
    stages.sean.start=vgg16_hub
    """
    from segadapt.pipeline.plan import Choice
    from segadapt.pipeline.run import run_recipe

    trackers = f"[{', '.join(track)}]" if track else None
    given = {"device": device, "precision": precision, "threads": threads, "workers": workers, "trackers": trackers}
    changes = [f"runtime.{key}={value}" for key, value in given.items() if value is not None]
    folder = None if out is None else need_folder_name(out)
    choice = Choice(tuple(only or ()), first, fresh, tuple(continued or ()))
    run_recipe(recipe, folder, [*(overrides or []), *changes], choice=choice, dry_run=dry_run, yes=yes)

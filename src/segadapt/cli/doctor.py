"""The verb `doctor`: whether segadapt works here, in the words of a bug report."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segadapt.cli.output import AsJson

if TYPE_CHECKING:
    from segadapt.setup.self_test import Trial


def doctor(
    recipe: Annotated[str | None, typer.Argument(help="Also examine this recipe's data, weights and settings.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, as `run` takes them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine this machine: versions, devices, memory, disk, and a self-test. Exit code 1 if something would fail.

    Takes less than half a minute; include what it prints in a bug report. It holds no secrets, and shows your home
    folder as ~. segadapt doctor mine.yaml
    """
    from segadapt.setup.doctor import examine

    facts = examine(recipe, overrides, lambda trial: _show_trial(trial, as_json))
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        _show(facts)
    if any(problem["level"] == "error" for problem in facts["problems"]):
        raise typer.Exit(1)


def _show_trial(trial: "Trial", err: bool) -> None:
    """A line for each trial as soon as it is over: a trial that never ends is told by the line before it."""
    state = "ok    " if trial.failure is None else "failed"
    note = f" ({trial.note})" if trial.note else ""
    typer.echo(f"{state} {trial.name:<32} {trial.seconds:5.1f} s{note}", err=err)


def _show(facts: dict[str, Any]) -> None:
    """Everything but the trials, which have been shown."""
    versions = facts["versions"]
    typer.echo(f"\nsegadapt {versions['segadapt']}, {versions['python']}, {versions['system']}")
    typer.echo(f"installed in {versions['installed in']}")
    typer.echo(f"packages: {_named(versions['packages'])}")
    for plugin in versions["plugins"]:
        typer.echo(f"plug-in: {_named(plugin)}")
    typer.echo(f"cpu: {_named(facts['cpu'])}")
    typer.echo(f"cuda: {_named(facts['cuda'])}")
    for gpu in facts["gpus"]:
        typer.echo(f"gpu: {_named(gpu)}")
    typer.echo(f"memory: {_named(facts['memory'])}")
    for name, disk in facts["disks"].items():
        writable = "" if disk["writable"] else ", not writable"
        typer.echo(f"disk, {name}: {disk['folder']}, {disk['free (GB)']} GB free{writable}")
    for extra, packages in facts["extras"].items():
        lacking = [name for name, version in packages.items() if version is None]
        state = f"lacks {', '.join(lacking)}" if lacking else _named(packages)
        typer.echo(f"extra {extra}: {state}")
    typer.echo(f"environment: {_named(facts['environment']) or 'nothing set'}")
    if "recipe" in facts:
        _show_recipe(facts["recipe"])
    typer.echo("")
    for problem in facts["problems"]:
        typer.echo(f"{problem['level']}: {problem['where']}: {problem['what'].rstrip('.')}. {problem['remedy']}")
    errors = sum(problem["level"] == "error" for problem in facts["problems"])
    typer.echo(f"{errors} error{'s' * (errors != 1)} found" if errors else "nothing found that would fail")


def _show_recipe(recipe: dict[str, Any]) -> None:
    typer.echo(f"recipe {recipe['name']}" + (f": {_named(recipe['stages'])}" if "stages" in recipe else ""))
    for name, domain in recipe.get("data", {}).items():
        splits = [f"{split} {own['images']} images, {own['labels']} labels" for split, own in domain["splits"].items()]
        typer.echo(f"  {name}: {'; '.join([domain['layout'], domain['root'], *splits])}")


def _named(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)

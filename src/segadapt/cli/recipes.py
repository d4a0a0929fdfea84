"""Verbs that tell about the package itself: recipes, quirks, schema."""

import json
from typing import Annotated

import typer

from segadapt.cli.completion import recipe_names


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Print this recipe's file, as a starting point for your own.", autocompletion=recipe_names),
    ] = None,
) -> None:
    """List the recipes that ship with the package, or print one."""
    from segadapt.config.recipe_files import find_recipe, read_tree, shipped_recipes

    if name is not None:
        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
        return
    shipped = shipped_recipes()
    width = max(len(key) for key in shipped)
    for key, path in shipped.items():
        typer.echo(f"{key:<{width}}  {read_tree(path).get('description', '')}")


def quirks(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the quirks of the published programs: what they do, and what segadapt does instead."""
    from segadapt.config.recipe import stage_types
    from segadapt.quirks import QUIRKS

    methods = {
        name: [method for method, settings in stage_types().items() if name in settings.known_quirks] for name in QUIRKS
    }
    if as_json:
        about = [{"name": name, "methods": methods[name], **vars(quirk)} for name, quirk in QUIRKS.items()]
        typer.echo(json.dumps(about, indent=1))
        return
    for name, quirk in QUIRKS.items():
        typer.echo(f"{name}  ({', '.join(methods[name])})")
        typer.echo(f"  published: {quirk.published}\n  default:   {quirk.default}\n")
    typer.echo("Set them all with `official: true` on a stage, or one with `quirks: {NAME: true}`.")


def schema() -> None:
    """Print the JSON schema of recipes, for completion in editors."""
    from segadapt.config.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=1))

"""What the Tab key offers: names of recipes, of their stages, of methods, layouts and label spaces.

Whoever presses it must not wait: only recipes are read here, and torch is not imported. What cannot be read offers
nothing.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import typer

from segadapt.errors import SegadaptError

Offer = Callable[[str], list[str]]
YAML = (".yaml", ".yml")
_METHOD = re.compile(r"\bmethod: *(\w+)")


def one_of(*names: str) -> Offer:
    """Offers those of the names that go on as what is typed already."""
    return lambda incomplete: matching(names, incomplete)


def several_of(*names: str) -> Offer:
    """The same where several may be given, separated by commas."""

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        chosen = before.split(",")
        return [f"{before}{comma}{name}" for name in matching(names, last) if name not in chosen]

    return offer


def matching(names: Iterable[str], incomplete: str) -> list[str]:
    """The names that begin so."""
    return [name for name in names if name.startswith(incomplete)]


def files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Folders, and files with one of the suffixes, whose path begins so."""
    folder, slash, name = incomplete.rpartition("/")
    with suppress(OSError):
        found = sorted(Path(folder + slash or ".").expanduser().iterdir())
        ends = [(one.name, "/" if one.is_dir() else "") for one in found if one.is_dir() or one.suffix in suffixes]
        return [
            f"{folder}{slash}{one}{end}" for one, end in ends if one.startswith(name) and one[0] != "." * (not name)
        ]
    return []


def shipped(folder: str) -> list[str]:
    """The names of the YAML files that ship in a folder of the package."""
    return sorted(Path(one.name).stem for one in (resources.files("segadapt") / folder).iterdir() if _is_yaml(one.name))


def _is_yaml(name: str) -> bool:
    return name.endswith(YAML)


def recipe_names(incomplete: str) -> list[str]:
    """Of the shipped recipes."""
    return matching(shipped("recipes"), incomplete)


def recipes_and_files(incomplete: str) -> list[str]:
    """Shipped recipes and YAML files."""
    return recipe_names(incomplete) + files(incomplete, YAML)


def spaces_and_files(incomplete: str) -> list[str]:
    """Shipped label spaces and YAML files."""
    return matching(shipped("data/spaces"), incomplete) + files(incomplete, YAML)


def layouts(incomplete: str) -> list[str]:
    """Layouts of data sets, and recipes: what `data check` takes."""
    from segadapt.data.catalog import LAYOUTS

    return matching(sorted(LAYOUTS), incomplete) + recipes_and_files(incomplete)


def methods() -> list[str]:
    """All that `method:` may be, from the recipes that ship: the registry would import torch."""
    from segadapt.config.recipe_files import shipped_recipes

    texts = (path.read_text(encoding="utf-8") for path in shipped_recipes().values())
    return sorted({name for text in texts for name in _METHOD.findall(text)})


def recipe_of(ctx: typer.Context) -> Any:
    """The recipe that the command names, as plain data; empty where it names none that can be read."""
    from segadapt.config.recipe_files import find_recipe, read_tree

    named = ctx.params.get("recipe") or next((word for word in ctx.args if not word.startswith("-")), "")
    with suppress(SegadaptError, OSError):
        return read_tree(find_recipe(named))
    return {}


def stage_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of the recipe that the command names."""
    stages = recipe_of(ctx).get("stages")
    return matching(stages, incomplete) if isinstance(stages, dict) else []


def overrides(ctx: typer.Context, incomplete: str) -> list[str]:
    """`KEY=VALUE`: keys as the recipe has them, level by level, and methods as values of `stages.NAME.method`."""
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={one}" for one in matching(_values(key), value)]
    before = list(ctx.params.get("overrides") or ())
    if before and before[-1] == "=":  # bash splits words at `=`, and other shells do not
        return matching(_values(before[-2]) if len(before) > 1 else [], incomplete)
    if before and not incomplete and (values := _values(before[-1])):
        return values
    return _keys(recipe_of(ctx), incomplete)


def _values(key: str) -> list[str]:
    if key.startswith("stages.") and key.endswith(".method"):
        return methods()
    if key == "label_space":
        return shipped("data/spaces")
    return {
        "runtime.device": ["auto", "cpu", "cuda"],
        "runtime.precision": ["fp32", "bf16", "auto"],
        "runtime.cuda_graphs": ["auto", "on", "off"],
    }.get(key, [])


def _keys(recipe: dict[str, Any], incomplete: str) -> list[str]:
    """The keys on the level that is typed; those with keys below end in a dot, others in `=`.

    In place of a single one with keys below come these: a shell would put a space after it.
    """
    tree: Any = {"seed": 0, "label_space": "", **recipe, "runtime": _RUNTIME}
    *above, last = incomplete.split(".")
    for part in above:
        tree = tree.get(part) if isinstance(tree, dict) else None
    while isinstance(tree, dict):
        found = matching(map(str, tree), last)
        if len(found) != 1 or not isinstance(tree.get(found[0]), dict) or not tree[found[0]]:
            start = ".".join([*above, ""])
            return [f"{start}{key}{'.' if isinstance(tree.get(key), dict) else '='}" for key in found]
        above, last, tree = [*above, found[0]], "", tree[found[0]]
    return []


_RUNTIME = dict.fromkeys(
    (
        *("device", "precision", "threads", "workers", "compile", "cuda_graphs", "inference_batch"),
        *("trackers", "track_images_every"),
    )
)

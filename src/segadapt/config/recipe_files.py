"""The files of recipes: those that ship with the package, and what one says with its `base`. Imports nothing heavy."""

from importlib import resources
from pathlib import Path
from typing import Any

from segadapt.errors import UsageError, nearest
from segadapt.files import LONGEST, exists, is_file, need_file, user_path
from segadapt.plain_data import DEPTH, read_yaml

Tree = dict[str, Any]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that ship with the package."""
    folder = Path(str(resources.files("segadapt") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe. Raises UsageError when there is none."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = user_path(name_or_path)
    if not exists(path) and path.suffix not in (".yaml", ".yml"):
        where = name_or_path if len(name_or_path) <= LONGEST else f"{name_or_path[:40]}…"
        beside = [file for suffix in (".yaml", ".yml") if is_file(file := Path(f"{path}{suffix}"))]
        meant = f"Did you mean '{beside[0]}'?" if beside else nearest(name_or_path, list(shipped))
        raise UsageError("no recipe of this name, and no file", where=where, remedy=meant)
    return need_file(path, "the recipe")


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> Tree:
    """A recipe file as plain data; `base: NAME_OR_PATH` puts it over another recipe."""
    tree = read_yaml(path, "the recipe")
    if not isinstance(tree, dict):
        raise UsageError(
            "a recipe is a mapping of keys", where=path, remedy="See `segadapt recipes` for ones to start from."
        )
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UsageError(f"`base` is {short(base)}", where=path, remedy="Give the name or the path of one recipe.")
    try:
        below = _base_file(path.parent / base, base)
    except UsageError as error:
        raise UsageError(f"base {short(base)}: {error.what}", where=path, remedy=error.remedy) from None
    seen = (*seen, path.resolve())
    if below.resolve() in seen:
        raise UsageError("`base` leads back to the recipe itself", where=path, remedy="Break the circle.")
    if len(seen) > DEPTH:
        raise UsageError(f"the {len(seen)}th `base` of one another", where=path, remedy="Put some of them into one.")
    return merged(read_tree(below, seen), tree)


def _base_file(beside: Path, base: str) -> Path:
    """A file beside the recipe, or what `base` means anywhere. A folder of a shipped recipe's name does not hide it."""
    if is_file(beside) or (exists(beside) and base not in shipped_recipes()):
        return need_file(beside, "it")
    return find_recipe(base)


def merged(below: Tree, above: Tree) -> Tree:
    """`above` over `below`: mappings are merged key by key, all else is replaced."""
    result = dict(below)
    for key, value in above.items():
        both_trees = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_trees else value
    return result


def short(value: object) -> str:
    """A value of a recipe for a message, on one line."""
    text = "empty" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

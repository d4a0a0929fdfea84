"""From a recipe's name or file and `key=value` overrides to a Recipe, with errors that a person can act on."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from segadapt.config.recipe import STAGE_METHODS, Recipe, StageSettings
from segadapt.errors import UsageError, UsageErrors, nearest
from segadapt.files import need_file

MISSING = "???"
COMMAND_LINE = "command line"
Tree = dict[str, Any]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that ship with the package."""
    folder = Path(str(resources.files("segadapt") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: list[str]) -> Recipe:
    """A shipped recipe's name or a YAML file, with overrides `dotted.key=value` (YAML values) over it.

    Raises UsageErrors with one line for each unknown key, wrong type, value out of range and `???` still open.
    """
    path = find_recipe(name_or_path)
    tree = read_tree(path)
    from_command_line = set()
    for override in overrides:
        key = apply_override(tree, override)
        from_command_line.add(key)
    if isinstance(tree.get("stages"), dict):
        # `stages.NAME=null` leaves a stage out, for one's own diff over a recipe with more stages than one wants.
        tree["stages"] = {name: stage for name, stage in tree["stages"].items() if stage is not None}
    errors = [_open_value(key, path) for key in _open_keys(tree)]
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        errors += [e for e in _explain(error, tree, path, from_command_line) if e is not None]
        raise UsageErrors(errors) if len(errors) > 1 else errors[0] from None
    if errors:
        raise UsageErrors(errors) if len(errors) > 1 else errors[0]
    return recipe


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe. Raises UsageError when there is none."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path).expanduser()
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            "no recipe of this name, and no file", where=name_or_path, remedy=nearest(name_or_path, list(shipped))
        )
    return need_file(path, "the recipe")


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> Tree:
    """A recipe file as plain data; `base: NAME_OR_PATH` puts it over another recipe."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UsageError(
            f"not valid YAML{line}", where=path, remedy="Mend the file; YAML needs `key: value`."
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=path, remedy="Check the path and its permissions."
        ) from error
    if not isinstance(tree, dict):
        raise UsageError(
            "a recipe is a mapping of keys", where=path, remedy="See `segadapt recipes` for ones to start from."
        )
    base = tree.pop("base", None)
    if base is None:
        return tree
    beside = path.parent / str(base)
    below = beside if beside.is_file() else find_recipe(str(base))
    if below in (*seen, path):
        raise UsageError("`base` leads back to the recipe itself", where=path, remedy="Break the circle.")
    return merged(read_tree(below, (*seen, path)), tree)


def merged(below: Tree, above: Tree) -> Tree:
    """`above` over `below`: mappings are merged key by key, all else is replaced."""
    result = dict(below)
    for key, value in above.items():
        both_trees = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_trees else value
    return result


def apply_override(tree: Tree, override: str) -> str:
    """Set `dotted.key=value` in `tree`; gives the key."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"'{override}' is no override", where=COMMAND_LINE, remedy="Write dotted.key=value, for instance seed=1."
        )
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        raise UsageError(
            f"the value of '{key}' is not valid YAML", where=COMMAND_LINE, remedy="Quote it, as in key='\"text\"'."
        ) from None
    *parents, last = key.split(".")
    place: Any = tree
    stages = tree.get("stages") or {}
    for part in parents:
        # A stage or domain that the recipe has not is a misspelling, not a new one: it would lack its other keys.
        if place is stages and part not in stages:
            raise UsageError(f"no stage '{part}' ({key})", where=COMMAND_LINE, remedy=nearest(part, list(stages)))
        if not isinstance(place.setdefault(part, {}), dict):
            raise UsageError(
                f"'{part}' of '{key}' holds a value, not keys", where=COMMAND_LINE, remedy="Check the key."
            )
        place = place[part]
    place[last] = value
    return key


def _open_keys(tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _open_keys(value, f"{prefix}{key}.")
        elif value == MISSING:
            yield prefix + str(key)


def _open_value(key: str, path: Path) -> UsageError:
    return UsageError(
        f"{key} must be given", where=path, remedy=f"Add {key}=VALUE to the command, or set it in the file."
    )


def _explain(error: ValidationError, tree: Tree, path: Path, given: set[str]) -> Iterator[UsageError | None]:
    """One UsageError per finding of pydantic, with the key as the user writes it and the nearest existing one."""
    for finding in error.errors(include_url=False):
        keys = _as_written(finding["loc"])
        key = ".".join(keys)
        where = (
            COMMAND_LINE if any(key == g or key.startswith(f"{g}.") or g.startswith(f"{key}.") for g in given) else path
        )
        value = finding.get("input")
        if value == MISSING:
            continue
        match finding["type"]:
            case "extra_forbidden":
                yield UsageError(
                    f"unknown key '{key}'", where=where, remedy=nearest(keys[-1], _keys_beside(keys, tree))
                )
            case "missing":
                yield UsageError(
                    f"'{key}' is missing", where=where, remedy=f"Add {key}=VALUE to the command, or set it in the file."
                )
            case "union_tag_invalid" | "union_tag_not_found":
                method = str(value.get("method", "")) if isinstance(value, dict) else ""
                yield UsageError(
                    f"'{key}.method' is '{method}', which is no method",
                    where=where,
                    remedy=nearest(method, list(STAGE_METHODS)),
                )
            case "value_error":
                place = f"'{key}': " if key else ""
                yield UsageError(place + finding["msg"].removeprefix("Value error, "), where=where, remedy="Change it.")
            case _:
                yield UsageError(
                    f"'{key}' is {_short(value)}: {_plain(finding['msg'])}", where=where, remedy="Change the value."
                )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:]


def _as_written(location: tuple[int | str, ...]) -> list[str]:
    """pydantic's location without the union tag that it puts after a stage's name."""
    keys = [str(part) for part in location]
    if len(keys) > 2 and keys[0] == "stages" and keys[2] in STAGE_METHODS:
        del keys[2]
    return keys


def _keys_beside(keys: list[str], tree: Tree) -> list[str]:
    """The keys that exist where the unknown one stands."""
    model: type[BaseModel] = Recipe
    for depth, key in enumerate(keys[:-1]):
        if depth == 1 and keys[0] == "stages":
            model = _stage_model(tree.get("stages", {}).get(key, {}).get("method", ""))
            continue
        field = model.model_fields.get(key)
        if field is None:
            continue
        inner = [
            t
            for t in (field.annotation, *get_args(field.annotation))
            if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        model = inner[0] if inner else model
    return list(model.model_fields)


def _stage_model(method: str) -> type[BaseModel]:
    models: tuple[type[BaseModel], ...] = get_args(get_args(StageSettings)[0])
    return next((model for model in models if model.model_fields["method"].default == method), Recipe)

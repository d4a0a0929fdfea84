"""From a recipe's name or file and `key=value` overrides to a Recipe, with errors that a person can act on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segadapt.config.recipe import Recipe, stage_types
from segadapt.config.recipe_files import Tree, find_recipe, read_tree, short
from segadapt.errors import UsageError, UsageErrors, nearest
from segadapt.plain_data import DEPTH, parse_yaml
from segadapt.plugin_loading import known, load_installed
from segadapt.settings import MISSING

COMMAND_LINE = "command line"
MOST_ERRORS = 20
"""Lines that are told at once."""


def load_recipe(name_or_path: str, overrides: list[str], *, keep_open: bool = False) -> Recipe:
    """A shipped recipe's name or a YAML file, with overrides `dotted.key=value` (YAML values) over it.

    With `keep_open`, paths and names that are still open (`???`) stay so: a run folder may know them, and a command
    that does some stages alone asks for what these need. Raises UsageErrors with one line for each unknown key, wrong
    type, value out of range and (otherwise) `???`.
    """
    load_installed()
    path = find_recipe(name_or_path)
    tree = read_tree(path)
    from_command_line = set()
    for override in overrides:
        key = apply_override(tree, override)
        from_command_line.add(key)
    if isinstance(tree.get("stages"), dict):
        # `stages.NAME=null` leaves a stage out, for one's own diff over a recipe with more stages than one wants.
        tree["stages"] = {name: stage for name, stage in tree["stages"].items() if stage is not None}
    still_open = [open_value(key, path) for key in open_keys(tree)]
    errors: list[UsageError] = [] if keep_open else still_open
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        errors += [e for e in _explain(error, tree, path, from_command_line) if e is not None]
        raise _told(errors or still_open, path) from None  # a number cannot stay open
    if errors:
        raise _told(errors, path)
    return recipe


def as_overrides(changes: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Changes to a recipe as the command line has them: `{"stages.sean.lr": 1e-4}` -> `["stages.sean.lr=0.0001"]`."""
    if isinstance(changes, Mapping):
        return [f"{key}={json.dumps(value, default=str)}" for key, value in changes.items()]
    return [changes] if isinstance(changes, str) else list(changes)


def _told(errors: list[UsageError], path: Path) -> UsageError:
    """The errors as one; only the first of very many, as of a file that is no recipe."""
    if left := len(errors[MOST_ERRORS:]):
        errors = [*errors[:MOST_ERRORS], UsageError(f"{left} more", where=path, remedy="Fix those above first.")]
    return UsageErrors(errors) if len(errors) > 1 else errors[0]


def apply_override(tree: Tree, override: str) -> str:
    """Set `dotted.key=value` in `tree`; gives the key."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"'{override}' is not an override",
            where=COMMAND_LINE,
            remedy="Write dotted.key=value, for instance seed=1.",
        )
    *parents, last = key.split(".")
    if len(parents) >= DEPTH:
        raise UsageError(f"'{key:.60}…' has more than {DEPTH} levels", where=COMMAND_LINE, remedy="Check the key.")
    try:
        # A reference needs no quotes here, as it does in a file.
        value = text if text.startswith("@") else parse_yaml(text, COMMAND_LINE) if text else None
    except UsageError as error:
        remedy = "Quote it, as in key='\"text\"'." if error.what.startswith("not valid") else error.remedy
        verb = ":" if error.what.startswith("key ") else " is"
        raise UsageError(f"the value of '{key}'{verb} {error.what}", where=COMMAND_LINE, remedy=remedy) from None
    place: Any = tree
    stages = tree.get("stages") or {}
    for part in parents:
        # A stage or domain that the recipe has not is a misspelling, not a new one: it would lack its other keys.
        if place is stages and isinstance(place, dict) and part not in place:
            raise UsageError(f"no stage '{part}' ({key})", where=COMMAND_LINE, remedy=nearest(part, list(stages)))
        below = place.setdefault(part, {}) if isinstance(place, dict) else inside(place, part)
        if not isinstance(below, (dict, list)):
            what = "holds a value, not keys" if isinstance(place, dict) else "is not in the list"
            raise UsageError(f"'{part}' of '{key}' {what}", where=COMMAND_LINE, remedy="Check the key.")
        place = below
    if isinstance(place, list):
        raise UsageError(f"'{last}' of '{key}' is one of a list", where=COMMAND_LINE, remedy="Name a key in it.")
    place[last] = value
    return key


def inside(place: Any, part: str) -> Any:
    """What a part of a dotted key names: a key of a mapping, or the place (0, 1 …) in a list; None for nothing."""
    if isinstance(place, list):
        return place[int(part)] if part.isdecimal() and int(part) < len(place) else None
    return place.get(part) if isinstance(place, dict) else None


def open_keys(tree: Tree, prefix: str = "") -> Iterator[str]:
    """The dotted keys whose values are still open (`???`)."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from open_keys(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            yield from open_keys({str(place): one for place, one in enumerate(value)}, f"{prefix}{key}.")
        elif _is_open(value):
            yield prefix + str(key)


def _is_open(value: object) -> bool:
    """Whether something in it is still to be given."""
    if isinstance(value, (list, dict)):
        return any(_is_open(part) for part in (value.values() if isinstance(value, dict) else value))
    return value == MISSING


def need_closed(recipe: Recipe, where: Path | str) -> None:
    """Raise UsageErrors with one line for each path and name that is still open (`???`)."""
    errors = [open_value(key, where) for key in open_keys(recipe.model_dump(mode="json"))]
    if errors:
        raise UsageErrors(errors) if len(errors) > 1 else errors[0]


def open_value(key: str, where: Path | str) -> UsageError:
    """The error that asks for the value of a key."""
    return UsageError(
        f"{key} must be given", where=where, remedy=f"Add {key}=VALUE to the command, or set it in the file."
    )


def _explain(error: ValidationError, tree: Tree, path: Path, given: set[str]) -> Iterator[UsageError]:
    """One UsageError per finding of pydantic, with the key as the user writes it and the nearest existing one."""
    for keys, alternatives in _findings(error, tree):
        finding, key = alternatives[0], ".".join(keys)
        where = (
            COMMAND_LINE if any(key == g or key.startswith(f"{g}.") or g.startswith(f"{key}.") for g in given) else path
        )
        value = finding.get("input")
        if value == MISSING:
            continue
        match finding["type"]:
            case "extra_forbidden":
                beside = list(_model_around(keys, tree).model_fields)
                yield UsageError(f"unknown key '{key}'", where=where, remedy=nearest(keys[-1], beside))
            case "missing" if isinstance(finding["loc"][-1], int):
                key = ".".join(keys[:-1])
                yield UsageError(
                    f"'{key}' is {short(value)}: it has too few values",
                    where=where,
                    remedy=_change(keys[:-1], tree),
                )
            case "missing":
                yield UsageError(
                    f"'{key}' is missing", where=where, remedy=f"Add {key}=VALUE to the command, or set it in the file."
                )
            case "union_tag_invalid" | "union_tag_not_found":
                method = str(value.get("method") or "") if isinstance(value, dict) else ""
                yield UsageError(
                    f"'{key}.method' is '{method}', which is not a method" if method else f"'{key}.method' is missing",
                    where=where,
                    remedy=known(method, list(stage_types())),
                )
            case "value_error":
                place = f"'{key}': " if key else ""
                what, _, remedy = finding["msg"].removeprefix("Value error, ").partition(". ")
                yield UsageError(place + what, where=where, remedy=_quoted(value) + (remedy or "Change it."))
            case _:
                wrong, remedy = ", or ".join(dict.fromkeys(map(_plain, alternatives))), _change(keys, tree)
                yield UsageError(f"'{key}' is {short(value)}: {wrong}", where=where, remedy=_quoted(value) + remedy)


def _quoted(value: object) -> str:
    """For a truth value where none is expected, that it may have been meant as text."""
    return isinstance(value, bool) * "YAML reads yes, no, on and off as true and false; quote them if you mean text. "


def _plain(finding: ErrorDetails) -> str:
    """pydantic's message without its words for programmers."""
    limits = finding.get("ctx", {})
    match finding["type"]:
        case "dict_type" | "model_type" | "model_attributes_type":
            return "it must be keys with values"
        case "list_type" | "tuple_type":
            return "it must be a list, as [1, 2]"
        case "path_type":
            return "it must be a path"
        case "too_short":
            return f"it must have at least {limits.get('min_length')} values"
        case "too_long":
            return f"it must have at most {limits.get('max_length')} values"
    message = finding["msg"].replace("Input should", "it must", 1)
    return message[:1].lower() + message[1:]


def _change(keys: list[str], tree: Tree) -> str:
    """A remedy that says what the setting is."""
    while keys and keys[-1].isdecimal():
        keys = keys[:-1]
    field = _model_around(keys, tree).model_fields.get(keys[-1]) if keys else None
    if field is None or not field.description:
        return "Change the value."
    return f"Change it; `{keys[-1]}` is: {field.description}."


def _findings(error: ValidationError, tree: Tree) -> list[tuple[list[str], list[ErrorDetails]]]:
    """pydantic's findings by the key as the user writes it.

    A value that may be of several types has one finding for each, whose location ends with the type in pydantic's
    words: these are one.
    """
    found: list[tuple[list[str], list[ErrorDetails]]] = []
    of_type: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for finding in error.errors(include_url=False):
        location = finding["loc"]
        keys = [str(part) for part in (location if finding["type"] == "missing" else _written(location, tree))]
        cut = len(keys) < len(location)
        if cut and tuple(keys) in of_type:
            of_type[tuple(keys)].append(finding)
            continue
        found.append((keys, [finding]))
        if cut:
            of_type[tuple(keys)] = found[-1][1]
    return found


def _written(location: tuple[int | str, ...], tree: Tree) -> Iterator[int | str]:
    """The parts of pydantic's location that stand in the recipe: not the types among which a value's is sought."""
    place: Any = tree
    for part in location:
        inside = part in place if isinstance(place, dict) else isinstance(place, list) and part in range(len(place))
        if inside:
            yield part
            place = place[part]


def _model_around(keys: list[str], tree: Tree) -> type[BaseModel]:
    """The model whose fields stand where the last of the keys stands."""
    model: type[BaseModel] = Recipe
    for depth, key in enumerate(keys[:-1]):
        if depth == 1 and keys[0] == "stages":
            stage = tree["stages"].get(key)
            model = _stage_model(stage.get("method", "")) if isinstance(stage, dict) else Recipe
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
    return model


def _stage_model(method: str) -> type[BaseModel]:
    return stage_types().get(method, Recipe)

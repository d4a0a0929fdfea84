"""The resolved recipe: every default written out, readable back as a recipe, from any folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from segadapt.config.load import inside, open_keys
from segadapt.config.recipe import Recipe, stage_types
from segadapt.errors import UsageError
from segadapt.plain_data import read_yaml
from segadapt.references import named_by
from segadapt.settings import MISSING

IN_A_DOMAIN = ("root", "train_list", "val_list", "labelled", "prepared_root")
"""Keys of a domain that hold paths."""


def as_yaml(recipe: Recipe) -> str:
    """YAML of the whole recipe, keys in the order of the models."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def located(recipe: Recipe) -> Recipe:
    """The same recipe with absolute paths, so that it means the same whatever folder it is read in."""
    tree = recipe.model_dump(mode="json")
    for side in tree["data"].values():
        for domain in side if isinstance(side, list) else [side]:
            domain |= {key: _absolute(domain[key]) for key in IN_A_DOMAIN}
    for stage in tree["stages"].values():
        stage |= {key: _there(stage[key]) for key in named_by(stage_types()[stage["method"]])}
    tree["label_space"] = _there(tree["label_space"])
    return Recipe.model_validate(tree)


def recorded(path: Path) -> Any:
    """The plain data of an earlier resolved recipe; None where there is none that can be read."""
    try:
        return read_yaml(path, "the resolved recipe") if path.is_file() else None
    except UsageError:
        return None


def filled(recipe: Recipe, before: Any) -> Recipe:
    """The recipe with what it leaves open (`???`) as the recorded one `before` has it, where that has what fits."""
    for key in list(open_keys(recipe.model_dump(mode="json"))):
        *parents, last = key.split(".")
        tree = recipe.model_dump(mode="json")
        here, there = tree, before
        for part in parents:
            here, there = inside(here, part), inside(there, part)
        if isinstance(there, dict) and isinstance(there.get(last), str):
            here[last] = there[last]
            with suppress(ValidationError):  # such as the name of a stage that is in the recipe no more
                recipe = Recipe.model_validate(tree)
    return recipe


def _absolute(path: str | int | None) -> str | int | None:
    return path if not isinstance(path, str) or path == MISSING else str(Path(path).expanduser().absolute())


def _there(value: Any) -> Any:
    """A path of something that is there, or several, made absolute; names, references and null stay as they are."""
    if isinstance(value, list):
        return [_there(one) for one in value]
    if not isinstance(value, str) or value.startswith("@") or not (Path(value).suffix or "/" in value):
        return value
    return _absolute(value) if Path(value).expanduser().exists() else value

"""Which runs are seeds of one recipe."""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segadapt.errors import SegadaptError
from segadapt.files import digest, is_file
from segadapt.inference.model import RECIPE
from segadapt.plain_data import Json, read_yaml
from segadapt.report.records import RunRecord, mapping

PLACES = ("root", "train_list", "val_list", "labelled", "prepared", "prepared_root")
"""Keys of a domain that only locate its data: its content is in the digest."""
_LEVELS = 4  # a run's files are at most so many levels down: RUN/STAGE/labels/NAME.png


class Other(NamedTuple):
    """A run whose files another run names."""

    seed: Any
    digest: str  # of its recipe without the seed


def seed_groups(runs: Sequence[RunRecord], notes: list[str]) -> dict[str, list[RunRecord]]:
    """Runs by the name of their group, in order."""
    found: dict[tuple[str, int], list[RunRecord]] = {}
    for run in runs:
        key, again = _recipe_digest(run.recipe, {}) if run.recipe else str(run.folder.resolve()), 0
        while any(run.recipe.get("seed") == other.recipe.get("seed") for other in found.get((key, again), [])):
            again += 1  # the same seed twice is no second seed
        if again:
            notes.append(
                f"{run.folder.name}: recipe and seed of {found[key, 0][0].folder.name}: kept apart, not another seed"
            )
        found.setdefault((key, again), []).append(run)
    return dict(zip(_names(list(found.values())), found.values(), strict=True))


def _recipe_digest(recipe: Json, others: dict[Path, Other]) -> str:
    """Digest of what must be the same in runs that differ only in the seed. `others`: other runs, by folder."""
    kept = copy.deepcopy(recipe)
    seed = kept.pop("seed", None)
    for key in ("runtime", "description"):
        kept.pop(key, None)
    for side in mapping(kept.get("data")).values():
        for domain in side if isinstance(side, list) else [side]:
            for key in PLACES:
                mapping(domain).pop(key, None)
    kept["stages"] = _without_seed(kept.get("stages"), seed, others)
    return digest(kept)


def _without_seed(settings: Any, seed: Any, others: dict[Path, Other]) -> Any:
    """Stages' settings; a file of another run with the same seed stands for that stage of the other run's recipe."""
    if isinstance(settings, dict):
        return {key: _without_seed(value, seed, others) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_seed(value, seed, others) for value in settings]
    if not isinstance(settings, str) or not Path(settings).is_absolute():
        return settings
    path = Path(settings)
    folder = next((above for above in path.parents[:_LEVELS] if is_file(above / RECIPE)), None)
    if folder is None:
        return settings
    if folder not in others:
        try:
            recipe = mapping(read_yaml(folder / RECIPE, "the recipe"))
        except SegadaptError:
            return settings
        others[folder] = Other(recipe.get("seed"), "")  # for now: runs may name files of each other
        others[folder] = Other(recipe.get("seed"), _recipe_digest(recipe, others))
    other = others[folder]
    return [other.digest, str(path.relative_to(folder))] if other.seed == seed else settings


def _names(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """A name for each group: the common part of its runs' paths, below the common folder of all."""
    paths = [str(run.folder.resolve()) for group in groups for run in group]
    above = os.path.commonpath(paths) if len(paths) > 1 else os.path.dirname(paths[0])  # noqa: PTH120
    names: list[str] = []
    for group in groups:
        own = [os.path.relpath(run.folder.resolve(), above) for run in group]
        in_common = os.path.commonprefix(own)  # noqa: RUF071 - of letters: `dacs_seed` of dacs_seed0 and dacs_seed1
        name = own[0] if len(own) == 1 else re.sub(r"[/_.\-]*(seed)?[/_.\-\d]*$", "", in_common)
        name = name or os.path.basename(above)  # noqa: PTH119
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names

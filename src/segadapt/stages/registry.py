"""The kinds of stages by the name that a recipe's `method:` has for them.

`segadapt.stages.shipped` registers those that ship with segadapt.
"""

from collections.abc import Callable, Mapping

from segadapt.methods.registry import TAKEN
from segadapt.quirks import QuirkySettings
from segadapt.stages.stage import StageKind

KINDS: dict[str, StageKind] = {}
FAMILIES: list[Callable[[], Mapping[str, StageKind]]] = []
"""Kinds that come and go with something else: one for each method that is registered now."""


def register_stage(kind: StageKind) -> None:
    """Make a kind of stage known to recipes under its name. Raises ValueError when that is taken, or is not a name."""
    if not kind.name.isidentifier():
        raise ValueError(f"{kind.settings_type.__name__} needs `method: Literal[NAME] = NAME`")
    if kind.name in stage_kinds():
        raise ValueError(f"a kind of stage named {kind.name!r} already exists")
    KINDS[kind.name] = kind
    TAKEN.add(kind.name)


def stage_kinds() -> dict[str, StageKind]:
    """All by name, those of a family first."""
    return {name: kind for family in FAMILIES for name, kind in family().items()} | KINDS


def quirks_of(method: str) -> tuple[str, ...]:
    """The names of the quirks that a method, or another kind of stage, has."""
    return stage_kinds()[method].settings_type.known_quirks


def kinds_of(stages: Mapping[str, QuirkySettings]) -> dict[str, StageKind]:
    """The kinds of a recipe's stages, by their names."""
    return {name: kind_of(settings) for name, settings in stages.items()}


def kind_of(settings: QuirkySettings) -> StageKind:
    """The kind of stage that settings belong to."""
    return stage_kinds()[settings.method]

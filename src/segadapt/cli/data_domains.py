"""What `data check` and `data prepare` are about: the data set that the options name, or all the data of a recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from segadapt.data.label_spaces import LabelSpace
    from segadapt.data.settings import DomainSettings

UNSAID = (None, 0, "error", "turn")
"""Values of options that are not given."""


@dataclass(frozen=True)
class Domain:
    """A data set to look at, in a label space."""

    settings: "DomainSettings"
    space: "LabelSpace"
    name: str = ""  # in its recipe: `source`, `target.acdc`
    needs_labels: bool = True  # whether images without labels are a fault

    def announce(self) -> None:
        """Say which of a recipe's domains comes now."""
        if self.name:
            typer.echo(f"{self.name}: layout {self.settings.layout}, {self.settings.root}")

    def labels(self, unlabelled: bool, split: str | None = None) -> bool:
        """Whether labels are looked at: unless that is not wanted, or a target has none (in a split)."""
        if unlabelled or self.needs_labels:
            return not unlabelled
        return split is not None and any(pair.label is not None for pair in self.settings.pairs(split))

    def file_name(self, split: str) -> str:
        """The name of a file about a split."""
        return f"{self.name}.{split}" if self.name else split


def domains_of(layout: str, root: Path | None, label_space: str, **given: Any) -> Iterator[Domain]:
    """The data set `layout` in `root`, as the options say; without a root, the domains of the recipe `layout`.

    Raises UsageError.
    """
    from segadapt.data.label_spaces import load_label_space

    if root is not None:
        yield Domain(_settings(layout=layout, root=root, **given), load_label_space(label_space, "--label-space"))
        return
    from segadapt.config.load import load_recipe, need_closed
    from segadapt.data.catalog import LAYOUTS
    from segadapt.data.sides import score_name
    from segadapt.errors import UsageError
    from segadapt.files import is_folder, user_path

    if layout in LAYOUTS:
        raise UsageError("the folder of the data set is missing", where="ROOT", remedy=f"Give it after '{layout}'.")
    if is_folder(user_path(layout)):
        raise UsageError(
            "is a folder, where a layout or a recipe is expected",
            where=layout,
            remedy=f"Name the layout before it: 'folder {layout}', 'cityscapes {layout}', … (see docs/data-sets.md).",
        )
    for key, value in given.items():
        if value not in UNSAID:
            option = f"--{key}".replace("_", "-")
            raise UsageError(
                "applies to a single data set", where=option, remedy="Give LAYOUT and ROOT, or set it in the recipe."
            )
    recipe = load_recipe(layout, [])
    need_closed(recipe, layout)
    space = load_label_space(recipe.label_space)
    for side in ("source", "target"):
        for name, settings in recipe.data.named(side).items():
            yield Domain(settings, space, score_name(side, name), side == "source")


def _settings(**given: Any) -> "DomainSettings":
    from pydantic import ValidationError

    from segadapt.data.settings import DomainSettings
    from segadapt.errors import UsageError

    try:
        return DomainSettings(**given)
    except ValidationError as failure:
        detail = failure.errors()[0]
        key = f"--{detail['loc'][0]}".replace("_", "-") if detail["loc"] else "data"
        where = "LAYOUT" if key == "--layout" else key
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] != "value_error":
            message = f"'{detail['input']}': {message[:1].lower()}{message[1:]}"
        raise UsageError(message, where=where, remedy="See --help.") from None

"""The form of a label-space file, checked with errors that say in words what is wrong with it.

    [water, quay, ship]                    # names are enough

or a mapping with `classes`, each a name or `{name: …}` with color, ids, rgb and aliases (docs/data-sets.md).
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from segadapt.data.class_colors import Color
from segadapt.errors import UsageError, UsageErrors, nearest
from segadapt.settings import Settings

TRAIN = "train"
"""The encoding that every label space has: train ids, 255 ignored."""
MOST = 254
"""Classes of a label space: train ids are bytes, of which 254 and 255 mean something else."""

COLOR = 'give [red, green, blue], each 0 to 255, or "#rrggbb" in quotes'


def _name(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a name (YAML reads yes, no, on and off as true and false): put it in quotes")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r:.60} is not a name: " + ("put it in quotes" if value else "give one"))
    return value


def _number(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= 255


def _color(value: Any) -> Color:
    if isinstance(value, str) and (found := re.fullmatch(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{3})", value.strip())):
        digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(_number(channel, 0) for channel in value):
        return value[0], value[1], value[2]
    raise ValueError(f"{value!r:.60} is not a colour: {COLOR}")


def _colors(value: Any) -> list[Color]:
    """One colour may stand for a list of them."""
    if isinstance(value, list) and value and isinstance(value[0], (list, tuple, str)):
        return [_color(one) for one in value]
    return [_color(value)]


def _ids(lowest: int) -> Callable[[Any], list[int]]:
    """One id may stand for a list of them."""

    def check(value: Any) -> list[int]:
        ids = value if isinstance(value, list) and value else [value]
        for one in ids:
            if not _number(one, lowest):
                raise ValueError(f"{one!r:.60} is not an id: give whole numbers from {lowest} to 255")
        return list(ids)

    return check


def _per_encoding(check: Callable[[Any], Any], example: str, empty: bool = False) -> BeforeValidator:
    """A mapping of encodings to ids or colours, which may be `empty` lists."""

    def each(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.60} belongs to no encoding: give it a name, as in {example}")
        found = {}
        for encoding, content in value.items():
            _name(encoding)
            try:
                found[encoding] = [] if empty and content == [] else check(content)
            except ValueError as error:
                raise ValueError(f"encoding '{encoding}': {error}") from None
        return found

    return BeforeValidator(each)


def _class_list(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError("is not a list: give names, [water, quay], or one `- {name: water, …}` per line")
    if not 2 <= len(value) <= MOST:
        raise ValueError(f"has length {len(value)}: a label space needs at least 2 classes, and at most {MOST}")
    return value


Name = Annotated[str, BeforeValidator(_name)]
_Ids = Annotated[dict[str, list[int]], _per_encoding(_ids(0), "ids: {mask: 255}")]
_Rgb = Annotated[dict[str, list[Color]], _per_encoding(_colors, "rgb: {painted: [255, 0, 0]}")]
# -1, Cityscapes' license plate, is 255 in 8 bits
_IgnoredIds = Annotated[dict[str, list[int]], _per_encoding(_ids(-1), "ignored_ids: {mask: [127]}", empty=True)]
_IgnoredRgb = Annotated[dict[str, list[Color]], _per_encoding(_colors, "ignored_rgb: {painted: [0, 0, 0]}", empty=True)]


class ClassEntry(Settings):
    """One class of a label-space file."""

    name: Name
    color: Annotated[Color | None, BeforeValidator(lambda value: None if value is None else _color(value))] = None
    ids: _Ids = Field(default_factory=dict)
    rgb: _Rgb = Field(default_factory=dict)
    aliases: list[Name] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """A bare name is a class, too."""
        if not isinstance(value, dict):
            return {"name": _name(value)}
        if "color" in value and value["color"] is None:  # left out, it would be chosen, which nobody would notice
            raise ValueError(f"color is empty (in YAML, a # begins a comment): {COLOR}")
        return value


class SpaceFile(Settings):
    """A label-space file: everything in it is checked here, before a `LabelSpace` is made of it."""

    name: Name
    description: str = ""
    classes: Annotated[list[ClassEntry], BeforeValidator(_class_list)]
    ignored_ids: _IgnoredIds = Field(default_factory=dict)
    ignored_rgb: _IgnoredRgb = Field(default_factory=dict)
    subsets: dict[Name, Annotated[list[Name], Field(min_length=1)]] = Field(default_factory=dict)
    things: list[Name] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> "SpaceFile":
        self._check_names()
        kinds = (
            ("id", self.ignored_ids, [(entry.name, entry.ids) for entry in self.classes]),
            ("colour", self.ignored_rgb, [(entry.name, entry.rgb) for entry in self.classes]),
        )
        known: list[set[str]] = []
        for kind, ignored, classes in kinds:
            owners: dict[tuple[str, Any], str] = {}
            for owner, encodings in [*classes, ("the ignored", ignored)]:
                for encoding, value in _each(encodings):
                    value = value & 0xFF if isinstance(value, int) else value
                    if owners.setdefault((encoding, value), owner) != owner:
                        both = f"'{owners[encoding, value]}' and '{owner}'"
                        raise ValueError(f"{kind} {value} of encoding '{encoding}' belongs to both {both}")
            known.append({encoding for encoding, _ in owners})
        if double := known[0] & known[1]:
            raise ValueError(f"encoding '{min(double)}' has both ids and colours: it must be one of them")
        if TRAIN in known[0] | known[1]:
            raise ValueError(f"the encoding '{TRAIN}' already exists (train ids): choose another name")
        return self

    def _check_names(self) -> None:
        taken: set[str] = set()
        for entry in self.classes:
            for name in (entry.name, *entry.aliases):
                if name in taken:
                    raise ValueError(f"the class name '{name}' occurs twice")
                taken.add(name)
        names = [entry.name for entry in self.classes]
        for subset, members in self.subsets.items():
            for member in members:
                if member not in names:
                    raise ValueError(
                        f"subset '{subset}' names '{member}', which is not a class. {nearest(member, names)}"
                    )
            if len(set(members)) < len(members):
                raise ValueError(f"subset '{subset}' names a class twice")
        for thing in self.things:
            if thing not in names:
                raise ValueError(f"things names '{thing}', which is not a class. {nearest(thing, names)}")


def _each(encodings: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    for encoding, values in encodings.items():
        for value in values:
            yield encoding, value


def parse_space(content: Any, where: Path | str) -> SpaceFile:
    """The checked content of a file; a list is one of classes, and a file without a name has its own.

    Raises UsageError (UsageErrors for several) that names `where`, the key and what is wrong with it.
    """
    if isinstance(content, list) and content:
        content = {"classes": content}
    if not isinstance(content, dict):
        raise UsageError(
            "holds no label space",
            where=where,
            remedy="It needs a list of class names, or the keys name and classes; see docs/data-sets.md.",
        )
    try:
        return SpaceFile.model_validate({"name": Path(where).stem, **content})
    except ValidationError as failure:
        raise _usage_error(failure, where) from None
    except UnicodeEncodeError:  # of an escape like "\udc80", when pydantic tells what is wrong with it
        raise UsageError(
            "holds text with an invalid character", where=where, remedy="Write names as plain UTF-8 text."
        ) from None


def _usage_error(failure: ValidationError, where: Path | str) -> UsageError:
    """Each thing that pydantic found, as one line with the key and a remedy."""
    errors = []
    for detail in failure.errors():
        key = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        remedy = "See the example in docs/data-sets.md."
        if detail["type"] == "extra_forbidden":
            known = ClassEntry if "classes" in detail["loc"] else SpaceFile
            message, remedy = "unknown key", nearest(str(detail["loc"][-1]), list(known.model_fields))
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] != "value_error" and key:
            message = f"{message[0].lower()}{message[1:]}, not {detail['input']!r:.60}"
        errors.append(UsageError(f"{key}: {message}" if key else message, where=where, remedy=remedy))
    return errors[0] if len(errors) == 1 else UsageErrors(errors)

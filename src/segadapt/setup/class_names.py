"""Classes as a user gives them: `road,car`, `0=ground,255=crack`, `#ff0000=ship`, a file, or a label space.

given = parse("0=ground,255=crack")
assign(given, values)           # {0: "ground", 255: "crack"}; None stands for ignored
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segadapt.data.label_space_file import MOST
from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space, shipped_label_spaces
from segadapt.errors import UsageError
from segadapt.files import is_file, user_path
from segadapt.setup.label_values import LabelValues, Value

IGNORED = ("-", "ignored", "ignore", "void")
"""Names that mean "ignored"."""
BLACK = (0, 0, 0)
_SHOWN = 12  # values in a message
Names = Mapping[Value, str | None]
"""Raw id or colour -> its class; None: ignored."""
ClassesLike = str | Path | LabelSpace | Sequence[str] | Mapping[Value, str | None] | None
"""What `parse` accepts."""


@dataclass(frozen=True)
class Given:
    """The classes as given by the user: in one of these forms, or none."""

    space: LabelSpace | None = None
    name: str = ""  # of that label space, as in a recipe: a shipped name or a path
    names: tuple[str, ...] = ()  # in the order of the values, which are not given
    values: Names | None = None


NOTHING = Given()


def parse(classes: ClassesLike, where: str = "--classes") -> Given:
    """The classes of a list (or text) of names, of a mapping of ids or colours, of a file or of a shipped name.

    Raises UsageError that names `where`.
    """
    if classes is None:
        return NOTHING
    if isinstance(classes, LabelSpace):
        return Given(classes, classes.name)
    if isinstance(classes, Mapping):
        return Given(values={_checked(value, where): _class_name(name, where) for value, name in classes.items()})
    if isinstance(classes, (str, Path)):
        text = str(classes)
        path = user_path(text) if len(text) < 4096 else Path()
        if path.suffix.lower() in (".yaml", ".yml") or text in shipped_label_spaces():
            space = load_label_space(text, where)
            return Given(space, text if text in shipped_label_spaces() else str(path.absolute()))
        if is_file(path):
            return _words(_lines(path), where=str(path))
        if path.suffix.lower() in (".txt", ".csv"):
            raise UsageError("the file of classes does not exist", where=path, remedy="Check the path.")
        return _words([part for part in re.split(r"[,\n]", text) if part.strip()], where)
    return _words(classes, where)


def _lines(path: Path) -> list[str]:
    """One class a line: `name`, `id name` or `id=name`; # begins a comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        raise UsageError(f"cannot be read ({failure})", where=path, remedy="Give a text file.") from failure
    lines = [line.strip() for line in text.splitlines()]
    return [re.sub(r"^(\d+)\s*[=:,;\s]\s*(?=\D)", r"\1=", line) for line in lines if line and not line.startswith("# ")]


def _words(words: Iterable[object], where: str) -> Given:
    texts = [word if isinstance(word, str) else "" for word in words]
    if not texts or not all(text.strip() for text in texts):
        raise UsageError("names no classes", where=where, remedy="Give names, as road,car or 0=ground,255=crack.")
    if not any("=" in text for text in texts):
        names = tuple(text.strip() for text in texts)
        if len(set(names)) < len(names):
            raise UsageError(
                "names a class twice", where=where, remedy="Name each once, or say which ids: 1=car,2=car."
            )
        return Given(names=names)
    values: dict[Value, str | None] = {}
    for text in texts:
        value, equals, name = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"'{text}' says no id", where=where, remedy="Give all as ID=NAME, or all as names.")
        parsed = _checked(value, where)
        if parsed in values:
            raise UsageError(f"names {value} twice", where=where, remedy="Name each id or colour once.")
        values[parsed] = _class_name(name, where)
    return Given(values=values)


def _checked(value: object, where: str) -> Value:
    """An id, or a colour: three numbers, or `#rrggbb`."""
    if isinstance(value, str) and (found := re.fullmatch(r"#([0-9a-fA-F]{6})", value)):
        return int(found[1][:2], 16), int(found[1][2:4], 16), int(found[1][4:], 16)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    if isinstance(value, tuple) and len(value) == 3 and all(isinstance(one, int) and 0 <= one <= 255 for one in value):
        return value
    raise UsageError(
        f"'{value}' is no id from 0 to 255, and no colour", where=where, remedy="Give an id, or a colour as #rrggbb."
    )


def _class_name(name: object, where: str) -> str | None:
    if name is None or (isinstance(name, str) and name.lower() in IGNORED):
        return None
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{name!r} is no name of a class", where=where, remedy="Give one, or - for ignored.")
    return name.strip()


def assign(
    given: Given, found: LabelValues, ignored: Iterable[Value], where: str = "--classes"
) -> dict[Value, str | None]:
    """The class of each value that was found, as given: None for an ignored one, in order of the classes.

    Raises UsageError when names do not match the values.
    """
    left_out: dict[Value, str | None] = dict.fromkeys(ignored)
    if given.values is not None:
        values = {**left_out, **given.values}
        unsaid = [value for value in found.values if value not in values and value != IGNORE]
        if unsaid:
            raise UsageError(
                f"does not say what {shown(unsaid)} {'is' if len(unsaid) == 1 else 'are'} in the labels",
                where=where,
                remedy="Name each, with - for what is to be ignored.",
            )
        return values if IGNORE in values or IGNORE not in found.values else {**values, IGNORE: None}
    return {**_in_order(given.names, [value for value in found.values if value not in left_out], where), **left_out}


def _in_order(names: Sequence[str], there: list[Value], where: str) -> dict[Value, str | None]:
    """Names for values in order: as many as names, or train ids from 0 or 1; 0 and 255 may be ignored."""
    count = len(names)
    for ignored in ((), (IGNORE,), (0,), (BLACK,), (0, IGNORE)):
        left = [value for value in there if value not in ignored]
        if len(left) == count and all(value in there for value in ignored):
            return {**dict(zip(left, names, strict=True)), **dict.fromkeys(ignored)}
    ids = [value for value in there if isinstance(value, int)]
    if len(ids) == len(there):
        for first in (0, 1):
            beside = {IGNORE} if first == 0 else {0, IGNORE}
            if all(first <= value < first + count or value in beside for value in ids):
                named: dict[Value, str | None] = {first + k: name for k, name in enumerate(names)}
                return {**named, **dict.fromkeys(value for value in ids if value not in named)}
    raise UsageError(
        f"has {count} names, but the labels hold {len(there)} values: {shown(there)}",
        where=where,
        remedy="Say which is which: 0=ground,255=crack; - for what is to be ignored.",
    )


def proposed(found: LabelValues, ignored: Iterable[Value]) -> dict[Value, str | None]:
    """Names for values without given names: from the colours of shipped label spaces, or numbered."""
    left_out, count = set(ignored), len(found.values)
    if count - (IGNORE in found.values) >= 2 and not is_mask(found):
        left_out.add(IGNORE)
    if found.kind == "colours" and count > 4:
        left_out.add(BLACK)
    left = [value for value in found.values if value not in left_out]
    known = _names_by_color()
    colors = [value if isinstance(value, tuple) else found.values[value].palette for value in left]
    names = [known.get(color) if color is not None else None for color in colors]
    if len([name for name in names if name is not None]) < max(3, len(left) / 2):  # a coincidence
        names = [None] * len(left)
    plain = ["background", "foreground"] if len(left) == 2 else [f"class_{_text(value).lstrip('#')}" for value in left]
    result: dict[Value, str | None] = {
        value: name or other for value, name, other in zip(left, names, plain, strict=True)
    }
    return {**result, **{value: None for value in found.values if value in left_out}}


def is_mask(found: LabelValues) -> bool:
    """Whether labels are masks of 0 and 255, as painting programs write them."""
    return list(found.values) == [0, IGNORE]


def _names_by_color() -> dict[tuple[int, ...], str]:
    """Colour -> the class that has it in a shipped label space."""
    found: dict[tuple[int, ...], str] = {}
    for space in map(load_label_space, ("cityscapes19", *shipped_label_spaces())):
        for name, color in zip(space.classes, space.colors.tolist(), strict=True):
            found.setdefault(tuple(color), name)
    return found


def need_classes(names: Mapping[Value, str | None]) -> list[str]:
    """The classes of values, each once, in order. Raises UsageError for fewer than two, or too many."""
    classes = list(dict.fromkeys(name for name in names.values() if name is not None))
    if not 2 <= len(classes) <= MOST:
        raise UsageError(
            f"{len(classes)} class{'es' * (len(classes) != 1)}, but a segmenter distinguishes 2 to {MOST}",
            where="classes",
            remedy="Check the folder of the labels, and name the classes: --classes 0=ground,255=crack.",
        )
    return classes


def shown(values: Sequence[Value]) -> str:
    """Some of the values, for a message."""
    return ", ".join(map(_text, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")


def _text(value: Value) -> str:
    return str(value) if isinstance(value, int) else "#{:02x}{:02x}{:02x}".format(*value)

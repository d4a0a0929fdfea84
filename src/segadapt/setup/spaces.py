"""The label space and the encodings for the labels of the user's two domains: a shipped one, or a new one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace, load_label_space, shipped_label_spaces
from segadapt.errors import UsageError
from segadapt.plain_data import parse_yaml
from segadapt.setup import class_names
from segadapt.setup.class_names import NOTHING, Given, need_classes, shown
from segadapt.setup.label_values import LabelValues, Value
from segadapt.setup.space_text import as_text, color_of

KNOWN_SHARE = 0.99
"""Minimum share of the pixels that an encoding must know."""
COLORS_ALIKE = 3
"""Minimum number of values with the palette colours of a shipped label space for it to be recognised."""
Names = dict[Value, str | None]


@dataclass(frozen=True)
class Labelled:
    """The labels of a domain: their values, and the encoding that its layout implies."""

    values: LabelValues
    encoding: str | None  # None: unknown
    given: Given = NOTHING
    ignored: tuple[Value, ...] = ()
    option: str = "--classes"  # the option that gives the meaning of its values


@dataclass(frozen=True)
class Chosen:
    """The classes, and how the labels of each side encode them."""

    space: LabelSpace
    name: str  # in a recipe: a shipped name, or a path
    content: str | None  # of that file, where it is still to be written
    encodings: Mapping[str, str]  # by side; none for a side whose labels have another meaning
    names: Mapping[str, Names]  # by side: the class of each value that was found
    notes: tuple[str, ...] = ()


def choose(source: Labelled, target: Labelled | None, file: Path) -> Chosen:
    """The classes for the labels of both sides (None: only the source's); `file` is the label-space file to write.

    Raises UsageError when nothing fits, with what was found.
    """
    sides = {"source": source} | ({} if target is None else {"target": target})
    if source.given.space is not None:
        if target is not None and target.given != NOTHING:
            raise UsageError(
                "cannot be given beside a label space",
                where=target.option,
                remedy="Add an encoding for these labels to the label-space file, or name the source's classes.",
            )
        if source.ignored:
            raise UsageError("cannot be given beside a label space", where="ignored", remedy="It says so itself.")
        return _read_in(source.given.space, source.given.name, sides)
    if source.given == NOTHING and not source.ignored and (target is None or target.given == NOTHING):
        shipped = _shipped(sides)
        if shipped is not None:
            return shipped
    return _own(source, target, file)


def _read_in(space: LabelSpace, name: str, sides: Mapping[str, Labelled]) -> Chosen:
    """An existing label space, with the matching encodings. Raises UsageError if none matches the source."""
    encodings: dict[str, str] = {}
    names: dict[str, Names] = {}
    notes = []
    for side, labelled in sides.items():
        encoding = _fitting(space, labelled)
        if encoding is None:
            what = f"no encoding of label space '{space.name}' knows the labels of the {side}: "
            what += shown(list(labelled.values.values))
            if side == "source":
                raise UsageError(what, where=labelled.option, remedy="Name the classes, as in 0=ground,255=crack.")
            notes.append(f"{what}. They are left out, so that nothing can be scored; --target-classes names them")
            continue
        encodings[side], names[side] = encoding, _names_in(space, encoding, labelled.values)
    return Chosen(space, name, None, encodings, names, tuple(notes))


def _fitting(space: LabelSpace, labelled: Labelled) -> str | None:
    """The encoding of a space that knows the labels and gives most of their pixels a class; None if there is none."""
    if labelled.encoding is not None:
        return labelled.encoding if labelled.encoding in space.encodings else None
    ranked = []
    for number, encoding in enumerate((*space.own_encodings, *(e for e in space.encodings if e not in space.ids))):
        names, values = _names_in(space, encoding, labelled.values), labelled.values.values
        known = sum(seen.share for value, seen in values.items() if value in names)
        used = sum(seen.share for value, seen in values.items() if names.get(value) is not None)
        if known >= KNOWN_SHARE * sum(seen.share for seen in values.values()) and used > 0:
            ranked.append((used, -number, encoding))
    return max(ranked)[2] if ranked else None


def _names_in(space: LabelSpace, encoding: str, values: LabelValues) -> Names:
    """The class of each value that an encoding knows."""
    if space.is_rgb(encoding) != (values.kind == "colours"):
        return {}
    names: Names = {}
    if values.kind == "colours":
        for k, colors in enumerate(space.rgb[encoding]):
            names |= dict.fromkeys(colors, space.classes[k])
        names |= dict.fromkeys(space.ignored_rgb.get(encoding, ()))
    else:
        for value, train_id in enumerate(space.table(encoding).tolist()):
            if train_id != UNKNOWN:
                names[value] = None if train_id == IGNORE else space.classes[train_id]
    return {value: names[value] for value in values.values if value in names}


def _shipped(sides: Mapping[str, Labelled]) -> Chosen | None:
    """The shipped label space with the most classes that occur in all domains, and the fewest that do not; None for
    unknown labels."""
    ranked = []
    for name in shipped_label_spaces():
        space = load_label_space(name)
        encodings = {side: _recognized(space, labelled) for side, labelled in sides.items()}
        if any(encoding is None for encoding in encodings.values()):
            continue
        known = {side: encoding for side, encoding in encodings.items() if encoding is not None}
        names = {side: _names_in(space, encoding, sides[side].values) for side, encoding in known.items()}
        everywhere = set.intersection(*(set(own.values()) - {None} for own in names.values()))
        ranked.append((2 * len(everywhere) - len(space), Chosen(space, name, None, known, names)))
    return max(ranked, key=lambda one: one[0])[1] if ranked else None


def _recognized(space: LabelSpace, labelled: Labelled) -> str | None:
    """The encoding of labels that can be identified by their layout or palette."""
    if labelled.encoding is not None:
        return labelled.encoding if labelled.encoding in space.encodings else None
    if labelled.values.kind != "ids":
        return None
    colors = dict(zip(space.classes, map(tuple, space.colors.tolist()), strict=True))
    for encoding in (*space.ids, TRAIN):
        names = _names_in(space, encoding, labelled.values)
        meant = {value: name for value, name in names.items() if name is not None}
        alike = [value for value, name in meant.items() if labelled.values.values[value].palette == colors[name]]
        if len(names) == len(labelled.values.values) and len(alike) >= max(COLORS_ALIKE, 0.8 * len(meant)):
            return encoding
    return None


def _own(source: Labelled, target: Labelled | None, file: Path) -> Chosen:
    """A new label space from the values of the source."""
    names: dict[str, Names] = {"source": _named(source)}
    classes = need_classes(names["source"])
    encodings = {"source": source.encoding or ("own" if target is None else "source")}
    notes = []
    if target is not None:
        found = _of_target(source, names["source"], target)
        if found is None:
            notes.append(
                f"the labels of the target hold {shown(list(target.values.values))}, which are not the source's ids: "
                "they are left out, so that nothing can be scored; --target-classes says which class each is"
            )
            encodings["source"] = source.encoding or "own"
        elif isinstance(found, str):  # the same ids
            encodings["source"] = encodings["target"] = source.encoding or "own"
            names["target"] = {value: names["source"].get(value) for value in target.values.values}
            if target.encoding is None and set(target.values.values) != set(source.values.values):
                notes.append(
                    "the ids of the target's labels are among the source's, and are taken for the same classes; "
                    "--target-classes says if they are not"
                )
        else:
            foreign = sorted({name for name in found.values() if name is not None and name not in classes})
            if foreign:
                notes.append(
                    f"{', '.join(foreign)}: classes that only the target has, which cannot be learned: ignored"
                )
            names["target"] = {value: name if name in classes else None for value, name in found.items()}
            encodings["target"] = target.encoding or "target"
            if encodings["target"] == encodings["source"]:
                encodings["target"] += "_target"
    content = as_text(file.stem, classes, encodings, names, {"source": source.values} | _values_of(target))
    space = LabelSpace.from_dict(parse_yaml(content, file), file)
    return Chosen(space, str(file), content, encodings, names, tuple(notes))


def _values_of(target: Labelled | None) -> dict[str, LabelValues]:
    return {} if target is None else {"target": target.values}


def _named(labelled: Labelled) -> Names:
    """The class of each value: as given, as implied by its layout, or as proposed."""
    if labelled.given != NOTHING:
        return class_names.assign(labelled.given, labelled.values, labelled.ignored, labelled.option)
    if labelled.encoding is not None and (known := _by_layout(labelled)) is not None:
        return known
    return class_names.proposed(labelled.values, labelled.ignored)


def _by_layout(labelled: Labelled) -> Names | None:
    """The names in a shipped label space for the encoding of a known layout."""
    for name in ("cityscapes19", *shipped_label_spaces()):
        space = load_label_space(name)
        if labelled.encoding in space.encodings:
            return _names_in(space, str(labelled.encoding), labelled.values)
    return None


def _of_target(source: Labelled, names: Names, target: Labelled) -> Names | str | None:
    """The classes of the target's values; a string if they are the source's; None if unknown."""
    if target.given.space is not None:
        raise UsageError(
            "names a label space", where=target.option, remedy="Name the target's ids in the source's classes."
        )
    if target.given != NOTHING:
        return class_names.assign(target.given, target.values, target.ignored, target.option)
    if target.encoding is not None:
        return "the source's" if target.encoding == source.encoding else _by_layout(target)
    masks = (class_names.is_mask(source.values), class_names.is_mask(target.values))
    if (
        masks[0] == masks[1]
        and target.values.kind == source.values.kind
        and set(target.values.values) <= {*names, IGNORE, *target.ignored}
    ):
        return "the source's"
    by_color = {color: names[value] for value in names if (color := color_of(value, source.values)) is not None}
    colors = {value: color_of(value, target.values) for value in target.values.values}
    if len(by_color) > 1 and all(color in by_color or value == IGNORE for value, color in colors.items()):
        return {value: by_color.get(color) if color is not None else None for value, color in colors.items()}
    return None

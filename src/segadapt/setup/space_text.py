"""A label-space file for the user to read and edit, and plain data as single lines of YAML."""

import json
import re
from collections.abc import Mapping
from typing import Any

from segadapt.data.class_colors import Color
from segadapt.setup.label_values import LabelValues, Value

Names = Mapping[Value, str | None]


def color_of(value: Value, values: LabelValues) -> Color | None:
    """The colour of a value in the files: the value itself, or its palette colour."""
    if isinstance(value, tuple):
        return value
    return values.values[value].palette if value in values.values else None


def as_text(
    name: str,
    classes: list[str],
    encodings: Mapping[str, str],
    names: Mapping[str, Names],
    values: Mapping[str, LabelValues],
) -> str:
    """A label-space file, with the share of the pixels beside each class."""
    content = {side: (encodings[side], names[side], values[side]) for side in encodings}
    if len(set(encodings.values())) < len(encodings):  # one encoding for both
        content.pop("target", None)
    colors = _class_colors(classes, names["source"], values["source"])
    lines = [
        "# The classes, in the order of their train ids, and the ids or colours of each in the label files.",
        "# Rename, merge (ids: {own: [3, 4]}) or reorder them before the first training: a model keeps its classes.",
        f"name: {scalar(name)}",
        "classes:",
    ]
    for one in classes:
        held = {"ids": dict[str, Any](), "rgb": dict[str, Any]()}
        shares = []
        for side, (encoding, own, found) in content.items():
            mine = [value for value, class_name in own.items() if class_name == one]
            if mine:
                plain = [_plain(value) for value in mine]
                held["ids" if found.kind == "ids" else "rgb"][encoding] = plain[0] if len(plain) == 1 else plain
            share = sum(found.values[value].share for value in mine if value in found.values)
            shares.append(f"{100 * share:.2f} %" + (f" of the {side}" if len(content) > 1 else ""))
        entry: dict[str, Any] = {"name": one}
        if (color := colors[one]) is not None:
            entry["color"] = list(color)
        entry |= {key: known for key, known in held.items() if known}
        lines.append(f"  - {flow(entry)}  # {', '.join(shares)}")
    for key, kind in (("ignored_ids", "ids"), ("ignored_rgb", "colours")):
        ignored: dict[str, Any] = {
            encoding: [_plain(value) for value, class_name in own.items() if class_name is None]
            for encoding, own, found in content.values()
            if found.kind == kind and any(class_name is None for class_name in own.values())
        }
        if ignored:
            lines.append(f"{key}: {flow(ignored)}")
    return "\n".join(lines) + "\n"


def _class_colors(classes: list[str], names: Names, values: LabelValues) -> dict[str, Color | None]:
    """The colour of each class in the files, if it is unique and visible."""
    colors: dict[str, Color | None] = {}
    for one in classes:
        color = next((color_of(value, values) for value, name in names.items() if name == one), None)
        colors[one] = None if color in ((0, 0, 0), None) or color in colors.values() else color
    return colors


def _plain(value: Value) -> int | list[int]:
    return list(value) if isinstance(value, tuple) else value


def flow(content: Any) -> str:
    """Plain data in one line of YAML."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list):
        return "[" + ", ".join(map(flow, content)) + "]"
    return scalar(content) if isinstance(content, str) else json.dumps(content)


def scalar(text: str) -> str:
    """Text as YAML: quoted where it could be read as something else."""
    plain = re.fullmatch(r"[^\W\d](?:[\w .-]*\w)?", text)
    words = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return text if plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)

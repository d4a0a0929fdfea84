"""Label spaces as data: the classes a network tells apart, their colours, and how files on disk encode them.

A *train id* is the number of a class in its label space, 0 … C-1; label maps are uint8 (H, W) of train ids with
`IGNORE` where nothing is labelled. An *encoding* says how files hold labels: raw ids (`cityscapes`, `synthia`, `carla`,
`camvid`) or RGB colours. Every label space knows the encoding `train`: train ids themselves, 255 ignored; and one with
`cityscapes` ids knows those of data sets that are translated into them (`segadapt.data.encodings`).

The shipped spaces are YAML files in `spaces/`; one's own is a file of the same form (docs/data-sets.md).
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segadapt.data.class_colors import automatic_colors
from segadapt.data.encodings import DerivedEncoding, derived_encodings
from segadapt.data.label_space_file import TRAIN, parse_space
from segadapt.errors import UsageError, nearest
from segadapt.files import digest, user_path
from segadapt.plain_data import read_yaml

IGNORE = 255
"""Train id of pixels that neither train nor score."""
UNKNOWN = 254
"""What `LabelSpace.table` gives for raw ids that an encoding does not know, `remap` for classes without a partner."""

FOLDER = Path(__file__).parent / "spaces"
Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """Classes with their colours and encodings. Equal when the content is equal.

    Made by `load_label_space` or `LabelSpace.from_dict`, which check everything.
    """

    name: str
    description: str
    classes: tuple[str, ...]  # the name of each train id
    colors: NDArray[np.uint8]  # (C, 3) RGB, read-only
    aliases: tuple[tuple[str, ...], ...]  # per class: what other label spaces call it
    ids: dict[str, tuple[tuple[int, ...], ...]]  # encoding -> raw ids per class, the one to write first
    rgb: dict[str, tuple[tuple[tuple[int, int, int], ...], ...]]  # encoding -> RGB colours per class
    ignored_ids: dict[str, tuple[int, ...]]
    ignored_rgb: dict[str, tuple[tuple[int, int, int], ...]]
    subsets: dict[str, tuple[str, ...]]  # name of a score -> the classes that it averages over
    things: tuple[int, ...] = ()  # train ids of the countable classes (car, person); what is left is stuff

    @classmethod
    def from_dict(cls, content: Any, where: Path | str = "label space") -> "LabelSpace":
        """The label space of plain data, as `as_dict` gives it or a YAML file holds it; `where` is for messages.

        Classes without a colour get one (`class_colors`). Raises UsageError (UsageErrors for several) that names
        `where`, the key and what is wrong with it.
        """
        file = parse_space(content, where)
        colors = np.array(automatic_colors([entry.color for entry in file.classes]), np.uint8)
        colors.setflags(write=False)
        entries = file.classes
        id_names = dict.fromkeys([name for entry in entries for name in entry.ids] + list(file.ignored_ids))
        rgb_names = dict.fromkeys([name for entry in entries for name in entry.rgb] + list(file.ignored_rgb))
        return cls(
            name=file.name,
            description=file.description,
            classes=tuple(entry.name for entry in entries),
            colors=colors,
            aliases=tuple(tuple(entry.aliases) for entry in entries),
            ids={name: tuple(tuple(entry.ids.get(name, ())) for entry in entries) for name in id_names},
            rgb={name: tuple(tuple(entry.rgb.get(name, ())) for entry in entries) for name in rgb_names},
            ignored_ids={name: tuple(values) for name, values in file.ignored_ids.items()},
            ignored_rgb={name: tuple(values) for name, values in file.ignored_rgb.items()},
            subsets={name: tuple(members) for name, members in file.subsets.items()},
            things=tuple(k for k, entry in enumerate(entries) if entry.name in file.things),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data (lists, dicts, str, int) that `from_dict` takes back, in the form of the YAML files."""
        classes = [
            {
                "name": name,
                "color": self.colors[k].tolist(),
                "ids": {encoding: list(ids[k]) for encoding, ids in self.ids.items() if ids[k]},
                "rgb": {encoding: [list(c) for c in rgb[k]] for encoding, rgb in self.rgb.items() if rgb[k]},
                "aliases": list(self.aliases[k]),
            }
            for k, name in enumerate(self.classes)
        ]
        return {
            "name": self.name,
            "description": self.description,
            "classes": classes,
            "ignored_ids": {encoding: list(ids) for encoding, ids in self.ignored_ids.items()},
            "ignored_rgb": {encoding: [list(c) for c in rgb] for encoding, rgb in self.ignored_rgb.items()},
            "subsets": {name: list(members) for name, members in self.subsets.items()},
            "things": [self.classes[k] for k in self.things],
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal, without `things`: neither labels nor scores depend on them."""
        return digest({key: value for key, value in self.as_dict().items() if key != "things"})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSpace) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def own_encodings(self) -> tuple[str, ...]:
        """The encodings that its file has."""
        return (*self.ids, *self.rgb)

    @property
    def encodings(self) -> tuple[str, ...]:
        """The encodings that this space can read, `train` first, then its own."""
        return (TRAIN, *self.own_encodings, *(name for name in derived_encodings() if self.derived(name)))

    def derived(self, encoding: str) -> DerivedEncoding | None:
        """The encoding by way of one of its own that has this name; None for one of its own, or none."""
        found = None if encoding in self.own_encodings else derived_encodings().get(encoding)
        return found if found is not None and found.via in self.ids else None

    def need_encoding(self, encoding: str) -> str:
        """`encoding` if this space can read it; else a UsageError."""
        if encoding not in self.encodings:
            raise UsageError(
                f"label space '{self.name}' has no encoding '{encoding}'",
                where="encoding",
                remedy=f"{nearest(encoding, list(self.encodings))} A label-space file can add encodings.",
            )
        return encoding

    def is_rgb(self, encoding: str) -> bool:
        """Whether files of `encoding` hold colours instead of ids."""
        return self.need_encoding(encoding) in self.rgb

    def table(self, encoding: str) -> Labels:
        """uint8 (256,): raw id -> train id, `IGNORE` for ignored ids, `UNKNOWN` for ids the encoding does not know.

        Raises UsageError for an unknown encoding or one of colours (see `decode`).
        """
        if self.is_rgb(encoding):
            raise UsageError(
                f"encoding '{encoding}' holds colours, not ids", where="encoding", remedy="Use LabelSpace.decode."
            )
        if (derived := self.derived(encoding)) is not None:
            return derived.table(self.table(derived.via), IGNORE, UNKNOWN)
        table = np.full(256, UNKNOWN, np.uint8)
        if encoding == TRAIN:
            table[: len(self.classes)] = np.arange(len(self.classes))
            table[IGNORE] = IGNORE
            return table
        for train_id, ids in enumerate(self.ids[encoding]):
            table[list(ids)] = train_id
        table[[raw & 0xFF for raw in self.ignored_ids.get(encoding, ())]] = IGNORE
        return table

    def raw_ids(self, encoding: str) -> Labels:
        """uint8 (C,): train id -> the raw id to write, e.g. Cityscapes label ids for the benchmark server.

        Raises UsageError when a class has no id in this encoding.
        """
        if encoding == TRAIN:
            return np.arange(len(self.classes), dtype=np.uint8)
        per_class = self.ids.get(self.need_encoding(encoding), ((),) * len(self.classes))
        lacking = [name for name, ids in zip(self.classes, per_class, strict=True) if not ids]
        if lacking:
            raise UsageError(
                f"label space '{self.name}' has no '{encoding}' ids to write for {', '.join(lacking)}",
                where="encoding",
                remedy=f"Choose another of {', '.join((TRAIN, *self.own_encodings))}.",
            )
        return np.array([ids[0] for ids in per_class], np.uint8)

    def decode(self, raw: Labels, encoding: str) -> Labels:
        """Raw labels, ids (H, W) or for encodings of colours RGB (H, W, 3) -> train ids (H, W), as `table` has them."""
        if not self.is_rgb(encoding):
            return self.table(encoding)[raw]
        codes, values = self._color_codes(encoding)
        packed = (raw[..., 0].astype(np.uint32) << 16) | (raw[..., 1].astype(np.uint32) << 8) | raw[..., 2]
        place = np.minimum(np.searchsorted(codes, packed), len(codes) - 1)
        return np.where(codes[place] == packed, values[place], np.uint8(UNKNOWN))

    def _color_codes(self, encoding: str) -> tuple[NDArray[np.uint32], Labels]:
        """Sorted 24-bit codes of the encoding's colours, and the train id of each."""
        pairs = [(color, k) for k, colors in enumerate(self.rgb[encoding]) for color in colors]
        pairs += [(color, IGNORE) for color in self.ignored_rgb.get(encoding, ())]
        coded = sorted((r << 16 | g << 8 | b, train_id) for (r, g, b), train_id in pairs)
        return np.array([code for code, _ in coded], np.uint32), np.array([k for _, k in coded], np.uint8)

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """uint8 (256, 3), read-only: train id -> RGB; black for what is no class. `palette[labels]` is a picture."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = self.colors
        palette.setflags(write=False)
        return palette


def remap(source: LabelSpace, target: LabelSpace) -> Labels:
    """uint8 (256,): train id in `source` -> train id of the class of that name in `target`.

    Names and aliases count; a class without a partner, or with more than one, becomes `UNKNOWN` ("other": never right);
    `IGNORE` stays. So a 19-class model can be scored in 16 classes or in camvid11.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    table[IGNORE] = IGNORE
    wanted = [{name, *aliases} for name, aliases in zip(target.classes, target.aliases, strict=True)]
    for train_id, (name, aliases) in enumerate(zip(source.classes, source.aliases, strict=True)):
        partners = [k for k, names in enumerate(wanted) if names & {name, *aliases}]
        if len(partners) == 1:
            table[train_id] = partners[0]
    return table


def shipped_label_spaces() -> list[str]:
    """The names of the label spaces that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_label_space(name: str | Path, asked_by: str = "label_space") -> LabelSpace:
    """The shipped label space of that name, or the one of a YAML file.

    Raises UsageError: unknown name (with the key or option that gave it, `asked_by`), no such file, not YAML, or
    content that is wrong (with the key).
    """
    path = user_path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read(path)
    if str(name) not in shipped_label_spaces():
        hint = nearest(str(name), shipped_label_spaces())
        raise UsageError(
            f"unknown label space '{name}'", where=asked_by, remedy=f"{hint} Or give a .yaml file of your own."
        )
    return _shipped(str(name))


def _read(path: Path) -> LabelSpace:
    return LabelSpace.from_dict(read_yaml(path, "the label-space file"), path)


@cache
def _shipped(name: str) -> LabelSpace:
    """Read once: a run and its report ask for the space of every model that they load."""
    return _read(FOLDER / f"{name}.yaml")

"""A recipe for the user's two folders: their content, a label space for their labels, sizes, lengths, splits.

places = Place("/data/rendered", classes="road,car"), Place("/data/camera")
proposal = propose(*places, Path("mine.yaml"), Training())
proposal.write()                # mine.yaml, and the files that it refers to: mine_classes.yaml, image lists
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segadapt.config.load import load_recipe
from segadapt.data.catalog import LAYOUTS, Pair
from segadapt.data.orientation import Exif
from segadapt.data.reading import picture_sizes
from segadapt.data.settings import DomainSettings
from segadapt.data.tools.check import ASPECT_TOLERANCE
from segadapt.errors import UsageError
from segadapt.files import write_text
from segadapt.setup import spaces
from segadapt.setup.class_names import ClassesLike, parse
from segadapt.setup.folders import FOLDER, Found, also_fitting, look
from segadapt.setup.label_values import LabelValues, Value, read_values
from segadapt.setup.recipe_text import Training, recipe_text
from segadapt.setup.spaces import Chosen, Labelled

FILES = 200
"""Maximum number of label files read per side, unless all are requested."""
_SIZED = 50  # images whose size is read
_HELD_OUT, _MOST_HELD_OUT = 0.1, 100  # of a domain without splits, for val


@dataclass(frozen=True)
class Place:
    """Where a domain is, and what the user knows about it."""

    root: Path | str
    layout: str | None = None
    images: str | None = None
    labels: str | None = None
    classes: ClassesLike = None  # the meaning of its label values
    ignored: tuple[Value, ...] = ()  # values that are not classes
    option: str = "classes"  # the option that gave `classes`, for messages


@dataclass(frozen=True)
class Side:
    """An examined domain."""

    found: Found
    values: LabelValues | None  # None: no labels
    size: tuple[int, int]  # the most frequent size of its images, (width, height)
    settings: DomainSettings  # as in the recipe
    lists: Mapping[Path, Sequence[str]] = field(default_factory=dict)  # image lists to write: names of images


@dataclass(frozen=True)
class Proposal:
    """A recipe with the files that it refers to, not yet written, and notes on it."""

    file: Path
    text: str
    sides: Mapping[str, Side]
    chosen: Chosen
    training: Training
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[Path, str]:
        """The files to write: path -> text; the recipe last."""
        lists = {
            path: "".join(f"{n}\n" for n in names) for side in self.sides.values() for path, names in side.lists.items()
        }
        space = {} if self.chosen.content is None else {Path(self.chosen.name): self.chosen.content}
        return {**space, **lists, self.file: self.text}

    def write(self) -> list[Path]:
        """Write the files. Raises UsageError for missing splits, before anything is written."""
        for side in self.sides.values():
            for split in ("train", "val"):
                if side.settings.has_split(split) and side.settings.list_of(split) is None:
                    side.settings.pairs(split)
        for path, text in self.files.items():
            write_text(path, text)
        load_recipe(str(self.file), [])
        return list(self.files)


def propose(
    source: Place,
    target: Place,
    file: Path,
    training: Training,
    all_files: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposal:
    """Examine both folders and propose a recipe `file`. Nothing is written; `progress` is called for label files.

    Raises UsageError for unsuitable folders, labels and classes, SegadaptError for files that cannot be read.
    """
    places = {"source": source, "target": target}
    founds = {
        name: look(place.root, layout=place.layout, images=place.images, labels=place.labels)
        for name, place in places.items()
    }
    if not founds["source"].labelled:
        raise UsageError(
            "has no labels, and the source is what is learned from"
            + "".join(f" ({n})" for n in founds["source"].notes),
            where=founds["source"].domain.root,
            remedy="Give the folder that holds images and labels, or name the labels' sub-folder: --source-labels "
            "labels. They must be png, bmp or tif.",
        )
    if target.classes is not None and not founds["target"].labelled:
        raise UsageError(
            "the target has no labels", where=target.option, remedy="Leave it out, or see --target-labels."
        )
    most = 10**9 if all_files else FILES
    values = {name: _values(found, most, progress) for name, found in founds.items()}
    labelled = {name: _labelled(places[name], founds[name], own) for name, own in values.items() if own is not None}
    chosen = spaces.choose(
        labelled["source"], labelled.get("target"), file.with_name(f"{file.stem}_classes.yaml").absolute()
    )
    sides = {name: _side(name, found, values[name], chosen, file) for name, found in founds.items()}
    fitted = training.fitted(sides["source"].size)
    own = chosen.content is not None
    notes = [note for name in places for note in _notes(name, sides[name], values[name], fitted, own)]
    text = recipe_text(file.stem, {name: side.settings for name, side in sides.items()}, chosen.name, fitted)
    return Proposal(file.absolute(), text, sides, chosen, fitted, (*notes, *chosen.notes))


def _values(found: Found, most: int, progress: Callable[[int, int], None]) -> LabelValues | None:
    form = found.domain.resolved_layout().label_form
    return read_values(found.labelled, most, form, progress) if found.labelled else None


def _labelled(place: Place, found: Found, values: LabelValues) -> Labelled:
    given = parse(place.classes, place.option)
    return Labelled(values, LAYOUTS[found.domain.layout].encoding, given, place.ignored, place.option)


def _side(name: str, found: Found, values: LabelValues | None, chosen: Chosen, file: Path) -> Side:
    """The settings of a domain: its encoding, which images are val, and what its files require."""
    read = name in chosen.encodings
    exif: Exif = "turn" if values is None else values.exif
    layout = LAYOUTS[found.domain.layout]
    domain = found.domain if read or layout.name == FOLDER else _images_alone(found)
    changes: dict[str, object] = {"exif": exif}
    if not read:
        changes["labels"] = None
    elif values is not None:
        changes["encoding"] = None if layout.encoding == chosen.encodings[name] else chosen.encodings[name]
        changes["unknown_ids"] = "ignore" if values.noise else "error"
    more, lists = _splits(name, found, read, file)
    sizes = Counter(
        picture_sizes(pair.image).of(exif) for pair in _some([p for own in found.pairs.values() for p in own])
    )
    return Side(found, values, sizes.most_common(1)[0][0], domain.model_copy(update=changes | more), lists)


def _images_alone(found: Found) -> DomainSettings:
    """A known layout's images, as a folder without labels."""
    layout = LAYOUTS[found.domain.layout]
    folders = layout.split_folders or layout.splits
    splits = {split: folder for split, folder in zip(layout.splits, folders, strict=True) if split in found.pairs}
    return DomainSettings(layout=FOLDER, root=found.domain.root, images=layout.images, splits=splits or None)


def _some(pairs: Sequence[Pair]) -> Sequence[Pair]:
    return pairs if len(pairs) <= _SIZED else [pairs[k * len(pairs) // _SIZED] for k in range(_SIZED)]


def _splits(name: str, found: Found, read: bool, file: Path) -> tuple[dict[str, object], dict[Path, list[str]]]:
    """How a domain gets train and val: its own splits, a holdout, or image lists if only some images have labels."""
    train = list(found.pairs.get("train", ()))
    own_val = found.pairs.get("val", ())
    lists: dict[str, list[Pair]] = {}
    labelled = [pair for pair in train if pair.label is not None and read]
    if name == "source" and len(labelled) < len(train):
        lists["train"] = labelled
    if found.domain.resolved_layout().splits:
        with_labels = [pair for pair in own_val if pair.label is not None]
        if read and 0 < len(with_labels) < len(own_val):
            lists["val"] = with_labels
        return _listed(name, lists, file)
    if name == "target" and 0 < len(labelled) < len(train):  # a few labelled images are for scoring
        lists = {"train": [pair for pair in train if pair not in labelled], "val": labelled}
        return _listed(name, lists, file)
    there = lists.get("train", train)
    held_out = min(max(1, round(_HELD_OUT * len(there))), _MOST_HELD_OUT) if len(there) > 1 else 0
    if "train" in lists:
        cut = len(there) - held_out
        lists = {"train": there[:cut], **({"val": there[cut:]} if held_out else {})}
        return _listed(name, lists, file)
    return {"holdout": held_out}, {}


def _listed(
    name: str, lists: Mapping[str, Sequence[Pair]], file: Path
) -> tuple[dict[str, object], dict[Path, list[str]]]:
    paths = {split: file.with_name(f"{file.stem}_{name}_{split}.txt").absolute() for split in lists}
    return {f"{split}_list": path for split, path in paths.items()}, {
        path: [pair.name for pair in lists[split]] for split, path in paths.items()
    }


def _notes(name: str, side: Side, values: LabelValues | None, training: Training, own: bool) -> list[str]:
    """Notes on a domain; `own`: its label space is made from its labels."""
    notes = [f"{name}: {note}" for note in side.found.notes]
    others = also_fitting(side.found.domain) if side.found.domain.layout == FOLDER else []
    if others:
        notes.append(
            f"{name}: layouts {', '.join(others)} have the same folders; --{name}-layout says if it is one of them"
        )
    if values is not None:
        if not values.all_files and own:
            notes.append(
                f"{name}: {values.looked_at} of {values.of} labels were read; a value that only others hold "
                "would stop a training: --all-labels reads all"
            )
        if values.noise:
            notes.append(
                f"{name}: {values.noise} further values with hardly any pixels, as resizing or JPEG leaves them, are "
                "ignored (unknown_ids: ignore)"
            )
        if values.exif == "raw":
            notes.append(
                f"{name}: labels have the size of images as they are stored, not as EXIF turns them (exif: raw)"
            )
        if values.other_size:
            notes.append(
                f"{name}: {values.other_size} of {values.looked_at} labels differ in size from their "
                "images, which stops a training; fix them, or set size_mismatch: stretch"
            )
    width, height = side.size
    stretch = training.size[0] / training.size[1] / (width / height)
    if not 1 / ASPECT_TOLERANCE <= stretch <= ASPECT_TOLERANCE:
        notes.append(
            f"{name}: images of {width}×{height} are stretched to {training.size[0]}×{training.size[1]}; "
            "keep_aspect with a crop (docs/data-sets.md) would not do so"
        )
    return notes

"""The content of a user's folder, in terms of a recipe: its layout, its sub-folders of images and labels, its splits.

found = look(Path("/data/rendered"))
found.domain                    # layout folder, images: "{split}/rgb", labels: "{split}/ids", splits: …
found.pairs["train"]            # the images with their labels
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from segadapt.data.archive import archives_in, homes, need_root
from segadapt.data.catalog import IMAGE_SUFFIXES, LABEL_SUFFIXES, LAYOUTS, Pair
from segadapt.data.packed import unpack_first
from segadapt.data.settings import SPLIT, DomainSettings
from segadapt.data.walking import files_below, natural
from segadapt.errors import UsageError
from segadapt.files import user_path
from segadapt.setup.label_values import looks_like_labels
from segadapt.setup.names import Ends, common_ends, matches, stems_of

FOLDER = "folder"
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Folder name -> the split that it stands for."""
LABEL_WORDS = {
    "label",
    "labels",
    "mask",
    "masks",
    "annot",
    "annotation",
    "annotations",
    "truth",
    "seg",
    "segmentation",
    "gt",
}
"""Words in the names of label folders; one that holds only JPEGs is reported."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_LAST_WORD = re.compile(r"[_. -][A-Za-z][A-Za-z0-9]*$")
_MOST_KINDS = 12  # of names in a folder
_LOOKED_INTO = 3  # files of a folder that are opened to check whether they are labels
_LEAVES = 60  # folders of images, and of labels, that are compared
_NAMED = 3  # folders in a message
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A domain on disk."""

    domain: DomainSettings
    pairs: Mapping[str, Sequence[Pair]]  # of each split; "train" if there are no splits
    notes: tuple[str, ...] = ()  # for the user

    @property
    def labelled(self) -> list[Pair]:
        """All pairs with a label, of all splits."""
        return [pair for pairs in self.pairs.values() for pair in pairs if pair.label is not None]


@dataclass(frozen=True)
class _Leaf:
    """The files directly in one folder that are images, or that are labels."""

    parts: Parts  # of the folder, below the root
    stems: frozenset[str]
    places: frozenset[Path]  # the folder itself; several where zip files share it


def look(root: Path | str, *, layout: str | None = None, images: str | None = None, labels: str | None = None) -> Found:
    """What the folder `root` holds; with a given `layout`, or given sub-folders of `images` and `labels`.

    It may be a zip file, a folder in one, or a folder of zip files; a single one in it stands for it.

    Raises UsageError for a folder without images, or without the given layout.
    """
    folder = user_path(root).absolute()
    need_root(folder)
    folder = folder.resolve() if ".." in folder.parts else folder  # links stay
    if images is None and labels is None and layout != FOLDER:
        known = _settings(layout=layout, root=folder) if layout is not None else _known(folder)
        if known is not None:
            return _found(known, ())
    elif layout not in (None, FOLDER):
        raise UsageError("has sub-folders of its own", where=f"layout {layout}", remedy="Name either one.")
    if images is not None or labels is not None:
        place = _named(folder, images or ".", labels)
        return _found(_settings(layout=FOLDER, root=folder, **place), ())
    packed = archives_in(folder) if next(files_below(folder, IMAGE_SUFFIXES), None) is None else []
    if len(packed) == 1:
        return look(packed[0], layout=layout)
    of_images, of_labels, notes = _leaves(packed or [folder])
    if not of_images:
        remedy = unpack_first(folder) or "Name the folder of a data set, or of its images."
        raise UsageError("holds no images", where=folder, remedy=remedy)
    _need_folders(packed, [*of_images, *of_labels])
    found = _found(_settings(layout=FOLDER, root=folder, **_together(of_images, of_labels)), notes)
    used = {pair.image.parent for pairs in found.pairs.values() for pair in pairs}
    unused = [leaf for leaf in of_images if not leaf.places & used]
    if not unused:
        return found
    names = ", ".join("/".join(leaf.parts) or "." for leaf in unused[:_NAMED]) + (", …" if len(unused) > _NAMED else "")
    note = f"{sum(len(leaf.stems) for leaf in unused)} images are not used, in {names}"
    return replace(found, notes=(*notes, note))


def _settings(**given: object) -> DomainSettings:
    from pydantic import ValidationError

    try:
        return DomainSettings.model_validate({key: value for key, value in given.items() if value not in (None, "")})
    except ValidationError as failure:
        message = failure.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(message, where=str(given["root"]), remedy="See docs/data-sets.md.") from None


def _found(domain: DomainSettings, notes: tuple[str, ...]) -> Found:
    layout = domain.resolved_layout()
    splits = [split for split in layout.splits if layout.has(domain.root, split)] or ["train"]
    return Found(domain, {split: domain.pairs(split) for split in splits}, notes)


def _known(root: Path) -> DomainSettings | None:
    """A layout that uniquely matches the images and labels there, with a split val if it has splits."""
    for layout in LAYOUTS.values():
        whole = layout.has(root, "val") if layout.splits else layout.fits(root)
        if layout.images not in (".", "images") and whole and layout.has_labels(root):
            return DomainSettings(layout=layout.name, root=root)
    return None


def also_fitting(domain: DomainSettings) -> list[str]:
    """The layouts with the same two sub-folders as these settings, which only the user can tell apart."""
    return [
        layout.name
        for layout in LAYOUTS.values()
        if (layout.images, layout.labels) == (domain.images, domain.labels) and domain.labels and not layout.splits
    ]


def _named(root: Path, images: str, labels: str | None) -> dict[str, object]:
    """The place of images and labels in given sub-folders, with the endings of their names."""
    place: dict[str, object] = {"images": images, "labels": labels}
    if labels is not None:
        of_images, of_labels = (
            stems_of(name for home in _homes(root, folder, what) for name in files_below(home / folder, suffixes))
            for what, folder, suffixes in (("images", images, IMAGE_SUFFIXES), ("labels", labels, LABEL_SUFFIXES))
        )
        place |= _as_settings(common_ends(of_images, of_labels) or ("", ""))
    return place


def _homes(root: Path, folder: str, what: str) -> list[Path]:
    """Where a named sub-folder is: the root, or zip files in it. Raises UsageError when there is none."""
    found = homes(root, folder)
    if not found:
        raise UsageError(f"the folder of the {what} does not exist", where=root / folder, remedy="Check the path.")
    return found


def _need_folders(packed: Sequence[Path], leaves: Sequence[_Leaf]) -> None:
    """Raise UsageError for several zip files of which one holds files that are in no folder: no path means them."""
    bare = next((place for leaf in leaves if not leaf.parts for place in leaf.places), None) if packed else None
    if bare is not None:
        raise UsageError(
            "holds files at its top, which cannot be told from those of the other zip files beside it",
            where=bare,
            remedy="Unpack each into a folder of its own, or name the zip file if it has everything.",
        )


def _as_settings(ends: Ends) -> dict[str, object]:
    return {"image_ending": ends[0], "label_ending": ends[1]}


def _leaves(roots: Sequence[Path]) -> tuple[list[_Leaf], list[_Leaf], tuple[str, ...]]:
    """The folders below all of `roots` with images, those with labels, and what is to be said of others."""
    files: dict[Parts, dict[str, Path]] = defaultdict(dict)
    for root in roots:
        for name in files_below(root, IMAGE_SUFFIXES):
            path = PurePosixPath(name)
            files[path.parent.parts].setdefault(path.name, root / name)
    images, labels, lossy = list[_Leaf](), list[_Leaf](), list[_Leaf]()
    for parts in sorted(files, key=lambda parts: natural("/".join(parts))):
        places = frozenset(path.parent for path in files[parts].values())
        of_labels = _label_names({name: files[parts][name] for name in sorted(files[parts], key=natural)})
        of_images = [name for name in files[parts] if name not in of_labels]
        if of_labels:
            labels.append(_Leaf(parts, stems_of(of_labels), places))
        if of_images:
            exact = any(Path(name).suffix.lower() in LABEL_SUFFIXES for name in of_images)
            said = any(word.lower() in LABEL_WORDS for part in parts for word in _WORD.findall(part))
            (lossy if said and not exact else images).append(_Leaf(parts, stems_of(of_images), places))
    if not images:  # whatever their names
        return lossy, labels, ()
    notes = [
        f"{'/'.join(leaf.parts)} holds JPEG files, whose ids and colours are not exact: labels must be png, bmp or tif"
        for leaf in lossy
    ]
    return images, labels, tuple(notes)


def _label_names(names: Mapping[str, Path]) -> set[str]:
    """Which files of a folder, name -> path, are labels: those of a kind, by suffix and by the last word of the name,
    of which some are."""
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        stem, _, suffix = name.rpartition(".")
        word = _LAST_WORD.search(stem)
        kinds[suffix.lower(), word[0] if word else ""].append(name)
    if len(kinds) > _MOST_KINDS:  # names are words
        kinds = defaultdict(list)
        for name in names:
            kinds[name.rpartition(".")[2].lower(), ""].append(name)
    found: set[str] = set()
    for of_kind in kinds.values():
        some = of_kind[:: max(1, len(of_kind) // _LOOKED_INTO)][:_LOOKED_INTO]
        if sum(looks_like_labels(names[name]) for name in some) > len(some) / 2:
            found.update(of_kind)
    return found


def _together(images: list[_Leaf], labels: list[_Leaf]) -> dict[str, object]:
    """The place of images and labels that belong together, as settings of layout folder."""
    votes: Counter[tuple[Parts, Parts, Ends]] = Counter()
    for one in images[:_LEAVES]:
        for other in labels[:_LEAVES]:
            tops = _tops(one.parts, other.parts)
            near = min(len(top) for top in tops) - len(_common(tops)) <= 1  # not rgb/drive_1 and ids/drive_2
            ends = common_ends(one.stems, other.stems) if near else None
            if ends is not None:
                votes[(*tops, ends)] += matches(one.stems, other.stems, ends)
    if not votes:
        return _place([leaf.parts for leaf in images], None, ("", ""))
    totals: Counter[tuple[Parts, Parts, Ends]] = Counter()
    parts: Counter[tuple[str, str, Ends]] = Counter()
    for (of_images, of_labels, ends), count in votes.items():  # train/rgb and val/rgb are one place
        totals[_general(of_images), _general(of_labels), ends] += count
        if of_images[:-1] == of_labels[:-1] and of_images:
            parts[of_images[-1], of_labels[-1], ends] += count
    (best, truth, ends), count = totals.most_common(1)[0]
    if parts and parts.most_common(1)[0][1] > count:  # drive_1/rgb and drive_1/ids, drive_2/rgb and drive_2/ids
        (image, label, ends), _ = parts.most_common(1)[0]
        above = [leaf.parts[: leaf.parts.index(image)] for leaf in images if image in leaf.parts]
        here = _common([_general(parts) for parts in above])
        return _place(above, (here, here), ends) | {"image_part": image, "label_part": label}
    return _place([leaf.parts for leaf in images if _below(leaf.parts, best)], (best, truth), ends)


def _tops(images: Parts, labels: Parts) -> tuple[Parts, Parts]:
    """The two folders without their common sub-folders: a/rgb/b and a/ids/b -> a/rgb and a/ids."""
    shared = 0
    while shared < min(len(images), len(labels)) and images[-1 - shared] == labels[-1 - shared]:
        shared += 1
    return images[: len(images) - shared], labels[: len(labels) - shared]


def _general(parts: Parts) -> Parts:
    """With `{split}` for the name of a split."""
    return tuple(SPLIT if part.lower() in SPLIT_WORDS else part for part in parts)


def _below(parts: Parts, top: Parts) -> bool:
    return _general(parts[: len(top)]) == top


def _place(images: list[Parts], tops: tuple[Parts, Parts] | None, ends: Ends) -> dict[str, object]:
    """Settings of layout folder from the folders with images and, if there are labels, where both begin."""
    here, truth = tops if tops is not None else (_common([_general(parts) for parts in images]), None)
    if SPLIT not in here and all(_general(parts)[len(here) : len(here) + 1] == (SPLIT,) for parts in images):
        here, truth = (*here, SPLIT), None if truth is None else (*truth, SPLIT)  # images/train, labels/train
    folders = {parts[here.index(SPLIT)] for parts in images} if SPLIT in here else set[str]()
    splits = {SPLIT_WORDS[folder.lower()]: folder for folder in sorted(folders)}
    if "train" not in splits or len(splits) < len(folders):  # folder names, but no splits
        splits = {}
        here, truth = _before_split(here), None if truth is None else _before_split(truth)
    elif "val" not in splits:  # some of train will be held out
        only, splits = splits["train"], {}
        here, truth = _in_split(here, only), None if truth is None else _in_split(truth, only)
    return {
        "images": "/".join(here) or None,
        "labels": None if truth is None else "/".join(truth) or ".",
        "splits": {split: splits[split] for split in ("train", "val", "test") if split in splits} or None,
        **_as_settings(ends),
    }


def _in_split(parts: Parts, folder: str) -> Parts:
    return tuple(folder if part == SPLIT else part for part in parts)


def _before_split(parts: Parts) -> Parts:
    return parts[: parts.index(SPLIT)] if SPLIT in parts else parts


def _common(folders: Iterable[Parts]) -> Parts:
    """The folder that contains all of these."""
    first, *others = folders
    length = 0
    while length < len(first) and all(other[: length + 1] == first[: length + 1] for other in others):
        length += 1
    return first[:length]

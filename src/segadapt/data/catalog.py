"""Where each data set keeps its images and labels: `LAYOUTS[name].index(root, split)` gives the pairs.

A layout is plain data (`Layout`); one function indexes them all. To bring a layout of one's own, `register_layout` it.
Names of images are their paths below the layout's image folder, as published image lists have them.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from segadapt.errors import UsageError, nearest
from segadapt.files import need_file, need_folder

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})  # lossless ones only

LabelForm = Literal["ids", "first_channel", "first_of_16_bit"]
"""Where a label file holds its class ids: in its only channel, in the first of several, in the first of 16-bit RGB."""


@dataclass(frozen=True)
class Pair:
    """An image and its label file; `label` is None when there is none or it is not to be read."""

    name: str  # path below the image folder, with slashes: the line of an image list
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Layout:
    """Folders and names of a data set. `{split}` in `images` and `labels` stands for the split's name."""

    name: str
    summary: str
    images: str  # folder of images below the root, searched through and through
    labels: str | None  # folder of labels below the root
    encoding: str | None  # the label space's encoding of these labels; None: the space's only one
    splits: tuple[str, ...] = ()  # () if the data set comes without splits
    image_ending: str = ""  # end of an image's name before the suffix, which a label's name has as `label_ending`
    label_ending: str = ""
    label_form: LabelForm = "ids"
    left_out: tuple[str, ...] = ()  # images known to be broken, used only when an image list names them

    def index(self, root: Path, split: str = "train") -> list[Pair]:
        """All pairs of a split (of the whole data set for layouts without splits), naturally sorted by name.

        A pair without a label file has `label` None. Raises UsageError for a root that does not have this layout.
        """
        need_folder(root, "the data folder")
        folder = self.image_folder(root, split)
        if not folder.is_dir():
            raise UsageError(
                f"layout '{self.name}' expects a folder {folder.relative_to(root)} in it",
                where=root,
                remedy=self._guess(root),
            )
        labels, by_stem = self.label_folder(root, split), self.label_files(root, split)
        names = sorted(files_below(folder, IMAGE_SUFFIXES, without=labels), key=natural)
        if not names:
            raise UsageError("holds no images", where=folder, remedy="Check the path and the layout.")
        found = [(name, by_stem.get(self.label_stem(name))) for name in names]
        return [Pair(name, folder / name, files[0] if files else None) for name, files in found]

    def label_folder(self, root: Path, split: str) -> Path | None:
        """The folder of a split's labels; None for a layout without labels."""
        return None if self.labels is None else root / self.labels.format(split=split)

    def label_files(self, root: Path, split: str) -> dict[str, list[Path]]:
        """`label_stem` -> the files of that name in the label folder, in order: one, if all is well."""
        folder, found = self.label_folder(root, split), dict[str, list[Path]]()
        if folder is not None and folder.is_dir():
            for name in sorted(files_below(folder, LABEL_SUFFIXES)):
                stem = name.rpartition(".")[0]
                if stem.endswith(self.label_ending):
                    found.setdefault(stem, []).append(folder / name)
        return found

    def image_folder(self, root: Path, split: str) -> Path:
        """The folder that image names are relative to."""
        if self.splits and split not in self.splits:
            raise UsageError(
                f"layout '{self.name}' has no split '{split}'", where=root, remedy=nearest(split, list(self.splits))
            )
        return root / self.images.format(split=split)

    def label_stem(self, name: str) -> str:
        """Path of an image's label below the label folder, without suffix."""
        stem = str(PurePosixPath(name).with_suffix(""))
        return stem.removesuffix(self.image_ending) + self.label_ending

    def fits(self, root: Path) -> bool:
        """Whether `root` has this layout's folder of images, for at least one split."""
        return any((root / self.images.format(split=split)).is_dir() for split in self.splits or ("",))

    def _guess(self, root: Path) -> str:
        """What the user probably meant, for the end of an error."""
        if self.fits(root):
            there = [split for split in self.splits if (root / self.images.format(split=split)).is_dir()]
            return f"Splits that are there: {', '.join(there)}."
        around = [root.parent, root.parent.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
        for folder in around:
            if self.fits(folder):
                return f"Did you mean {folder}?"
        others = [other.name for other in LAYOUTS.values() if other.images != "." and other.fits(root)]
        if others:
            return f"It looks like layout {' or '.join(others)}."
        return "Check the path and the layout (docs/data-sets.md shows each layout as a tree)."


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "gta5",
            "GTA5 (Playing for Data): images/, labels/ with Cityscapes label ids",
            images="images",
            labels="labels",
            encoding="cityscapes",
            left_out=("15188.png", "17705.png"),  # image and label differ in size
        ),
        Layout(
            "synthia",
            "SYNTHIA-RAND-CITYSCAPES with 8-bit class ids: images/, labels/",
            images="images",
            labels="labels",
            encoding="synthia",
        ),
        Layout(
            "synthia_original",
            "SYNTHIA-RAND-CITYSCAPES as published: RGB/, GT/LABELS/ (16 bit)",
            images="RGB",
            labels="GT/LABELS",
            encoding="synthia",
            label_form="first_of_16_bit",
        ),
        Layout(
            "cityscapes",
            "Cityscapes: leftImg8bit/SPLIT/CITY/, gtFine/SPLIT/CITY/*_labelIds.png",
            images="leftImg8bit/{split}",
            labels="gtFine/{split}",
            encoding="cityscapes",
            splits=("train", "val", "test"),
            image_ending="_leftImg8bit",
            label_ending="_gtFine_labelIds",
        ),
        Layout(
            "camvid",
            "CamVid as SegNet has it: SPLIT/, SPLITannot/",
            images="{split}",
            labels="{split}annot",
            encoding="camvid",
            splits=("train", "val", "test"),
        ),
        Layout(
            "carla",
            "CARLA: CameraRGB/, CameraSeg/ (ids in the only or the first channel)",
            images="CameraRGB",
            labels="CameraSeg",
            encoding="carla",
            label_form="first_channel",
        ),
        Layout("folder", "any folder of images, with or without labels", images=".", labels=None, encoding=None),
    )
}


def register_layout(layout: Layout) -> None:
    """Make a layout of one's own known to recipes and commands. Raises ValueError for another one's name."""
    if not isinstance(layout, Layout):
        raise ValueError(f"{layout!r} is no segadapt.plugin.Layout")
    if LAYOUTS.get(layout.name, layout) != layout:
        raise ValueError(f"a layout named '{layout.name}' exists already")
    LAYOUTS[layout.name] = layout


def select(
    layout: Layout,
    root: Path,
    split: str,
    lists: dict[str, Path],
    holdout: int = 0,
) -> list[Pair]:
    """The pairs of a split, where image lists (split -> file) and a held-out end have their say.

    A list names the images of its split and their order. For layouts without splits, `holdout` makes the last so many
    names (of the train list, where there is one) the split "val". Raises UsageError for a split that does not exist,
    a list that names a missing file, and a holdout that leaves nothing.
    """
    if layout.splits:
        pairs = layout.index(root, split)
        return _listed(pairs, lists[split], layout.image_folder(root, split)) if split in lists else pairs
    if split not in ("train", "val"):
        raise UsageError(f"layout '{layout.name}' has no split '{split}'", where=root, remedy="Known: train, val.")
    pairs = layout.index(root)
    folder = layout.image_folder(root, split)
    if split == "val" and "val" in lists:
        return _listed(pairs, lists["val"], folder)
    if "train" in lists:
        pairs = _listed(pairs, lists["train"], folder)
    else:
        pairs = [pair for pair in pairs if pair.name not in layout.left_out]
    if split == "val" and not holdout:
        raise UsageError(
            f"layout '{layout.name}' comes without a split 'val'",
            where=root,
            remedy="Set holdout (the last so many images become val) or val_list.",
        )
    if holdout >= len(pairs):
        raise UsageError(
            f"holdout {holdout} leaves none of the {len(pairs)} images to train on",
            where=root,
            remedy="Hold out fewer.",
        )
    cut = len(pairs) - holdout
    return pairs[cut:] if split == "val" else pairs[:cut]


def read_list(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and name of each line of an image list; empty lines and lines that start with # are skipped."""
    try:
        text = need_file(path, "the image list").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise UsageError("is not a text file", where=path, remedy="Give one image name per line.") from failure
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip().replace("\\", "/").removeprefix("./")
        if name and not name.startswith("#"):
            yield number, name


def without_suffix(name: str) -> str:
    """A picture's name as `catalog` has it, without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _listed(pairs: Iterable[Pair], path: Path, folder: Path) -> list[Pair]:
    by_name = {pair.name: pair for pair in pairs}
    # Lists as PASCAL VOC's leave the suffix out; two images that differ in it alone need it.
    stems = Counter(without_suffix(name) for name in by_name)
    by_stem = {without_suffix(name): name for name in by_name if stems[without_suffix(name)] == 1}
    chosen = []
    for number, line in read_list(path):
        name = line if line in by_name else by_stem.get(line, line)
        if name not in by_name:
            raise UsageError(
                f"names {name}, but there is no image {folder / name}",
                where=f"{path}:{number}",
                remedy="Correct the list (paths are relative to the image folder) or add the file.",
            )
        chosen.append(by_name[name])
    if not chosen:
        raise UsageError("the image list is empty", where=path, remedy="Give one image name per line.")
    return chosen


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorting key that puts 2.png before 10.png."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


_Identity = tuple[int, int]
"""Device and inode of a folder: the same for all links to it."""
MOST_WAYS = 100
"""How often one folder may be found through links: links from folders to one another have no end."""


def _identity(folder: str) -> _Identity | None:
    """Which folder it is; None where it is gone."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - `os.walk` gives text
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _around(folder: str) -> frozenset[_Identity]:
    """The folders that one lies in: by its path, and where a link leads somewhere else, by its place there."""
    path = Path(folder).absolute()
    by_path = () if ".." in path.parts else path.parents  # before a .. is what the folder does not lie in
    return frozenset(found for place in {*by_path, *path.resolve().parents} if (found := _identity(str(place))))


def files_below(folder: Path, suffixes: frozenset[str], without: Path | None = None) -> Iterator[str]:
    """Paths below `folder`, with slashes, of files with one of the suffixes; hidden ones and `without` are skipped.

    Links to folders are followed, since data sets are often put together from them, but not into a folder that they
    lie in, above `folder` too. Raises UsageError when they lead to one folder in more than `MOST_WAYS` ways.
    """
    above = {str(folder): _around(str(folder))}
    ways = Counter[_Identity]()
    for place, folders, files in os.walk(folder, followlinks=True):
        around, found = above.pop(place), _identity(place)
        if Path(place).is_symlink():
            around |= _around(place)
        if found is None or found in around:
            folders.clear()
            continue
        ways[found] += 1
        if ways[found] > MOST_WAYS:
            raise UsageError(f"links lead there in more than {MOST_WAYS} ways", where=place, remedy="Remove the links.")
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and here / name != without]
        above |= dict.fromkeys((os.path.join(place, name) for name in folders), around | {found})  # noqa: PTH118
        prefix = "" if here == folder else here.relative_to(folder).as_posix() + "/"
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield prefix + name

"""Where each data set keeps its images and labels: `LAYOUTS[name].index(root, split)` gives the pairs.

A layout is plain data (`Layout`); one function indexes them all. To bring a layout of one's own, `register_layout` it.
Names of images are their paths below the layout's image folder, as published image lists have them.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from segadapt.data.image_lists import without_suffix
from segadapt.data.walking import files_below, natural
from segadapt.errors import UsageError, nearest
from segadapt.files import need_folder

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
    original: Path | None = None  # the data set's own image, where another one (a stylized copy) is read in its place


@dataclass(frozen=True)
class Layout:
    """Folders and names of a data set; `{split}` in them is the split's folder: its name, if not said otherwise.

    A label has its image's path with other ends: `image_beginning` NAME `image_ending` becomes `label_beginning` NAME
    `label_ending`.
    """

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
    image_beginning: str = ""
    label_beginning: str = ""
    image_part: str = ""  # a folder in the path of an image, below `images`, for which its label's has `label_part`
    label_part: str = ""
    split_folders: tuple[str, ...] = ()  # what `{split}` stands for, for each of `splits`; (): their names
    within: str = ""  # folders below `images` and `labels`, one after another: only files in them belong to the split
    unlabelled: tuple[str, ...] = ()  # splits that are published without labels

    def index(self, root: Path, split: str = "train") -> list[Pair]:
        """All pairs of a split (of the whole data set for layouts without splits), naturally sorted by name.

        A pair without a label file has `label` None. Raises UsageError for a root that does not have this layout.
        """
        if root.suffix.lower() == ".zip" and root.is_file():
            raise UsageError("is an archive, but images are read from folders", where=root, remedy=_unpack([root]))
        need_folder(root, "the data folder")
        folder = self.image_folder(root, split)
        if not folder.is_dir():
            raise UsageError(
                f"layout '{self.name}' expects a folder {folder.relative_to(root)} in it",
                where=root,
                remedy=self._guess(root),
            )
        labels, by_stem = self.label_folder(root, split), self.label_files(root, split)
        found = self._names(folder, split, IMAGE_SUFFIXES, labels)
        names = sorted((name for name in found if self._may_be_image(name, folder == labels)), key=natural)
        if not names:
            inside = f" in {self._within(split)}" if self.within else ""
            raise UsageError(f"holds no images{inside}", where=folder, remedy="Check the path and the layout.")
        labelled = {name: by_stem.get(self.label_stem(name), [None])[0] for name in names}
        # Where images and labels share a folder, the label of another image is no image.
        taken = {label for name, label in labelled.items() if label != folder / name}
        return [Pair(name, folder / name, label) for name, label in labelled.items() if folder / name not in taken]

    def label_folder(self, root: Path, split: str) -> Path | None:
        """The folder of a split's labels; None for a layout without labels."""
        return None if self.labels is None else root / self.labels.format(split=self._part(split))

    def label_files(self, root: Path, split: str) -> dict[str, list[Path]]:
        """`label_stem` -> the files of that name in the label folder, in order: one, if all is well."""
        folder, found = self.label_folder(root, split), dict[str, list[Path]]()
        if folder is not None and folder.is_dir():
            for name in sorted(self._names(folder, split, LABEL_SUFFIXES)):
                stem = name.rpartition(".")[0]
                in_part = not self.label_part or self.label_part in stem.split("/")[:-1]
                if in_part and stem.endswith(self.label_ending):
                    found.setdefault(stem, []).append(folder / name)
        return found

    def image_folder(self, root: Path, split: str) -> Path:
        """The folder that image names are relative to."""
        if self.splits and split not in self.splits:
            raise UsageError(
                f"layout '{self.name}' has no split '{split}'", where=root, remedy=nearest(split, list(self.splits))
            )
        return root / self.images.format(split=self._part(split))

    def _part(self, split: str) -> str:
        """What `{split}` stands for."""
        return self.split_folders[self.splits.index(split)] if self.split_folders and split in self.splits else split

    def _within(self, split: str) -> str:
        return self.within.format(split=self._part(split))

    def _names(self, folder: Path, split: str, suffixes: frozenset[str], without: Path | None = None) -> Iterator[str]:
        """The files below a folder that belong to a split."""
        found = files_below(folder, suffixes, without)
        return found if not self.within else (name for name in found if fnmatchcase(name, f"{self._within(split)}/*"))

    def _may_be_image(self, name: str, shared: bool) -> bool:
        """Whether a file can be an image by its name; `shared`: labels lie in the same folder."""
        folder, _, stem = without_suffix(name).rpartition("/")
        in_part = not self.image_part or self.image_part in folder.split("/")
        return in_part and (not shared or stem.endswith(self.image_ending))

    def label_stem(self, name: str) -> str:
        """Path of an image's label below the label folder, without suffix."""
        folder, slash, stem = without_suffix(name).rpartition("/")
        if self.image_part:
            folder = "/".join(self.label_part if part == self.image_part else part for part in folder.split("/"))
        stem = stem.removeprefix(self.image_beginning).removesuffix(self.image_ending)
        return folder + slash + self.label_beginning + stem + self.label_ending

    def fits(self, root: Path) -> bool:
        """Whether `root` has this layout's folder of images, for at least one split."""
        return any(self.has(root, split) for split in self.splits or ("",))

    def has(self, root: Path, split: str) -> bool:
        """Whether `root` has a folder with the images of a split."""
        folder = root / self.images.format(split=self._part(split))
        return folder.is_dir() and (not self.within or any(path.is_dir() for path in folder.glob(self._within(split))))

    def has_labels(self, root: Path) -> bool:
        """Whether some split has a label that is called as this layout has it."""
        return any(self.label_files(root, split) for split in self.splits or ("",))

    def _guess(self, root: Path) -> str:
        """What the user probably meant, for the end of an error."""
        if self.fits(root):
            return f"Splits that are there: {', '.join(split for split in self.splits if self.has(root, split))}."
        around = [root.parent, root.parent.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
        for folder in around:
            if self.fits(folder):
                return f"Did you mean {folder}?"
        if packed := sorted(root.glob("*.zip")):
            return _unpack(packed)
        others = [other for other in LAYOUTS.values() if other.images != "." and other.fits(root)]
        if others:
            labelled = [other for other in others if other.has_labels(root)] if len(others) > 1 else []
            return f"It looks like layout {' or '.join(other.name for other in labelled or others)}."
        return "Check the path and the layout (docs/data-sets.md shows each layout as a tree)."


def _unpack(files: list[Path]) -> str:
    """How to unpack zip files where they lie, as a command."""
    return "Unpack first: " + " && ".join(
        f"unzip -q {shlex.quote(str(f))} -d {shlex.quote(str(f.parent))}" for f in files
    )


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
        Layout(
            "acdc",
            "ACDC, all four conditions: rgb_anon/CONDITION/SPLIT/, gt/CONDITION/SPLIT/*_gt_labelTrainIds.png",
            images="rgb_anon",
            labels="gt",
            encoding="cityscapes_train",
            splits=("train", "val", "test"),
            within="*/{split}",
            unlabelled=("test",),
            image_ending="_rgb_anon",
            label_ending="_gt_labelTrainIds",
        ),
        *(
            Layout(
                f"acdc_{condition}",
                f"ACDC, {condition} alone",
                images=f"rgb_anon/{condition}/{{split}}",
                labels=f"gt/{condition}/{{split}}",
                encoding="cityscapes_train",
                splits=("train", "val", "test"),
                unlabelled=("test",),
                image_ending="_rgb_anon",
                label_ending="_gt_labelTrainIds",
            )
            for condition in ("fog", "night", "rain", "snow")
        ),
        Layout(
            "dark_zurich",
            "Dark Zurich at night: rgb_anon/SPLIT/night/, gt/val/night/*_gt_labelTrainIds.png",
            images="rgb_anon/{split}/night",
            labels="gt/{split}/night",
            encoding="cityscapes_train",
            splits=("train", "val", "test"),
            unlabelled=("train", "test"),
            image_ending="_rgb_anon",
            label_ending="_gt_labelTrainIds",
        ),
        Layout(
            "bdd100k",
            "BDD100K: images/10k/SPLIT/, labels/sem_seg/masks/SPLIT/ with train ids",
            images="images/10k/{split}",
            labels="labels/sem_seg/masks/{split}",
            encoding="cityscapes_train",
            splits=("train", "val", "test"),
            unlabelled=("test",),
        ),
        Layout(
            "mapillary",
            "Mapillary Vistas 1.2, 66 classes: training/images/, training/labels/",
            images="{split}/images",
            labels="{split}/labels",
            encoding="mapillary",
            splits=("train", "val", "test"),
            split_folders=("training", "validation", "testing"),
            unlabelled=("test",),
        ),
        Layout(
            "mapillary_v2",
            "Mapillary Vistas 2.0, 124 classes: training/images/, training/v2.0/labels/",
            images="{split}/images",
            labels="{split}/v2.0/labels",
            encoding="mapillary_v2",
            splits=("train", "val", "test"),
            split_folders=("training", "validation", "testing"),
            unlabelled=("test",),
        ),
        Layout(
            "idd",
            "IDD: leftImg8bit/SPLIT/DRIVE/, gtFine/SPLIT/DRIVE/*_labellevel3Ids.png, made by its public code",
            images="leftImg8bit/{split}",
            labels="gtFine/{split}",
            encoding="idd",
            splits=("train", "val", "test"),
            unlabelled=("test",),
            image_ending="_leftImg8bit",
            label_ending="_gtFine_labellevel3Ids",
        ),
        Layout(
            "urbansyn",
            "UrbanSyn: rgb/rgb_*.png, ss/ss_*.png with train ids",
            images="rgb",
            labels="ss",
            encoding="cityscapes_train",
            image_beginning="rgb_",
            label_beginning="ss_",
        ),
        Layout(
            "synscapes",
            "Synscapes: img/rgb/, img/class/ with Cityscapes label ids",
            images="img/rgb",
            labels="img/class",
            encoding="cityscapes",
        ),
        Layout(
            "kitti",
            "KITTI semantics (2015): training/image_2/, training/semantic/ with Cityscapes label ids",
            images="training/image_2",
            labels="training/semantic",
            encoding="cityscapes",
        ),
        Layout(
            "wilddash2",
            "WildDash 2: images/, labels/",
            images="images",
            labels="labels",
            encoding="wilddash2",
        ),
        Layout("folder", "any folder of images, with or without labels", images=".", labels=None, encoding=None),
    )
}


def register_layout(layout: Layout) -> None:
    """Make a layout of one's own known to recipes and commands. Raises ValueError for another one's name."""
    if not isinstance(layout, Layout):
        raise ValueError(f"{layout!r} is not a segadapt.plugin.Layout")
    if LAYOUTS.get(layout.name, layout) != layout:
        raise ValueError(f"a layout named '{layout.name}' already exists")
    LAYOUTS[layout.name] = layout

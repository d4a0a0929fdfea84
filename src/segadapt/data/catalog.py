"""Where each data set keeps its images and labels: `LAYOUTS[name].index(root, split)` gives the pairs.

A layout is plain data (`Layout`); one function indexes them all. To bring a layout of one's own, `register_layout` it.
Names of images are their paths below the layout's image folder, as published image lists have them.
"""

from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from segadapt.data.archive import archives_in, has_folder, homes, need_root
from segadapt.data.image_lists import without_suffix
from segadapt.data.packed import unpack_first
from segadapt.data.walking import files_below, natural
from segadapt.errors import UsageError, nearest

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

        The root is a folder, which may hold the data set's zip files, or one of these (see `archive.homes`). A pair
        without a label file has `label` None. Raises UsageError for a root that does not have this layout.
        """
        need_root(root)
        folder = self.image_folder(root, split)
        if not homes(root, str(folder.relative_to(root))):
            raise UsageError(
                f"layout '{self.name}' expects a folder {folder.relative_to(root)} in it",
                where=root,
                remedy=self._guess(root),
            )
        labels, by_stem = self.label_folder(root, split), self.label_files(root, split)
        images = self._files(root, folder, split, IMAGE_SUFFIXES, labels)
        names = sorted((name for name in images if self._may_be_image(name, folder == labels)), key=natural)
        if not names:
            inside = f" in {self._within(split)}" if self.within else ""
            packed = [path.name for path in archives_in(folder)]
            remedy = f"Give a zip file as root: {packed[0]}." if packed else unpack_first(folder)
            remedy = remedy or "Check the path and the layout."
            raise UsageError(f"holds no images{inside}", where=folder, remedy=remedy)
        labelled = {name: by_stem.get(self.label_stem(name), [None])[0] for name in names}
        # Where images and labels share a folder, the label of another image is no image.
        taken = {label for name, label in labelled.items() if label != images[name]}
        return [Pair(name, images[name], label) for name, label in labelled.items() if images[name] not in taken]

    def label_folder(self, root: Path, split: str) -> Path | None:
        """The folder of a split's labels; None for a layout without labels."""
        return None if self.labels is None else root / self.labels.format(split=self._part(split))

    def label_files(self, root: Path, split: str) -> dict[str, list[Path]]:
        """`label_stem` -> the files of that name in the label folder, in order: one, if all is well."""
        folder, found = self.label_folder(root, split), dict[str, list[Path]]()
        if folder is not None:
            for name, path in sorted(self._files(root, folder, split, LABEL_SUFFIXES).items()):
                stem = name.rpartition(".")[0]
                in_part = not self.label_part or self.label_part in stem.split("/")[:-1]
                if in_part and stem.endswith(self.label_ending):
                    found.setdefault(stem, []).append(path)
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

    def _files(
        self, root: Path, folder: Path, split: str, suffixes: frozenset[str], without: Path | None = None
    ) -> dict[str, Path]:
        """The files below a folder of the layout that belong to a split, by their path below it.

        What several zip files have is the first one's.
        """
        found: dict[str, Path] = {}
        for home in homes(root, str(folder.relative_to(root))):
            here = home / folder.relative_to(root)
            for name in files_below(here, suffixes, without and home / without.relative_to(root)):
                if not self.within or fnmatchcase(name, f"{self._within(split)}/*"):
                    found.setdefault(name, here / name)
        return found

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
        """Whether `root` has a folder with the images of a split, unpacked or in a zip file."""
        folder = self.images.format(split=self._part(split))
        return any(not self.within or has_folder(home / folder, self._within(split)) for home in homes(root, folder))

    def has_labels(self, root: Path) -> bool:
        """Whether some split has a label that is called as this layout has it."""
        return any(self.label_files(root, split) for split in self.splits or ("",))

    def _guess(self, root: Path) -> str:
        """What the user probably meant, for the end of an error."""
        if self.fits(root):
            return f"Splits that are there: {', '.join(split for split in self.splits if self.has(root, split))}."
        inside = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        for folder in (root.parent, root.parent.parent, *inside):
            with suppress(UsageError):  # of zip files that nobody has named
                if self.fits(folder):
                    return f"Did you mean {folder}?"
        others = [other for other in LAYOUTS.values() if other.images != "." and other.fits(root)]
        if others:
            labelled = [other for other in others if other.has_labels(root)] if len(others) > 1 else []
            return f"It looks like layout {' or '.join(other.name for other in labelled or others)}."
        if packed := archives_in(root):
            return f"None of its zip files has it ({', '.join(path.name for path in packed[:5])})."
        return unpack_first(root) or "Check the path and the layout (docs/data-sets.md shows each layout as a tree)."


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

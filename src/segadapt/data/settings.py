"""What a recipe says about a domain, and the data set that comes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, Strict, model_validator

from segadapt.data import few_labels
from segadapt.data.archive import place_in
from segadapt.data.cache import with_copies
from segadapt.data.catalog import LAYOUTS, Layout, Pair
from segadapt.data.dataset import SegmentationDataset, SizeMismatch
from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.orientation import Exif
from segadapt.data.reading import LabelReader, UnknownIds
from segadapt.data.splits import select
from segadapt.data.transforms import Augmentation
from segadapt.errors import UsageError
from segadapt.files import user_path
from segadapt.plugin_loading import known
from segadapt.settings import MISSING, Settings

SPLITS = ("train", "val", "test")
SPLIT = "{split}"
"""The place of a split's folder in the names of folders."""
OF_A_FOLDER = ("images", "labels", "splits", "image_ending", "label_ending", "image_part", "label_part")
"""Settings that describe what a layout of its own name knows by itself."""


def _known_layout(name: str) -> str:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout '{name}'. {known(name, list(LAYOUTS))}")
    return name


class DomainSettings(Settings):
    """One domain on disk: where it is and how its files are laid out and labelled."""

    layout: Annotated[str, AfterValidator(_known_layout)] = Field(
        description=f"how folders and names are laid out: {', '.join(LAYOUTS)}",
        json_schema_extra={"examples": list(LAYOUTS)},
    )
    root: Path = Field(description="folder of the data set, unpacked or in its zip files; or one zip file")
    images: str | None = Field(None, description="layout folder only: sub-folder of the images")
    labels: str | None = Field(None, description="layout folder only: sub-folder of the labels, of the same names")
    splits: dict[str, str] | None = Field(
        None,
        description="layout folder only: split -> what `{split}` in `images` and `labels` stands for: "
        "{train: training, val: validation}; null: no splits of its own",
    )
    image_ending: str = Field(
        "", description="layout folder only: end of an image's name, before the suffix, that its label's name lacks"
    )
    label_ending: str = Field(
        "", description="layout folder only: end of a label's name, before the suffix, that its image's name lacks"
    )
    image_part: str = Field(
        "", description="layout folder only: a folder in an image's path, for which its label's path has `label_part`"
    )
    label_part: str = Field("", description="layout folder only: see `image_part`")
    train_list: Path | None = Field(
        None, description="image list of split train: on each line a path relative to the image folder"
    )
    val_list: Path | None = Field(None, description="image list of split val")
    holdout: int = Field(
        0, ge=0, description="for layouts without splits: this many images, the last ones by name, become split val"
    )
    encoding: str | None = Field(
        None, description="how the label files hold classes, as the label space names it; default: the layout's own"
    )
    unknown_ids: UnknownIds = Field(
        "error", description="raw label ids that the encoding does not know: an error, or ignored pixels"
    )
    size_mismatch: SizeMismatch = Field(
        "error",
        description="image and label that differ in size: an error, or stretch both to the training size as the "
        "published programs do",
    )
    exif: Exif = Field(
        "turn",
        description="images with an EXIF orientation: turn them as viewers do, or take the raw pixels as stored",
    )
    name: str | None = Field(
        None,
        description="with several domains: name of this one, which its images' names begin with; null: its layout",
    )
    share: float | None = Field(
        None,
        gt=0,
        description="with several domains: share of the samples drawn from this one, relative to the others' shares; "
        "null for all: every image counts equally",
    )
    labelled: Annotated[int, Strict(), Field(ge=1)] | Path | None = Field(
        None,
        description="target only: train images whose labels methods may learn from in addition: either a number, drawn "
        "with the seed and spread evenly over the index, or an image list",
    )
    labelled_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the `labelled` images among all labelled samples of a training; null: their share by "
        "number, but at least a quarter",
    )
    prepared: bool = Field(True, description="use the resized copies of `segadapt data prepare` if there are any")
    prepared_root: Path | None = Field(
        None, description="folder of the prepared copies; default: prepared/ in $SEGADAPT_CACHE, else ~/.cache/segadapt"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "DomainSettings":
        for key in OF_A_FOLDER:
            if self.layout != "folder" and getattr(self, key):
                raise ValueError(f"{key} belongs to layout folder; other layouts have their own. Leave it out")
        for name in (self.images, self.labels):
            if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
                raise ValueError(f"'{name}' is not a sub-folder of the root. Give its path below the root.")
        if self.holdout and self.val_list is not None:
            raise ValueError("holdout and val_list both say what val is: give one of them")
        if bool(self.image_part) != bool(self.label_part):
            raise ValueError("image_part and label_part belong together. Give both, or leave both out")
        if self.splits is not None:
            self._check_splits(self.splits)
        if self.holdout and (self.splits or LAYOUTS[self.layout].splits):
            own = "these settings have their own" if self.splits else f"{self.layout} has its own"
            raise ValueError(f"holdout is for layouts without splits; {own}")
        if self.labelled_share is not None and self.labelled is None:
            raise ValueError("labelled_share applies to `labelled` images. Give both, or leave it out")
        return self

    def _check_splits(self, splits: dict[str, str]) -> None:
        """Raise ValueError unless each split is known and stands for a folder that `{split}` is a part of."""
        if SPLIT not in (self.images or ""):
            raise ValueError(f"splits say what {SPLIT} in `images` stands for. Write it there, or leave splits out")
        if not splits or not set(splits) <= set(SPLITS):
            raise ValueError(f"splits must be among {', '.join(SPLITS)}. Give those that there are")
        for folder in splits.values():
            if not folder or Path(folder).is_absolute() or {".", ".."} & set(Path(folder).parts):
                raise ValueError(f"'{folder}' is not the name of a folder. Give what {SPLIT} stands for")

    @property
    def given(self) -> bool:
        """Whether nothing is left open (`???`): a domain that a command does not read need not be there."""
        return all(str(value) != MISSING for value in vars(self).values())

    def resolved_layout(self) -> Layout:
        """The layout, for `folder` with the sub-folders that these settings name."""
        layout = LAYOUTS[self.layout]
        if self.layout != "folder":
            return layout
        splits = self.splits or {}
        return replace(
            layout,
            images=_literally(self.images or layout.images, bool(splits)),
            labels=None if self.labels is None else _literally(self.labels, bool(splits)),
            splits=tuple(splits),
            split_folders=tuple(splits.values()),
            image_ending=self.image_ending,
            label_ending=self.label_ending,
            image_part=self.image_part,
            label_part=self.label_part,
        )

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split, see `segadapt.data.splits.select`."""
        lists = {
            name: user_path(path)
            for name, path in (("train", self.train_list), ("val", self.val_list))
            if path is not None
        }
        return select(self.resolved_layout(), user_path(self.root), split, lists, self.holdout)

    def labelled_pairs(self, seed: int) -> list[Pair]:
        """The few train images whose labels may be learned from (`labelled`), see `few_labels.choose`."""
        assert self.labelled is not None
        given = self.labelled if isinstance(self.labelled, int) else user_path(self.labelled)
        folder = self.resolved_layout().image_folder(user_path(self.root), "train")
        return few_labels.choose(self.pairs("train"), given, seed, folder)

    def list_of(self, split: str) -> Path | None:
        """The image list that names the images of a split; None where no list does."""
        path = {"train": self.train_list, "val": self.val_list}.get(split)
        return None if path is None else user_path(path)

    def has_split(self, split: str) -> bool:
        """Whether these settings and the layout provide for a split (not whether its files are there)."""
        own = self.resolved_layout().splits
        lists = {"train": self.train_list, "val": self.val_list}
        if own:
            return split in own
        return split == "train" or lists.get(split) is not None or (split == "val" and self.holdout > 0)

    def label_encoding(self, space: LabelSpace) -> str:
        """The encoding of the label files: set here, else the layout's, else the label space's only one, else train."""
        return space.need_encoding(self.encoding or self._usual_encoding(space))

    def _usual_encoding(self, space: LabelSpace) -> str:
        own = space.own_encodings
        return LAYOUTS[self.layout].encoding or (own[0] if len(own) == 1 else TRAIN)

    def reading(self, space: LabelSpace) -> dict[str, str]:
        """The settings that decide how labels are read, as far as they differ from their defaults."""
        own: dict[str, str] = {"unknown_ids": self.unknown_ids, "size_mismatch": self.size_mismatch}
        found = {key: value for key, value in own.items() if value != type(self).model_fields[key].default}
        if self.encoding not in (None, self._usual_encoding(space)):
            found["encoding"] = str(self.encoding)
        return found

    def label_reader(self, space: LabelSpace) -> LabelReader:
        """What turns the label files into train ids of `space`."""
        form = self.resolved_layout().label_form
        return LabelReader(space, self.label_encoding(space), form, self.unknown_ids, self.exif)


def _literally(folder: str, splits: bool) -> str:
    """A layout's folder whose braces are part of its name, but for the place of the split where there are some."""
    literal = folder.replace("{", "{{").replace("}", "}}")
    return literal.replace(f"{{{SPLIT}}}", SPLIT) if splits else literal


def open_domain(
    settings: DomainSettings,
    label_space: LabelSpace,
    split: str,
    size: tuple[int, int],
    augment: Augmentation | None = None,
    labels: bool = True,
    pairs: list[Pair] | None = None,
) -> SegmentationDataset:
    """The data set of one split at `size` (width, height), with prepared copies where they are complete.

    With `labels=False` no label file is looked at; `pairs`: some of the split alone. Raises UsageError for what does
    not fit: root, split, image list, encoding, an image without label.
    """
    root, pairs = user_path(settings.root), settings.pairs(split) if pairs is None else pairs
    reader = None
    if labels:
        reader = settings.label_reader(label_space)
        _need_labels(settings.resolved_layout(), root, split, pairs)
    else:
        pairs = [replace(pair, label=None) for pair in pairs]
    keep_aspect = augment is not None and augment.keep_aspect
    dataset = SegmentationDataset(
        pairs, size, reader, root, settings.size_mismatch, settings.exif, augment, keep_aspect
    )
    return with_copies(dataset, settings.layout, settings.prepared_root) if settings.prepared else dataset


def _need_labels(layout: Layout, root: Path, split: str, pairs: list[Pair]) -> None:
    """Raise UsageError that names the first image without a label and how many there are."""
    lacking = [pair for pair in pairs if pair.label is None]
    if not lacking:
        return
    if layout.labels is None:
        raise UsageError(
            f"layout '{layout.name}' has no labels here",
            where=root,
            remedy="Name their sub-folder (labels), or do without (data check and data prepare: --unlabelled).",
        )
    expected = f"{layout.label_folder(root, split)}/{layout.label_stem(lacking[0].name)}.png"
    packed = "Give the folder with all zip files of the data set as root" if place_in(root) else "Add it"
    raise UsageError(
        f"has no label {expected}" + (f" ({len(lacking)} of {len(pairs)} images lack one)" if len(lacking) > 1 else ""),
        where=lacking[0].image,
        remedy=f"{packed}, or name the labelled images in an image list.",
    )

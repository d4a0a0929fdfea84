"""Images and labels that stages have made, in place of a data set's own: stylized copies, pseudo-labels.

They lie in a folder under the names of the images they belong to, whatever their suffix.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from segadapt.data.catalog import IMAGE_SUFFIXES, LABEL_SUFFIXES, Pair
from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.data.label_space_file import TRAIN
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.reading import LabelReader
from segadapt.data.walking import files_below
from segadapt.errors import UsageError
from segadapt.files import need_folder

PUBLISHED_ENDING = "_PseudoLabel"
"""What the published program puts after the name of an image, all in one folder."""


def beside_images(data: TrainingData, folder: Path) -> JoinedDataset:
    """The data and, with the same labels, its counterparts in `folder` (stylized copies); shares of domains stay.

    Raises UsageError, see `with_images`.
    """
    if isinstance(data, JoinedDataset) and data.shares is not None:
        return replace(data, parts=tuple(beside_images(part, folder) for part in data.parts), names=None)
    return JoinedDataset((data, of_parts(data, lambda part: with_images(part, folder))))


def of_parts(data: TrainingData, change: Callable[[SegmentationDataset], SegmentationDataset]) -> TrainingData:
    """The data with each data set that it is put together from changed."""
    if isinstance(data, JoinedDataset):
        return replace(data, parts=tuple(of_parts(part, change) for part in data.parts))
    return change(data)


def with_images(dataset: SegmentationDataset, folder: Path) -> SegmentationDataset:
    """The same pairs and labels, with the images of `folder` (stylized copies).

    Raises UsageError when an image has no counterpart there, or shares it with another one.
    """
    found = _by_stem(need_folder(folder, "the folder of stylized images"), IMAGE_SUFFIXES)
    copies = _counterparts(dataset.pairs, found, folder, "stylized copy")
    pairs = [
        replace(pair, image=copy, original=pair.original or pair.image)
        for pair, copy in zip(dataset.pairs, copies, strict=True)
    ]
    # The published copies all have one size, whatever the size of their labels.
    return replace(dataset, pairs=pairs, made_images=folder, image_copies=None, size_mismatch="stretch")


def with_labels(dataset: SegmentationDataset, folder: Path, space: LabelSpace) -> SegmentationDataset:
    """The same images, with the label maps of `folder` (train ids, of any size) as their labels.

    Raises UsageError when an image has none there, or shares it with another one.
    """
    found = _by_stem(need_folder(folder, "the folder of pseudo-labels"), LABEL_SUFFIXES)
    labels = _counterparts(dataset.pairs, found, folder, "pseudo-label")
    pairs = [replace(pair, label=label) for pair, label in zip(dataset.pairs, labels, strict=True)]
    reader = LabelReader(space, TRAIN)
    return replace(dataset, pairs=pairs, labels=reader, made_labels=folder, label_copies=None, size_mismatch="stretch")


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    found = {}
    for name in files_below(folder, suffixes):
        stem = str(PurePosixPath(name).with_suffix(""))
        found[stem.removesuffix(PUBLISHED_ENDING)] = folder / name
    return found


def _counterparts(pairs: list[Pair], found: dict[str, Path], folder: Path, what: str) -> list[Path]:
    """The file of each pair, by its place below the folder, or by its bare name where all lie side by side."""
    files, whose = [], dict[Path, str]()
    for pair in pairs:
        stem = PurePosixPath(pair.name).with_suffix("")
        path = found.get(str(stem)) or found.get(stem.name)
        if path is None:
            raise UsageError(
                f"has no {what} of {pair.name}",
                where=folder,
                remedy="Create it again for all images, or check the path.",
            )
        if whose.setdefault(path, pair.name) != pair.name:  # an image list may name an image twice
            raise UsageError(
                f"is the {what} of {whose[path]} and of {pair.name}",
                where=path,
                remedy="Keep the images' sub-folders where names occur twice.",
            )
        files.append(path)
    return files

"""One class for all data sets: pairs of files in, uint8 RGB images and train-id label maps out.

    dataset = open_domain(settings, label_space, "train", size=(1024, 512))     # segadapt.data.settings
    sample = dataset.read(3)          # image (512, 1024, 3) uint8 RGB, label (512, 1024) uint8 train ids, 255 ignored

A network owns its pixel format, so that nothing here subtracts means or reorders channels.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from segadapt.data.archive import size_of
from segadapt.data.catalog import Pair
from segadapt.data.label_spaces import IGNORE
from segadapt.data.orientation import Exif
from segadapt.data.reading import LabelReader, need_equal_sizes, picture_sizes, read_rgb
from segadapt.data.transforms import Augmentation, Need, Seed, fitted
from segadapt.errors import SegadaptError
from segadapt.files import digest

SizeMismatch = Literal["error", "stretch"]


@dataclass(frozen=True)
class Sample:
    """One example at the training size. Arrays may be read-only."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    label: NDArray[np.uint8] | None  # (H, W) train ids, 255 ignored
    name: str
    valid: NDArray[np.bool_] | None = None  # (H, W), without labels: false in the margins of the augmentation


class Copies(Protocol):
    """Resized images or label maps that lie ready on disk (segadapt.data.cache)."""

    @property
    def folder(self) -> Path:
        """Where they lie."""
        ...

    def read(self, pair: Pair) -> NDArray[np.uint8]:
        """The image (H, W, 3) or label map (H, W) of a pair."""
        ...


@dataclass(frozen=True, eq=False)
class SegmentationDataset:
    """The pairs of one split at one size. It can be pickled, and reading needs nothing but the files."""

    pairs: list[Pair]
    size: tuple[int, int]  # (width, height) of training
    labels: LabelReader | None  # None: images only
    root: Path  # of the data set itself, whatever is read in place of its images or labels
    size_mismatch: SizeMismatch = "error"
    exif: Exif = "turn"  # whether images are turned as their EXIF says; for labels the reader knows
    augment: Augmentation | None = None
    keep_aspect: bool = False  # images are fitted into `size` instead of stretched to it
    image_copies: Copies | None = None
    label_copies: Copies | None = None
    remark: str = ""  # about prepared copies that are not used, for `origin`
    made_images: Path | None = None  # folder of the stylized copies that stand for the images
    made_labels: Path | None = None  # folder of the pseudo-labels that stand for the labels

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def leaves(self) -> "tuple[SegmentationDataset, ...]":
        """The data sets that it is put together from: itself."""
        return (self,)

    @property
    def origin(self) -> str:
        """Where samples come from, for a log line."""
        used = [("images", self.made_images, self.image_copies), ("labels", self.made_labels, self.label_copies)]
        parts = [
            f"{kind} of {made or self.root}" if copies is None else f"prepared {kind} in {copies.folder}"
            for kind, made, copies in used[: 1 if self.labels is None else 2]
        ]
        return f"{len(self)} pairs: {', '.join(parts)}" + (f" ({self.remark})" if self.remark else "")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and file sizes of the images, and of the labels that are read; of `exif: raw`; and of
        what a derived encoding says, which the label space's own digest does not cover."""
        files = [[pair.name, file_size(pair.image), pair.label and file_size(pair.label)] for pair in self.pairs]
        derived = None if self.labels is None else self.labels.space.derived(self.labels.encoding)
        more = [*([self.exif] if self.exif != "turn" else []), *([derived.digest] if derived is not None else [])]
        return digest([files, *more] if more else files)

    def read(self, index: int, seed: Seed | None = None, need: Need | None = None) -> Sample:
        """The sample at the training size, augmented if there is a `seed` (and an augmentation), else as it is.

        Images are resized bicubic, labels nearest, to `size` or with `keep_aspect` to what fits into it. An augmented
        sample is drawn again while its crop does not hold what it `need`s. Raises SegadaptError that names the file:
        broken, image and label of different sizes, a label id that the encoding does not know.
        """
        pair, image_copies, label_copies = self.pairs[index], self.image_copies, self.label_copies
        if image_copies is None or label_copies is None:
            self.check_sizes(pair)
        size = self.size
        if image_copies is not None:
            image = image_copies.read(pair)
        else:
            if self.keep_aspect:
                size = fitted(picture_sizes(pair.image).of(self.exif), size)
            image = np.asarray(read_rgb(pair.image, size, self.exif))
        label = None
        if self.labels is not None and pair.label is not None:
            label = None if label_copies is None else label_copies.read(pair)
            if label is None or label.shape != image.shape[:2]:
                label = self.labels.read(pair.label, (image.shape[1], image.shape[0]))
        if self.augment is None or seed is None:
            return Sample(image, label, pair.name)
        image, changed = self.augment(image, label, seed, need)
        if label is None and changed is not None:
            return Sample(image, None, pair.name, changed != IGNORE)
        return Sample(image, changed, pair.name)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image (H, W, 3) at its own size, as evaluation and reports want it."""
        return np.asarray(read_rgb(self.pairs[index].image, exif=self.exif))

    def label(self, index: int) -> NDArray[np.uint8]:
        """The label map (H, W) of train ids at its own size. Raises SegadaptError when there is none."""
        pair = self.pairs[index]
        if self.labels is None or pair.label is None:
            raise SegadaptError("has no label here", where=pair.image, remedy="Open the domain with its labels.")
        self.check_sizes(pair)
        return self.labels.read(pair.label)

    def check_sizes(self, pair: Pair) -> None:
        """Raise SegadaptError when image and label differ in size (read from their headers), unless that is allowed."""
        if pair.label is not None and self.size_mismatch == "error":
            need_equal_sizes(pair.image, pair.label, self.exif)


@dataclass(frozen=True, eq=False)
class JoinedDataset:
    """Several data sets, one after another, as one to learn from."""

    parts: "tuple[SegmentationDataset | JoinedDataset, ...]"
    shares: tuple[float, ...] | None = None  # of what is sampled, for each part; None: each image counts alike
    names: tuple[str, ...] | None = None  # of the parts, where they are domains; their images' names begin with them

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def leaves(self) -> tuple[SegmentationDataset, ...]:
        """The data sets that it is put together from, in order."""
        return tuple(leaf for part in self.parts for leaf in part.leaves)

    @property
    def origin(self) -> str:
        """Where samples come from, for a log line."""
        return " and ".join(part.origin for part in self.parts)

    @property
    def labels(self) -> LabelReader | None:
        """What reads the labels of its first part that has some; None where none has."""
        return next((leaf.labels for leaf in self.leaves if leaf.labels is not None), None)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the digests of the parts, and of their shares where they have some."""
        parts: list[object] = [part.digest for part in self.parts]
        return digest(parts if self.shares is None else [parts, self.shares])

    def read(self, index: int, seed: Seed | None = None, need: Need | None = None) -> Sample:
        """See `SegmentationDataset.read`."""
        for part in self.parts:
            if index < len(part):
                return part.read(index, seed, need)
            index -= len(part)
        raise IndexError(index)


TrainingData = SegmentationDataset | JoinedDataset
"""What a training can learn from."""


def file_size(path: Path) -> int:
    """Size of a file in bytes. Raises SegadaptError when it has vanished."""
    try:
        return size_of(path)
    except OSError as failure:
        raise SegadaptError("does not exist", where=path, remedy="Restore the file, or correct its path.") from failure

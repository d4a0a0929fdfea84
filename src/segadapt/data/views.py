"""What one data set of a training looks like: which images, at what size, changed how, in which order.

A second, differently augmented view of an image (weak and strong, masked) is no second data set: methods make it on
the device from the batch, with `segadapt.augment` and the samples' seeds.
"""

from dataclasses import dataclass

from segadapt.data.catalog import Pair
from segadapt.data.dataset import SegmentationDataset, TrainingData
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.sides import Domains, open_side
from segadapt.data.transforms import Augmentation


@dataclass(frozen=True)
class View:
    """How a training sees one domain."""

    size: tuple[int, int]  # (width, height) that images are stretched to, or with `keep_aspect` fitted into
    augment: Augmentation
    sampler: str  # a key of `segadapt.data.samplers.SAMPLERS`
    split: str = "train"
    labels: bool = True  # False: no label file is looked at

    @property
    def given_size(self) -> tuple[int, int]:
        """(width, height) of what it gives."""
        return self.augment.crop or self.size

    def open(self, domains: Domains, space: LabelSpace) -> TrainingData:
        """The data of a side. Raises UsageError, see `open_domain`."""
        return open_side(domains, space, self.split, self.size, self.augment, self.labels)

    def open_some(self, domain: DomainSettings, space: LabelSpace, pairs: list[Pair]) -> SegmentationDataset:
        """Some pairs of one domain, with their labels."""
        return open_domain(domain, space, self.split, self.size, self.augment, pairs=pairs)

"""The data of a stage: what it learns from, and what it is evaluated on."""

from dataclasses import dataclass, replace

from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.made import with_images, with_labels
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import TrainingSettings
from segadapt.references import PSEUDO_LABELS, STYLIZED, named_by, paths_in
from segadapt.stages.context import Run

ANY = (8, 8)
"""A size, where it does not matter."""


@dataclass(frozen=True)
class Domains:
    """The data of a training."""

    source: TrainingData | None
    target: TrainingData | None
    source_val: SegmentationDataset | None
    target_val: SegmentationDataset | None

    def all(self) -> dict[str, TrainingData]:
        """Those that are there, by name."""
        named = {
            "source": self.source,
            "target": self.target,
            "source_val": self.source_val,
            "target_val": self.target_val,
        }
        return {name: dataset for name, dataset in named.items() if dataset is not None}


def training_domains(run: Run, settings: TrainingSettings) -> Domains:
    """The data of a training stage, but what other stages make. Raises UsageError for what is not there."""
    data, space = run.recipe.data, run.space
    target_size = settings.target_size or settings.size
    method = METHODS[settings.method]
    source: TrainingData | None = None
    target: TrainingData | None = None
    if "source" in method.domains:
        source = settings.source_view.open(data.source, space)
    if "target" in method.domains:
        labels = method.uses_target_labels
        split = "val" if settings.quirk("target_split") else "train"
        target = replace(settings.target_view, split=split, labels=labels).open(data.target, space)
    source_val = validation(data.source, space, settings.size)
    opened = Domains(source, target, source_val, validation(data.target, space, target_size))
    return with_made(run, settings, opened, by_stages=False)


def with_made(run: Run, settings: TrainingSettings, own: Domains, by_stages: bool) -> Domains:
    """The data with the stylized copies and pseudo-labels that the settings name beside it, or as its labels.

    Of what they name, that of other stages of the run (`by_stages`), or all else. Raises UsageError for files that do
    not belong to the images.
    """
    for key, named in named_by(type(settings)).items():
        for name in paths_in(settings, key):
            if name.startswith("@") != by_stages:
                continue
            if named.gives == STYLIZED:
                assert isinstance(own.source, SegmentationDataset)
                copies = with_images(own.source, run.folder_of(name))
                own = replace(own, source=JoinedDataset((own.source, copies)))
            elif named.gives == PSEUDO_LABELS:
                assert isinstance(own.target, SegmentationDataset)
                own = replace(own, target=with_labels(own.target, run.folder_of(name), run.space))
    return own


def validation(domain: DomainSettings, space: LabelSpace, size: tuple[int, int]) -> SegmentationDataset | None:
    """Split val of a domain, without labels where its layout has none; None for a domain without one, or not given."""
    if not (domain.given and domain.has_split("val")):
        return None
    return open_domain(domain, space, "val", size, labels=domain.resolved_layout().labels is not None)

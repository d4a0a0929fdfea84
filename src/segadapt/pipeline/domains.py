"""The data of a stage: what it learns from, and what it is evaluated on."""

from dataclasses import dataclass

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.methods.methods import METHODS
from segadapt.methods.settings import TrainingSettings
from segadapt.pipeline.context import Run


@dataclass(frozen=True)
class Domains:
    """The data of a training."""

    source: SegmentationDataset | None
    target: SegmentationDataset | None
    source_val: SegmentationDataset | None
    target_val: SegmentationDataset | None

    def all(self) -> dict[str, SegmentationDataset]:
        """Those that are there, by name."""
        named = {
            "source": self.source,
            "target": self.target,
            "source_val": self.source_val,
            "target_val": self.target_val,
        }
        return {name: dataset for name, dataset in named.items() if dataset is not None}


def training_domains(run: Run, settings: TrainingSettings) -> Domains:
    """The data of a training stage. Raises UsageError for what is not there."""
    data, space = run.recipe.data, run.space
    target_size = settings.target_size or settings.size
    wanted = METHODS[settings.method].domains
    source = target = None
    if "source" in wanted:
        source = open_domain(data.source, space, "train", settings.size, settings.augment)
    if "target" in wanted:
        labels = settings.method == "target_trained"
        split = "val" if settings.quirks.get("target_split") else "train"
        target = open_domain(data.target, space, split, target_size, settings.augment, labels=labels)
    source_val = validation(data.source, space, settings.size)
    return Domains(source, target, source_val, validation(data.target, space, target_size))


def validation(domain: DomainSettings, space: LabelSpace, size: tuple[int, int]) -> SegmentationDataset | None:
    """Split val of a domain, without labels where its layout has none; None for a domain without a split val."""
    if not domain.has_split("val"):
        return None
    return open_domain(domain, space, "val", size, labels=domain.resolved_layout().labels is not None)


def evaluation_domains(
    run: Run, settings: EvaluateSettings, size: tuple[int, int] = (8, 8)
) -> dict[str, SegmentationDataset]:
    """The labelled data that an `evaluate` stage scores on, by domain; `size` matters to training alone."""
    found = {"target": open_domain(run.recipe.data.target, run.space, settings.split, size)}
    if settings.source:
        found["source"] = open_domain(run.recipe.data.source, run.space, "val", size)
    return found

"""The data of a stage: what it learns from, and what it is evaluated on."""

from dataclasses import dataclass, replace

from segadapt.config.recipe import StageSettings
from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.made import with_images, with_labels
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.inference.settings import PseudoLabelsSettings, StylizeSettings
from segadapt.methods.registry import METHODS
from segadapt.methods.self_training import SelfTrainingSettings
from segadapt.methods.settings import TrainingSettings, WithExtraSource
from segadapt.pipeline.context import Run


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


def domains_read(settings: StageSettings) -> set[str]:
    """Whose images a stage cannot do without. (A training is also scored on split val of both domains, where given.)"""
    match settings:
        case EvaluateSettings():
            return {name for name in ("source", "target") if getattr(settings, name)}
        case StylizeSettings():
            return {"source"}
        case PseudoLabelsSettings():
            return {"target"}
        case TrainingSettings():
            return set() if settings.stand_in is not None else set(METHODS[settings.method].domains)
    raise AssertionError(settings.method)


def training_domains(run: Run, settings: TrainingSettings, planned: bool = False) -> Domains:
    """The data of a training stage. Raises UsageError for what is not there.

    With `planned`, what other stages are still to make is left out: their fingerprints stand for it.
    """
    data, space = run.recipe.data, run.space
    target_size = settings.target_size or settings.size
    wanted = METHODS[settings.method].domains
    source: TrainingData | None = None
    target: TrainingData | None = None
    if "source" in wanted:
        source = own = settings.source_view.open(data.source, space)
        extra = settings.extra_source if isinstance(settings, WithExtraSource) else None
        if extra is not None and not (planned and extra.startswith("@")):
            source = JoinedDataset((own, with_images(own, run.folder_of(extra))))
    if "target" in wanted:
        labels = settings.method == "target_trained"
        split = "val" if settings.quirk("target_split") else "train"
        target = own = replace(settings.target_view, split=split, labels=labels).open(data.target, space)
        made = settings.labels if isinstance(settings, SelfTrainingSettings) else None
        if made is not None and not (planned and made.startswith("@")):
            target = with_labels(own, run.folder_of(made), space)
    source_val = validation(data.source, space, settings.size)
    return Domains(source, target, source_val, validation(data.target, space, target_size))


def validation(domain: DomainSettings, space: LabelSpace, size: tuple[int, int]) -> SegmentationDataset | None:
    """Split val of a domain, without labels where its layout has none; None for a domain without one, or not given."""
    if not (domain.given and domain.has_split("val")):
        return None
    return open_domain(domain, space, "val", size, labels=domain.resolved_layout().labels is not None)


def evaluation_domains(
    run: Run, settings: EvaluateSettings, size: tuple[int, int] = (8, 8)
) -> dict[str, SegmentationDataset]:
    """The labelled data that an `evaluate` stage scores on, by domain; `size` matters to training alone."""
    found = {}
    if settings.target:
        found["target"] = open_domain(run.recipe.data.target, run.space, settings.split, size)
    if settings.source:
        found["source"] = open_domain(run.recipe.data.source, run.space, "val", size)
    return found

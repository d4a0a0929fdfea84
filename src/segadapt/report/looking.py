"""What a report shows predictions for: images of the target, and the models of the compared stages."""

from collections.abc import Iterator
from dataclasses import dataclass

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.sides import score_name
from segadapt.errors import SegadaptError
from segadapt.inference.predictor import Predictor
from segadapt.report.records import RunRecord, StageRecord
from segadapt.weights.saved import load_any

ANY = (440, 440)  # the training size of a data set whose images are read whole


@dataclass(frozen=True)
class Looking:
    """Images of the target, from its split val if it has one, and predictors by stage name."""

    space: LabelSpace
    domain: str  # name of the scores on these images: `target`, or `target.NAME` of several
    dataset: SegmentationDataset
    predictors: dict[str, tuple[Predictor, LabelSpace]]

    @property
    def labelled(self) -> bool:
        """Whether there is something to score on."""
        return self.dataset.labels is not None

    def name_of(self, index: int) -> str:
        """An image's name."""
        return self.dataset.pairs[index].name


def look(run: RunRecord, device: str, problems: list[str]) -> Looking | None:
    """Open data and models of a run. What is missing on this machine is described in `problems`."""
    try:
        space = run.label_space()
        domain, dataset = open_target(run, space)
    except (SegadaptError, OSError) as error:
        problems.append(f"no predictions: the target data is not on this machine ({error})")
        return None
    return Looking(space, domain, dataset, dict(_predictors(run.compared(), device, problems)))


def open_target(run: RunRecord, space: LabelSpace) -> tuple[str, SegmentationDataset]:
    """The first target that has a split val, else the first one's train images."""
    domains = list(run.domains("target").items())
    name, settings = next(((name, own) for name, own in domains if own.has_split("val")), domains[0])
    split = "val" if settings.has_split("val") else "train"
    return score_name("target", name), _with_labels_if_any(settings, space, split)


def _with_labels_if_any(settings: DomainSettings, space: LabelSpace, split: str) -> SegmentationDataset:
    try:
        return open_domain(settings, space, split, ANY)
    except SegadaptError:
        return open_domain(settings, space, split, ANY, labels=False)


def _predictors(
    stages: list[StageRecord], device: str, problems: list[str]
) -> Iterator[tuple[str, tuple[Predictor, LabelSpace]]]:
    for stage in stages:
        if stage.model is None:
            continue
        try:
            saved = load_any(stage.model)
            yield stage.name, (Predictor(saved.network, saved.header.size, device=device), saved.header.space)
        except SegadaptError as error:
            problems.append(f"{stage.name}: no predictions ({error})")

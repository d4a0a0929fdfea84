"""The data of a stage: what it learns from, and what it is evaluated on."""

from dataclasses import dataclass, replace
from functools import partial

from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.data.few_labels import share_of
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.made import beside_images, of_parts, with_labels
from segadapt.data.settings import open_domain
from segadapt.data.sides import DataSettings, joined, score_name
from segadapt.data.sides import Domains as Sides
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.references import PSEUDO_LABELS, STYLIZED, named_by, paths_in
from segadapt.stages.context import Run

ANY = (8, 8)
"""A size, where it does not matter."""


SIDES = {
    "source": "source",
    "target": "target",
    "source_val": "source",
    "target_val": "target",
    "labelled": "target",
}
"""Data of a training -> the side of the recipe's data that it is of."""


@dataclass(frozen=True)
class Domains:
    """The data of a training."""

    source: TrainingData | None
    target: TrainingData | None
    source_val: TrainingData | None
    target_val: TrainingData | None
    labelled: JoinedDataset | None = None  # a few labelled images of the target, to learn from beside the rest

    def all(self) -> dict[str, TrainingData]:
        """Those that are there, by name."""
        named: dict[str, TrainingData | None] = {name: getattr(self, name) for name in SIDES}
        return {name: dataset for name, dataset in named.items() if dataset is not None}


def label_settings(run: Run, data: Domains) -> dict[str, str]:
    """How the labels of some data are read, where that differs from the defaults: `source.encoding` -> its value."""
    found: dict[str, str] = {}
    for side in ("source", "target"):
        sets = [dataset for name, dataset in data.all().items() if SIDES[name] == side]
        if any(leaf.labels is not None and leaf.made_labels is None for dataset in sets for leaf in dataset.leaves):
            for name, domain in run.recipe.data.named(side).items():
                found |= {f"{score_name(side, name)}.{key}": value for key, value in domain.reading(run.space).items()}
    return found


def training_domains(run: Run, settings: TrainingSettings) -> Domains:
    """The data of a training stage, but what other stages make. Raises UsageError for what is not there."""
    data, space = run.recipe.data, run.space
    target_size = settings.target_size or settings.size
    method = METHODS[settings.method]
    source: TrainingData | None = None
    target: TrainingData | None = None
    few: JoinedDataset | None = None
    if "source" in method.domains:
        source = settings.source_view.open(data.named("source"), space)
    if "target" in method.domains:
        if method.uses_target_labels and learns_few(settings, data):
            target = joined(few_labelled(run, settings), data.named("target"))  # no others are asked for
        else:
            split = "val" if settings.quirk("target_split") else "train"
            view = replace(settings.target_view, split=split, labels=method.uses_target_labels)
            target = view.open(data.named("target"), space)
    if learns_few(settings, data) and not method.uses_target_labels:
        few = with_shares(run, few_labelled(run, settings), source if method.labelled == "source" else target)
    source_val = validation(data.named("source"), space, settings.size)
    opened = Domains(source, target, source_val, validation(data.named("target"), space, target_size), few)
    return with_made(run, settings, opened, by_stages=False)


def learns_few(settings: TrainingSettings, data: DataSettings) -> bool:
    """Whether the data has a few labelled target images, and a training learns from them.

    All that train a segmenter may; a style transfer network would take them for images of the source.
    """
    if not isinstance(settings, SegmenterSettings) or settings.ignore_labelled:
        return False
    return data.few_labels and settings.stand_in is None


def few_labelled(run: Run, settings: TrainingSettings) -> dict[str, SegmentationDataset]:
    """The few labelled images of each target that has some, as a training sees them among the other labelled ones.

    As the target's other images, if they then have the size of those that they come among; else as these are.
    """
    source, target = settings.source_view, replace(settings.target_view, labels=True)
    among_source = METHODS[settings.method].labelled == "source" and source.given_size != target.given_size
    view, seed = source if among_source else target, run.recipe.seed
    return {
        name: view.open_some(domain, run.space, domain.labelled_pairs(seed))
        for name, domain in run.recipe.data.named("target").items()
        if domain.labelled is not None
    }


def with_shares(run: Run, few: dict[str, SegmentationDataset], rest: TrainingData | None) -> JoinedDataset:
    """The few labelled images with the share that they have of all labelled ones; `rest` are the others."""
    domains = run.recipe.data.named("target")
    parts = joined(few, domains)
    rest_images = len(rest or ())
    shares = [share_of(len(part), rest_images, len(few), domains[name].labelled_share) for name, part in few.items()]
    return JoinedDataset(parts.parts if isinstance(parts, JoinedDataset) else (parts,), tuple(shares))


def learned(settings: TrainingSettings, domains: Domains) -> Domains:
    """The data that batches are drawn from: the few labelled images among those whose labels the method learns from."""
    few = domains.labelled
    if few is None or few.shares is None:
        return domains

    def beside(rest: TrainingData | None) -> JoinedDataset:
        assert rest is not None and few.shares is not None
        return JoinedDataset((rest, *few.parts), (1 - sum(few.shares), *few.shares))

    if METHODS[settings.method].labelled == "source":
        return replace(domains, source=beside(domains.source))
    return replace(domains, target=beside(domains.target))


def with_made(run: Run, settings: TrainingSettings, own: Domains, by_stages: bool) -> Domains:
    """The data with the stylized copies and pseudo-labels that the settings name beside it, or as its labels.

    Of what they name, that of other stages of the run (`by_stages`), or all else. Raises UsageError for files that do
    not belong to the images.
    """
    for key, named in named_by(type(settings)).items():
        for name in paths_in(settings, key):
            if name.startswith("@") != by_stages:
                continue
            folder = run.folder_of(name) if named.gives is not None and named.gives.folder else None
            if named.gives == STYLIZED and own.source is not None and folder is not None:
                own = replace(own, source=beside_images(own.source, folder))
            elif named.gives == PSEUDO_LABELS and own.target is not None and folder is not None:
                labelled = partial(with_labels, folder=folder, space=run.space)
                own = replace(own, target=of_parts(own.target, labelled))
    return own


def validation(domains: Sides, space: LabelSpace, size: tuple[int, int]) -> TrainingData | None:
    """Split val of the domains that have one, without labels where their layout has none; None where none has one."""
    found = {
        name: open_domain(domain, space, "val", size, labels=domain.resolved_layout().labels is not None)
        for name, domain in domains.items()
        if domain.given and domain.has_split("val")
    }
    return joined(found, domains) if found else None

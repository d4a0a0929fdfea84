"""The source and the target of a recipe: one domain each, or several that are mapped into one label space.

open_side(data.named("source"), space, "train", size)     # one domain: its data set; several: all of them, joined
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from segadapt.data.dataset import JoinedDataset, SegmentationDataset, TrainingData
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.orientation import Exif
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.transforms import Augmentation
from segadapt.errors import UsageError
from segadapt.settings import Settings

Side = Literal["source", "target"]
NOT_ABOUT_FILES = {"name", "share", "labelled", "labelled_share", "prepared", "prepared_root"}
"""Settings of a domain that change nothing of what its files are and mean."""
Domains = Mapping[str, DomainSettings]
"""The domains of a side by name; a single one has the name ""."""


def _one_or_several(value: Any, handler: ValidatorFunctionWrapHandler) -> DomainSettings | tuple[DomainSettings, ...]:
    """By form, and not by trial, so that an error names the key as it is written."""
    if isinstance(value, (list, tuple)):
        return TypeAdapter(tuple[DomainSettings, ...]).validate_python(value)
    return DomainSettings.model_validate(value)


OneOrSeveral = Annotated[DomainSettings | tuple[DomainSettings, ...], WrapValidator(_one_or_several)]


class DataSettings(Settings):
    """Source and target."""

    source: OneOrSeveral = Field(description="the labelled domain, or a list of several domains")
    target: OneOrSeveral = Field(
        description="the domain to adapt to, or a list of several: train images without labels; val for scores alone"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "DataSettings":
        for key in ("source", "target"):
            domains = list(self.domains(key))
            if not domains:
                raise ValueError(f"`{key}` is an empty list. Give one domain, or several")
            if len(domains) == 1 and (domains[0].name is not None or domains[0].share is not None):
                raise ValueError(f"{key}: name and share are for one of several domains. Leave them out")
            if len({domain.share is None for domain in domains}) > 1:
                raise ValueError(f"{key}: some domains have a `share` and some have none. Give it to all, or to none")
            given = [domain.name for domain in domains if domain.name is not None]
            for name in given:
                if not name.replace("_", "").replace("-", "").isalnum():
                    raise ValueError(f"{key}: the name '{name}' may only have letters, digits, _ and -")
                if given.count(name) > 1:
                    raise ValueError(f"{key}: two domains are called '{name}'. Give them different names")
            self._need_different(key)
        if any(domain.labelled is not None for domain in self.domains("source")):
            raise ValueError("source: all its labels are used. Set `labelled` for the target, or leave it out")
        if sum(domain.labelled_share or 0.0 for domain in self.domains("target")) >= 1:
            raise ValueError("target: the `labelled_share` of all domains must be less than 1 together. Lower them")
        return self

    def _need_different(self, side: str) -> None:
        """Raise ValueError where the same data is listed twice: its images would count twice, in scores as well."""
        seen: dict[str, str] = {}
        for name, domain in self.named(side).items():
            read = domain.model_dump(mode="json", exclude=NOT_ABOUT_FILES)
            read["root"] = str(domain.root.resolve())  # as it is written: a ~ that leads nowhere is told elsewhere
            other = seen.setdefault(repr(read), name)
            if domain.given and other != name:
                raise ValueError(
                    f"{side}: '{other}' and '{name}' are the same data. List it once (`share` weights a domain)"
                )

    def domains(self, side: str) -> tuple[DomainSettings, ...]:
        """The domains of "source" or "target", in order."""
        found: DomainSettings | tuple[DomainSettings, ...] = getattr(self, side)
        return found if isinstance(found, tuple) else (found,)

    def named(self, side: str) -> dict[str, DomainSettings]:
        """The domains of "source" or "target" by name: their own, else their layout's, with a number if need be."""
        domains = self.domains(side)
        if len(domains) == 1:
            return {"": domains[0]}
        taken, names = {domain.name for domain in domains}, Counter[str]()
        found = {}
        for domain in domains:
            name = domain.name or domain.layout
            while domain.name is None and (name in taken or name in found):
                names[domain.layout] += 1
                name = f"{domain.layout}_{names[domain.layout] + 1}"
            found[name] = domain
        return found

    def given(self, side: str) -> bool:
        """Whether nothing of a side is left open."""
        return all(domain.given for domain in self.domains(side))

    @property
    def few_labels(self) -> bool:
        """Whether trainings may learn from some labels of the target."""
        return any(domain.labelled is not None for domain in self.domains("target"))


def open_side(
    domains: Domains,
    space: LabelSpace,
    split: str,
    size: tuple[int, int],
    augment: Augmentation | None = None,
    labels: bool = True,
) -> TrainingData:
    """The data of one split: see `open_domain`; of several domains all, joined. Raises UsageError."""
    return joined(
        {name: open_domain(domain, space, split, size, augment, labels) for name, domain in domains.items()}, domains
    )


def joined(parts: Mapping[str, SegmentationDataset], domains: Domains) -> TrainingData:
    """The data sets of some of the `domains`, by name: itself, where there is one domain in all; else joined.

    Names of images then begin with their domain's, so that none occurs twice.
    """
    if list(domains) == [""]:
        return parts[""]
    named = [
        replace(part, pairs=[replace(pair, name=f"{name}/{pair.name}") for pair in part.pairs])
        for name, part in parts.items()
    ]
    shares = [domains[name].share for name in parts]
    given = tuple(share for share in shares if share is not None)
    return JoinedDataset(tuple(named), given if len(given) == len(named) else None, tuple(parts))


def by_domain(data: TrainingData | None) -> dict[str, SegmentationDataset]:
    """The data sets of `joined` by the names of their domains."""
    if data is None:
        return {}
    names = data.names if isinstance(data, JoinedDataset) and data.names is not None else ("",)
    return dict(zip(names, data.leaves, strict=True))


def score_name(side: str, name: str) -> str:
    """The name of a domain's scores: its side, where that has one domain; else as `target.acdc`."""
    return f"{side}.{name}" if name else side


def exif_of(data: TrainingData | None) -> Exif:
    """Whether its images are turned. Raises UsageError where that differs between domains."""
    assert data is not None
    found = {leaf.exif for leaf in data.leaves}
    if len(found) > 1:
        raise UsageError(
            "differs between domains whose images are processed together",
            where="exif",
            remedy="Give them one `exif`, or turn the images of one.",
        )
    return found.pop()

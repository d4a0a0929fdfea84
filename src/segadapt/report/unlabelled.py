"""A target without labels: models' predictions on it, where they differ, and the label-free criteria.

None of this is a score. It shows which classes a model uses and how confident it is, what adaptation changed, and
which images to look at first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.evaluation.criteria import CRITERIA
from segadapt.evaluation.evaluate import spread
from segadapt.inference.predictor import Predictor
from segadapt.report import tables
from segadapt.report.extremes import marked
from segadapt.report.images import Budget, Picture, Row, label_map, photo, size_on_page, taken
from segadapt.report.looking import Looking
from segadapt.report.records import RunRecord

UNSURE = 0.5
IN_USE = 1e-3  # of the pixels: a class with fewer is not in use
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Said:
    """One model's predictions over all images."""

    shares: NDArray[np.float64]  # of the classes among all pixels, (C,)
    confidence: float  # mean probability of the predicted class
    unsure: float  # share of pixels with a confidence below UNSURE
    criteria: dict[str, float]


@dataclass(frozen=True)
class Seen:
    """The models' predictions on some images."""

    images: int
    of: int  # number of images available
    said: dict[str, Said]  # by stage
    differ: dict[tuple[str, str], float]  # stages -> share of the pixels in which their labels differ
    by_image: tuple[tuple[float, int], ...]  # (mean of that over all pairs, index), least agreement first


class _Sums:
    """Running sums of one model."""

    def __init__(self, classes: int) -> None:
        self.shares = np.zeros(classes)
        self.confidence, self.unsure = [], []  # type: tuple[list[float], list[float]]
        self.criteria = {name: make(classes) for name, make in CRITERIA.items()}

    def add(self, predictor: Predictor, image: Labels, size: tuple[int, int]) -> Labels:
        """Add one image; returns its labels at `size` (W, H)."""
        logits = predictor.logits(image)
        for criterion in self.criteria.values():
            criterion.add(logits)
        confidence = logits.softmax(dim=1).amax(dim=1)
        self.confidence.append(float(confidence.mean()))
        self.unsure.append(float((confidence < UNSURE).to(torch.float32).mean()))
        labels = predictor.label_map_from(logits, size).cpu().numpy()
        self.shares += np.bincount(labels.ravel(), minlength=len(self.shares)) / labels.size
        return labels

    def said(self) -> Said:
        """The result over all images so far."""
        criteria = {name: criterion.value() for name, criterion in self.criteria.items()}
        return Said(
            self.shares / len(self.confidence), float(np.mean(self.confidence)), float(np.mean(self.unsure)), criteria
        )


def see(looking: Looking, count: int) -> Seen | None:
    """Predict up to `count` images, evenly spread, with all models; None without images or models."""
    predictors = {name: own for name, (own, space) in looking.predictors.items() if space == looking.space}
    indices = spread(len(looking.dataset), count)
    if not predictors or not indices:
        return None
    sums = {name: _Sums(len(looking.space)) for name in predictors}
    differ = dict.fromkeys(combinations(predictors, 2), 0.0)
    by_image = []
    for index in indices:
        image = looking.dataset.image(index)
        size = size_on_page(image.shape[1], image.shape[0])
        labels = {name: sums[name].add(own, image, size) for name, own in predictors.items()}
        shares = {(one, two): float((labels[one] != labels[two]).mean()) for one, two in differ}
        for pair, share in shares.items():
            differ[pair] += share / len(indices)
        by_image.append((sum(shares.values()) / max(1, len(shares)), index))
    said = {name: own.said() for name, own in sums.items()}
    worst = tuple(sorted(by_image, reverse=True)) if differ else ()
    return Seen(len(indices), len(looking.dataset), said, differ, worst)


def summary_table(run: RunRecord, seen: Seen) -> str:
    """A line per stage: confidence, classes in use, the criteria, difference from source-only."""
    rows = []
    best = {name: max((own.criteria[name] for own in seen.said.values()), default=0.0) for name in CRITERIA}
    baseline = _baseline(run, seen)
    for name, own in seen.said.items():
        cells = {
            "stage": f'<span class="dot"></span>{escape(name)}',
            "mean confidence": tables.bar(100 * own.confidence),
            f"unsure (below {UNSURE:g})": f"{100 * own.unsure:.1f} %",
            "classes in use": str(int((own.shares > IN_USE).sum())),
        }
        for criterion, value in own.criteria.items():
            text = tables.number(value, 3)
            cells[criterion] = f"<b>{text}</b>" if value == best[criterion] and len(seen.said) > 1 else text
        if baseline is not None:
            differs = _between(seen, baseline, name)
            cells["differs from source-only"] = tables.NOTHING if differs is None else f"{100 * differs:.1f} %"
        role = next((stage.role for stage in run.stages if stage.name == name), "")
        rows.append(tables.Row(cells, role))
    return tables.table(rows, wide=True)


def shares_table(looking: Looking, run: RunRecord, seen: Seen) -> str:
    """Per class: its share of all pixels by each stage, with the difference to source-only."""
    baseline = _baseline(run, seen)
    rows = []
    for number, name in enumerate(looking.space.classes):
        cells, base = {"class": tables.swatch(name, looking.space) + escape(name)}, None
        if baseline is not None:
            base = 100 * seen.said[baseline].shares[number]
        for stage, own in seen.said.items():
            share = 100 * own.shares[number]
            cells[f"{escape(stage)} (%)"] = f"{share:.2f}"
            if base is not None and stage != baseline and abs(share - base) >= 0.005:
                cells[f"{escape(stage)} (%)"] += f"<small>{share - base:+z.2f}</small>"
        rows.append(tables.Row(cells))
    return tables.table(rows, wide=True)


def disagreement_table(seen: Seen) -> str:
    """Percentage of pixels in which the labels of two stages differ; empty for fewer than three stages."""
    if len(seen.said) < 3:
        return ""
    heads = "".join(f"<th><span>{escape(name)}</span></th>" for name in seen.said)
    lines = [f"<tr><th></th>{heads}</tr>"]
    for one in seen.said:
        cells = ""
        for two in seen.said:
            share = _between(seen, one, two)
            text = "" if share is None else f"{100 * share:.0f}"
            cells += f'<td style="--share: {share or 0:.2f}">{text}</td>'
        lines.append(f"<tr><th>{escape(one)}</th>{cells}</tr>")
    return f'<div class="scroll"><table class="matrix">{"".join(lines)}</table></div>'


def worst_agreed(looking: Looking, seen: Seen, count: int, budget: Budget, problems: list[str]) -> list[Row]:
    """The images on which the stages agree least: the labels of each, and where they differ."""
    worst = [(share, index) for share, index in seen.by_image if share > 0][:count]
    return taken((partial(_row, looking, list(seen.said), index, share) for share, index in worst), budget, problems)


def _row(looking: Looking, stages: Sequence[str], index: int, share: float) -> Row:
    image = looking.dataset.image(index)
    size = size_on_page(image.shape[1], image.shape[0])
    labels = {name: looking.predictors[name][0].labels(image, size) for name in stages}
    first = labels[stages[0]]
    differ = np.any([own != first for own in labels.values()], axis=0)
    shown = [Picture("image", photo(Image.fromarray(image)))]
    shown += [Picture(name, label_map(own, looking.space, size)) for name, own in labels.items()]
    shown.append(Picture("red: not all agree", photo(marked(image, differ, np.zeros_like(differ)), size)))
    return Row(f"{looking.name_of(index)}: two stages differ in {100 * share:.0f} % of the pixels", shown)


def _baseline(run: RunRecord, seen: Seen) -> str | None:
    return next((stage.name for stage in run.compared() if stage.role == "baseline" and stage.name in seen.said), None)


def _between(seen: Seen, one: str, two: str) -> float | None:
    """Share of the pixels in which two stages differ; None for a stage and itself."""
    return seen.differ.get((one, two), seen.differ.get((two, one)))

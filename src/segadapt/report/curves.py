"""The report's curves: one training, step by step, as small plots with one quantity each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from segadapt.evaluation.pictures import Drawing
from segadapt.report.records import StageRecord

POINTS = 200  # of a curve; more steps are averaged in groups
SMOOTH = 40  # points from which a loss is drawn pale, with its moving mean over it
COLOURS = ("#2a78d6", "#e0822b", "#1f9467", "#b65fcf", "#d0483c", "#6f7b8c")
LOG_RATIO = 20.0  # positive values that differ by more get a logarithmic axis; the extreme twentieths do not count
TARGET, SOURCE = COLOURS[0], COLOURS[5]
INCHES = (3.2, 2.0)
AREA = (0.14, 0.2, 0.81, 0.71)  # of the axes in a figure: left, bottom, width, height

Values = NDArray[np.float64]
Curve = tuple[str, Values, Values]
"""Name, steps, values."""


@dataclass(frozen=True)
class Panel:
    """One plot: its title, the names and colours of its curves where there are several, and how it is drawn."""

    title: str
    legend: tuple[tuple[str, str], ...]
    draw: Drawing


def training_panels(stage: StageRecord) -> list[Panel]:
    """Each loss, validation mIoU, InfoMax and learning rates over the steps; none when nothing was recorded.

    Losses whose names differ only in their number (of the two heads of a network) share a plot.
    """
    keys = list(dict.fromkeys(key for line in stage.metrics for key in line))
    losses = [key.removeprefix("loss/") for key in keys if key.startswith("loss/")]
    if len(losses) == 2 and "total" in losses:
        losses.remove("total")  # it equals the other one
    found = []
    for stem in dict.fromkeys(name.rstrip("0123456789") for name in losses):
        curves = [_curve(stage, f"loss/{name}") for name in losses if name.rstrip("0123456789") == stem]
        title = "Weighted sum of the losses" if stem == "total" else f"Loss: {stem}"
        found.append(_panel(title, curves, COLOURS, _losses))
    evaluated = {key for key in keys if len(stage.series(key)[0]) > 1}  # a single point is not a curve
    scores = [_curve(stage, key) for key in ("val/target_miou", "val/source_miou") if key in evaluated]
    if scores:
        named = [(name.removesuffix("_miou"), steps, values) for name, steps, values in scores]
        colours = [TARGET if name == "target" else SOURCE for name, _, _ in named]
        found.append(_panel("Validation mIoU (%)", named, colours, _scores))
    if "val/infomax" in evaluated:
        found.append(_panel("InfoMax (nats); ring: highest", [_curve(stage, "val/infomax")], COLOURS, _infomax))
    if {"val/infomax", "val/target_miou"} <= evaluated:
        found.append(Panel("Target mIoU over InfoMax; pale: early", (), _figure(lambda axes: _both(axes, stage))))
    rates = _merged([_curve(stage, key) for key in keys if key.startswith("lr/")])
    if rates:
        peaks = [values.max(initial=0.0) for _, _, values in rates]
        apart = max(peaks) > LOG_RATIO * min(peaks) > 0  # on a shared linear axis the small ones would look like 0
        found.append(_panel("Learning rate", rates, COLOURS, _rates_apart if apart else _rates))
    return found


def _curve(stage: StageRecord, key: str) -> Curve:
    steps, values = stage.series(key)
    return key.partition("/")[2], *_thinned(steps, values)


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[Values, Values]:
    """At most POINTS points: means over groups of neighbouring steps."""
    groups = min(POINTS, len(steps))
    if groups == 0:
        return np.zeros(0), np.zeros(0)
    parts = [np.array_split(np.asarray(series, dtype=np.float64), groups) for series in (steps, values)]
    means = [np.array([part.mean() for part in split]) for split in parts]
    return means[0], means[1]


def _merged(curves: Sequence[Curve]) -> list[Curve]:
    """Identical curves are merged into one with all their names."""
    found: list[Curve] = []
    for name, steps, values in curves:
        for place, (names, _, before) in enumerate(found):
            if np.array_equal(before, values):
                found[place] = (f"{names}, {name}", steps, values)
                break
        else:
            found.append((name, steps, values))
    return found


def _panel(
    title: str, curves: Sequence[Curve], colours: Sequence[str], plot: Callable[[Axes, Values, Values, str], None]
) -> Panel:
    """Curves over the steps."""
    coloured = [(curve, colours[number % len(colours)]) for number, curve in enumerate(curves)]

    def draw(axes: Axes) -> None:
        for (_, steps, values), colour in coloured:
            plot(axes, steps, values, colour)
        axes.set_xlabel("step", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    legend = tuple((name, colour) for (name, _, _), colour in coloured) if len(curves) > 1 else ()
    return Panel(title, legend, _figure(draw))


def _figure(plot: Callable[[Axes], None]) -> Drawing:
    def draw(figure: Figure, ink: str) -> None:
        figure.set_size_inches(*INCHES)
        figure.set_layout_engine("none")  # the same area in all plots, and a third of the time
        plot(figure.add_axes(AREA))

    return draw


def _log_if_wide(axes: Axes, values: Values) -> None:
    """A logarithmic axis for positive values of very different size."""
    if len(values) and values.min() > 0:
        low, high = np.quantile(values, (0.05, 0.95))
        if high > LOG_RATIO * low:
            axes.set_yscale("log")


def _losses(axes: Axes, steps: Values, values: Values, colour: str) -> None:
    _log_if_wide(axes, values)
    if len(values) < SMOOTH:
        axes.plot(steps, values, color=colour, linewidth=1.4)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.4)
    window = np.ones(len(values) // 12)
    mean = np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
    axes.plot(steps, mean, color=colour, linewidth=1.6)


def _scores(axes: Axes, steps: Values, values: Values, colour: str) -> None:
    axes.plot(steps, values, "o-", markersize=3, color=colour)


def _infomax(axes: Axes, steps: Values, values: Values, colour: str) -> None:
    _scores(axes, steps, values, colour)
    if len(steps):
        best = int(np.argmax(values))
        axes.plot(steps[best], values[best], "o", markersize=9, fillstyle="none", color=COLOURS[1])


def _rates(axes: Axes, steps: Values, values: Values, colour: str) -> None:
    axes.plot(steps, values, color=colour)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _rates_apart(axes: Axes, steps: Values, values: Values, colour: str) -> None:
    axes.plot(steps, values, color=colour)
    axes.set_yscale("log")


def _both(axes: Axes, stage: StageRecord) -> None:
    """Target mIoU over InfoMax, a dot per evaluation."""
    miou = dict(zip(*stage.series("val/target_miou"), strict=True))
    infomax = dict(zip(*stage.series("val/infomax"), strict=True))
    steps = [step for step in infomax if step in miou]
    if steps:
        colours = [to_rgba(TARGET, 0.25 + 0.75 * step / max(steps)) for step in steps]
        axes.scatter([infomax[step] for step in steps], [miou[step] for step in steps], c=colours, s=24)
    axes.set_xlabel("InfoMax", fontsize=8)

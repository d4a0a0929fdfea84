"""Figures of a comparison: scores with their intervals over seeds, and IoU per class as a table of colours."""

import math
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segadapt.evaluation.pictures import SEQUENTIAL, Drawing
from segadapt.report.compare import Comparison, Row

COLOURS = {"baseline": "#7d8797", "adapted": "#2a78d6", "upper_bound": "#1f9467", "evaluation": "#6f7b8c"}
ROW = 0.3  # inches


def scores_figure(compared: Comparison, width: float = 5.6) -> Drawing:
    """The chosen score, a line per row: a small dot per seed, a large one for the mean, the 95 % interval as a bar."""

    def draw(figure: Figure, ink: str) -> None:
        rows = [row for row in compared.rows if row.scores.get(compared.metric) is not None]
        places = _places(rows, len(compared.groups) > 1)
        figure.set_size_inches(width, 0.75 + ROW * (max(places, default=0) + 1))
        axes = figure.add_subplot()
        for place, row in zip(places, rows, strict=True):
            _draw_row(axes, place, row, compared.metric, ink)
        axes.set_yticks(places, [f"{row.stage}  " + _count(row, compared.metric) for row in rows])
        if len(compared.groups) > 1:
            for name, own in groupby(zip(places, rows, strict=True), lambda pair: pair[1].group):
                top = next(own)[0]
                axes.annotate(
                    name,
                    (0, top - 0.95),
                    (4, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    fontweight="bold",
                    fontsize=8.5,
                )
        axes.set_ylim(max(places, default=0) + 0.6, -1.5 if len(compared.groups) > 1 else -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{compared.metric_title} on {compared.domain} (%)")

    return draw


def _places(rows: list[Row], headed: bool) -> list[float]:
    """Positions of rows, from the top, with space between groups that have a heading."""
    places, place = [], 0.0
    for number, row in enumerate(rows):
        if headed and number and row.group != rows[number - 1].group:
            place += 1.3
        places.append(place)
        place += 1.0
    return places


def _draw_row(axes: Axes, place: float, row: Row, metric: str, ink: str) -> None:
    spread, colour = row.scores[metric], COLOURS.get(row.role, ink)
    assert spread is not None
    if spread.interval is not None:
        axes.plot(spread.interval, (place, place), color=colour, linewidth=5, alpha=0.25, solid_capstyle="round")
        axes.plot(spread.values, [place] * spread.n, "o", color=colour, markersize=3.2, fillstyle="none")
    axes.plot(spread.mean, place, "o", color=colour, markersize=6.5)
    axes.annotate(
        spread.text(1),
        (max(*spread.values, (spread.interval or (0, 0))[1]), place),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    axes.margins(x=0.2)


def _count(row: Row, metric: str) -> str:
    spread = row.scores[metric]
    return "" if spread is None else f"(n = {spread.n})"


def classes_figure(compared: Comparison) -> Drawing:
    """IoU of each class (columns) for each row, means over seeds, as numbers on colours from 0 to 100.

    Bold is the best of the models that used no target labels.
    """

    def draw(figure: Figure, ink: str) -> None:
        rows, names = compared.rows, [*compared.classes, "mIoU"]
        keys = [*(f"iou {name}" for name in compared.classes), "miou"]
        means = np.array([[_mean(row, key) for key in keys] for row in rows], dtype=np.float64)
        figure.set_size_inches(1.6 + 0.36 * len(names), 1.1 + ROW * len(rows))
        axes = figure.add_subplot()
        axes.imshow(means, cmap=SEQUENTIAL, vmin=0, vmax=100, aspect="auto")
        contest = [row.used_target_labels is False and row.role != "upper_bound" for row in rows]
        for line, column in zip(*np.nonzero(~np.isnan(means)), strict=True):
            value = means[line, column]
            best = sum(contest) > 1 and contest[line] and value == np.nanmax(means[contest, column])
            weight, colour = ("bold" if best else "normal"), ("white" if value > 62 else ink)
            axes.text(column, line, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour, weight=weight)
        several = len(compared.groups) > 1
        axes.set_yticks(range(len(rows)), [f"{row.group}: {row.stage}" if several else row.stage for row in rows])
        axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
        axes.axvline(len(compared.classes) - 0.5, color=ink, linewidth=1)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"IoU on {compared.domain} (%)", loc="left", fontsize=9)

    return draw


def _mean(row: Row, key: str) -> float:
    spread = row.scores.get(key)
    return math.nan if spread is None else spread.mean

"""The report's curves: what one training did, step by step."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segadapt.evaluation.pictures import Drawing
from segadapt.evaluation.records import StageRecord

POINTS = 300  # of a loss curve; more steps are averaged in groups
COLOURS = ("#2a78d6", "#e0822b", "#1f9467", "#b65fcf", "#d0483c", "#6f7b8c")
LOG_RATIO = 30.0  # losses whose typical sizes differ by more share a logarithmic axis
TARGET, SOURCE = COLOURS[0], COLOURS[5]

Panel = Callable[[Axes], None]


def draw_training(stage: StageRecord) -> Drawing | None:
    """Losses, validation mIoU, InfoMax and learning rates over the steps; None when nothing was recorded."""
    panels = _panels(stage)
    if not panels:
        return None
    across = min(3, len(panels))
    down = -(-len(panels) // across)

    def draw(figure: Figure, ink: str) -> None:
        figure.set_size_inches(3.9 * across, 2.6 * down)
        for place, (title, panel) in enumerate(panels, start=1):
            axes = figure.add_subplot(down, across, place)
            axes.set_title(title, loc="left", fontsize=10)
            panel(axes)
            if len(axes.get_legend_handles_labels()[1]) > 1:
                axes.legend(frameon=False, fontsize=8)

    return draw


def _panels(stage: StageRecord) -> list[tuple[str, Panel]]:
    """(title, what to draw) of all that was recorded."""
    keys = list(dict.fromkeys(key for line in stage.metrics for key in line))
    losses = [key for key in keys if key.startswith("loss/")]
    if len(losses) == 2:
        losses.remove("loss/total")  # it is the other one
    rates = [key for key in keys if key.startswith("lr/")]
    found: list[tuple[str, Panel]] = []
    if losses:
        title = "Loss" if len(losses) == 1 else "Losses (unweighted; total weighted)"
        found.append((title, lambda axes: _losses(axes, stage, losses)))
    if "val/target_miou" in keys or "val/source_miou" in keys:
        found.append(("Validation mIoU (%)", lambda axes: _scores(axes, stage)))
    if "val/infomax" in keys:
        found.append(("InfoMax (nats, without labels); ring: highest", lambda axes: _infomax(axes, stage)))
    if "val/infomax" in keys and "val/target_miou" in keys:
        found.append(("InfoMax against target mIoU", lambda axes: _against(axes, stage)))
    if rates:
        found.append(("Learning rate", lambda axes: _rates(axes, stage, rates)))
    return found


def _losses(axes: Axes, stage: StageRecord, keys: list[str]) -> None:
    typical = []
    for key, colour in zip(keys, COLOURS * len(keys), strict=False):
        steps, values = _thinned(*stage.series(key))
        axes.plot(steps, values, color=colour, linewidth=1.2, label=key.removeprefix("loss/"))
        if len(values) and np.median(values) > 0:
            typical.append(float(np.median(values)))
    if typical and max(typical) / min(typical) > LOG_RATIO:
        axes.set_yscale("log")
    _steps(axes)


def _scores(axes: Axes, stage: StageRecord) -> None:
    for key, colour in (("target", TARGET), ("source", SOURCE)):
        steps, values = stage.series(f"val/{key}_miou")
        if steps:
            axes.plot(steps, values, "o-", markersize=3, color=colour, label=key)
    _steps(axes)


def _infomax(axes: Axes, stage: StageRecord) -> None:
    steps, values = stage.series("val/infomax")
    axes.plot(steps, values, "o-", markersize=3, color=TARGET)
    if steps:
        best = int(np.argmax(values))
        axes.plot(steps[best], values[best], "o", markersize=8, fillstyle="none", color=COLOURS[1])
    _steps(axes)


def _against(axes: Axes, stage: StageRecord) -> None:
    miou = dict(zip(*stage.series("val/target_miou"), strict=True))
    infomax = dict(zip(*stage.series("val/infomax"), strict=True))
    steps = [step for step in infomax if step in miou]
    if steps:
        across, up = [infomax[step] for step in steps], [miou[step] for step in steps]
        axes.scatter(across, up, c=steps, cmap="Blues", vmin=-0.6 * max(steps), s=22, edgecolors=TARGET, linewidths=0.6)
    axes.set_xlabel("InfoMax; darker = later", fontsize=8)


def _rates(axes: Axes, stage: StageRecord, keys: list[str]) -> None:
    for key, colour in zip(keys, COLOURS * len(keys), strict=False):
        steps, values = _thinned(*stage.series(key))
        axes.plot(steps, values, color=colour, label=key.removeprefix("lr/"))
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _steps(axes)


def _steps(axes: Axes) -> None:
    axes.set_xlabel("step", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _thinned(steps: list[int], values: list[float]) -> tuple[list[float], list[float]]:
    """At most POINTS points: means over groups of neighbouring steps."""
    groups = min(POINTS, len(steps))
    if groups == 0:
        return [], []
    parts = [np.array_split(np.asarray(series, dtype=np.float64), groups) for series in (steps, values)]
    return [float(part.mean()) for part in parts[0]], [float(part.mean()) for part in parts[1]]

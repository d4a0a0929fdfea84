"""Whether a model's confidence can be trusted: reliability diagrams."""

from html import escape

import numpy as np
from matplotlib.figure import Figure

from segadapt.evaluation.calibration import expected_calibration_error
from segadapt.evaluation.pictures import Drawing, as_svg
from segadapt.plain_data import Json
from segadapt.report.records import RunRecord, StageRecord, mapping

COLOURS = {"baseline": "#7d8797", "adapted": "#2a78d6", "upper_bound": "#1f9467"}
FEWEST = 1e-4  # share of the pixels: a bin with less is just noise


def diagrams(run: RunRecord) -> str:
    """One per compared stage; none for stages scored by a version that did not count it."""
    shown = []
    for number, stage in enumerate(run.compared()):
        counted = mapping((stage.domain("target") or {}).get("calibration"))
        error = expected_calibration_error(counted) if counted else None
        if error is None:
            continue
        title = f"<b>{escape(stage.name)}</b><span>ECE {error:.1f} %</span>"
        svg = as_svg(f"calibration-{number}", _diagram(counted, stage))
        shown.append(f"<figure><figcaption>{title}</figcaption>{svg}</figure>")
    return f'<div class="curves">{"".join(shown)}</div>' if shown else ""


def _diagram(counted: Json, stage: StageRecord) -> Drawing:
    pixels, right, confidence = (np.asarray(counted[key], np.float64) for key in ("pixels", "right", "confidence"))
    bins = len(pixels)
    shown = pixels > FEWEST * pixels.sum()
    colour = COLOURS.get(stage.role, "#6f7b8c")

    def draw(figure: Figure, ink: str) -> None:
        figure.set_size_inches(3.2, 2.5)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.14, 0.17, 0.81, 0.78))
        axes.bar((np.arange(bins) + 0.5) / bins, pixels / pixels.sum(), 0.9 / bins, color=ink, alpha=0.12)
        axes.plot((0, 1), (0, 1), "--", color=ink, linewidth=0.8, alpha=0.5)
        axes.plot(confidence[shown] / pixels[shown], right[shown] / pixels[shown], "o-", markersize=3.5, color=colour)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence", fontsize=8)
        axes.set_ylabel("right", fontsize=8)

    return draw

"""Pictures of results: the confusion matrix, curves, the attention map. matplotlib figures without global state."""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from segadapt.files import write_with

INK = "#123abc"
"""Colour of text and lines in figures for web pages; `as_svg` turns it into the page's own text colour."""
SEQUENTIAL = LinearSegmentedColormap.from_list("segadapt", ["#2a78d600", "#2a78d6ff"])
"""From transparent to blue, so that a matrix fits a light and a dark page."""
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}
_INKED = (
    "text.color",
    "axes.edgecolor",
    "axes.labelcolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
    "grid.color",
)

Drawing = Callable[[Figure, str], None]
"""Draws into an empty figure, whose size it sets, with text and lines in the given colour."""


def as_png(path: Path, draw: Drawing) -> None:
    """Write a drawing as PNG, black on white, whole or not at all."""
    with _style("black"):
        figure = Figure(layout="constrained")
        draw(figure, "black")
        write_with(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


def as_figure(path: Path, draw: Drawing) -> None:
    """Write a drawing for a paper, black on white, whole or not at all: .svg and .pdf with their own fonts, .png."""
    form = path.suffix.lower().removeprefix(".")
    with _style("black"), mpl.rc_context({"svg.fonttype": "path", "pdf.fonttype": 42}):
        figure = Figure(layout="constrained")
        draw(figure, "black")
        dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        write_with(path, lambda file: figure.savefig(file, format=form, dpi=300, metadata=dates.get(form)))


def as_svg(name: str, draw: Drawing) -> str:
    """A drawing as an <svg> element that scales with its page; `name` keeps its ids apart from other drawings'."""
    buffer = io.StringIO()
    with _style(INK):
        figure = Figure(layout="constrained")
        draw(figure, INK)
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set(facecolor="none", edgecolor="none")
        # `savefig` would draw everything once more beforehand for the layout, which drawing computes anyway.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    size = re.search(r'<svg[^>]*? width="([\d.]+)pt"', text)
    assert size is not None
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[\d.]+pt"', "", head)
    return f'{head} role="img" style="max-width: {float(size[1]) * 4 / 3:.0f}px">{rest}'


@contextmanager
def _style(ink: str) -> Iterator[None]:
    settings: Any = {**_STYLE, "svg.hashsalt": "segadapt", **dict.fromkeys(_INKED, ink)}
    with mpl.rc_context(settings):
        yield


def draw_confusion(
    counts: Sequence[Sequence[int]] | NDArray[np.int64], classes: Sequence[str], columns: Sequence[str], title: str
) -> Drawing:
    """How the pixels of each class (row) were predicted, in percent of the row; a row without pixels is empty."""
    matrix = np.asarray(counts, dtype=np.float64)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(100 * matrix, totals, out=np.full(matrix.shape, math.nan), where=totals > 0)

    def draw(figure: Figure, ink: str) -> None:
        figure.set_size_inches(1.6 + 0.42 * len(columns), 1.5 + 0.42 * len(classes))
        axes = figure.add_subplot()
        axes.imshow(shares, cmap=SEQUENTIAL, vmin=0, vmax=100, aspect="equal")
        for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.5), strict=True):
            share = shares[row, column]
            colour = "white" if share > 60 else ink
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(visible=False)
        axes.grid(which="minor")
        axes.spines[:].set_visible(False)
        axes.tick_params(which="both", length=0)

    return draw


def attention_picture(attention: NDArray[np.float32]) -> Image.Image:
    """Attention (H, W) in 0 … 1 as a colour map, stretched over the values that occur: dark low, bright high."""
    low, high = float(attention.min()), float(attention.max())
    stretched = (attention - low) / max(high - low, 1e-6)
    return Image.fromarray(mpl.colormaps["magma"](stretched, bytes=True)[..., :3])


def confidence_picture(confidence: NDArray[np.float32]) -> Image.Image:
    """The probability of the predicted class (H, W) in 0 … 1 as a colour map: dark for unsure, bright for sure."""
    return Image.fromarray(mpl.colormaps["viridis"](confidence, bytes=True)[..., :3])

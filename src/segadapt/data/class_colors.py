"""Colours for classes that have none: far from each other and from those that are given, on dark and light pictures.

First those that people of any colour vision tell apart, then greedily: each class takes the colour that is farthest
from all that are taken already. All in whole numbers, so that a label space has the same colours, and so the same
digest, on every machine.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

_FIRST: tuple[Color, ...] = (
    *((213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167), (0, 114, 178), (230, 159, 0)),
)
"""The colours of Okabe and Ito (2008) but black, in an order that sets neighbours apart."""
_APART = 4_500_000  # `_distances` from a taken colour at which one of those will do: the nearest two of them
_LEVELS = np.arange(0, 256, 15)
_DARK, _LIGHT = 60, 200  # luma (ITU-R BT.601) of what can be seen on a dark and on a light picture
_COLOURFUL = 90  # at least, from the smallest to the largest channel: streets are grey
_TAKEN: tuple[Color, ...] = ((0, 0, 0), (255, 255, 255), (128, 128, 128))
"""Ignored pixels are black; paper is white; most pictures are grey."""


def automatic_colors(given: Sequence[Color | None]) -> list[Color]:
    """The colours of classes in order, with one for each None; those of the first classes do not depend on how many
    come after them. Distinct as long as there are candidates (some 3,800)."""
    candidates = np.concatenate([np.array(_FIRST), _candidates()])
    distance = np.full(len(candidates), np.iinfo(np.int64).max)
    for taken in (*_TAKEN, *(color for color in given if color is not None)):
        distance = np.minimum(distance, _distances(candidates, taken))
    colors: list[Color] = []
    for color in given:
        if color is None:
            first = np.flatnonzero(distance[: len(_FIRST)] >= _APART)
            chosen = candidates[first[0] if len(first) else distance.argmax()]
            color = (int(chosen[0]), int(chosen[1]), int(chosen[2]))
            distance = np.minimum(distance, _distances(candidates, color))
        colors.append(color)
    return colors


def _candidates() -> NDArray[np.int64]:
    """(N, 3): colours on a grid that can be seen on any picture."""
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int64)
    luma = grid @ np.array([299, 587, 114]) // 1000
    colourful = grid.max(axis=1) - grid.min(axis=1) >= _COLOURFUL
    return np.asarray(grid[(luma >= _DARK) & (luma <= _LIGHT) & colourful])


def _distances(colors: NDArray[np.int64], color: Color) -> NDArray[np.int64]:
    """Squared differences as the eye weighs them, in whole numbers (the "redmean" of compuphase.com, times 256)."""
    red, green, blue = (colors - np.array(color)).T
    mean = (colors[:, 0] + color[0]) // 2
    distances: NDArray[np.int64] = np.asarray((512 + mean) * red**2 + 1024 * green**2 + (767 - mean) * blue**2)
    return distances

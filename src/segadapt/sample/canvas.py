"""A pinhole camera over a flat street, and a canvas that paints colours, labels and distances at once.

World coordinates in metres: x to the right, y up from the street, z forward from the camera, which is at x = z = 0.
Everything is painted far to near, twice as large as the picture; `Canvas.finish` then averages the colours and picks
the labels, so that edges look smooth and the labels stay exact.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float, float]

SUPERSAMPLE = 2
NEAREST = (
    1.0  # metres: closer points are moved to this distance, which is outside the picture for objects beside the road
)
DISTANCE_SCALE = 40.0  # metres: distances are kept as 255·(1 − exp(−z / scale)) in 8 bits
SKY_DISTANCE = 255


def shade(color: Color, factor: float) -> Color:
    """`color` times `factor`, clipped to 0..255."""
    red, green, blue = color
    return (
        max(0, min(255, round(red * factor))),
        max(0, min(255, round(green * factor))),
        max(0, min(255, round(blue * factor))),
    )


def mix(first: Color, second: Color, share: float) -> Color:
    """The colour `share` (0..1) of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return (red, green, blue)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along z; all lengths of the picture in its own pixels."""

    focal: float
    center: float  # column of the vanishing point
    horizon: float  # row of the horizon
    height: float  # metres above the street

    def project(self, point: Point) -> tuple[float, float]:
        """A point of the world -> (column, row)."""
        x, y, z = point
        scale = self.focal / max(z, NEAREST)
        return self.center + x * scale, self.horizon + (self.height - y) * scale


@dataclass(frozen=True)
class Face:
    """An upright rectangle between two points of the street plan (x, z), from height `low` to `high`."""

    start: tuple[float, float]
    end: tuple[float, float]
    low: float
    high: float

    @property
    def width(self) -> float:
        """Length along the ground in metres."""
        return math.dist(self.start, self.end)

    @property
    def distance(self) -> float:
        """Distance of the middle in metres."""
        return (self.start[1] + self.end[1]) / 2

    def patch(self, left: float, right: float, bottom: float, top: float) -> list[Point]:
        """The corners of a part, in shares of width and height."""
        (x, z), (x2, z2), tall = self.start, self.end, self.high - self.low
        dx, dz, low, high = x2 - x, z2 - z, self.low + tall * bottom, self.low + tall * top
        x1, x2, z1, z2 = x + dx * left, x + dx * right, z + dz * left, z + dz * right
        return [(x1, low, z1), (x2, low, z2), (x2, high, z2), (x1, high, z1)]


class Canvas:
    """What the camera sees, painted far to near: each shape with its colour, label id and distance."""

    def __init__(self, size: tuple[int, int], camera: Camera) -> None:
        self.size, self.camera = size, camera
        width, height = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self._colors = Image.new("RGB", (width, height))
        self._codes = Image.new("LA", (width, height), (0, SKY_DISTANCE))  # label id, distance code
        self._pen = ImageDraw.Draw(self._colors)
        self._marker = ImageDraw.Draw(self._codes)

    def _columns_rows(self, points: Iterable[Point]) -> list[tuple[float, float]]:
        """As `Camera.project`, on the canvas; inlined, since most of a picture's time is spent here."""
        camera = self.camera
        focal, height = camera.focal * SUPERSAMPLE, camera.height
        center, horizon = camera.center * SUPERSAMPLE, camera.horizon * SUPERSAMPLE
        scaled = [(x, height - y, focal / (z if z > NEAREST else NEAREST)) for x, y, z in points]
        return [(center + x * scale, horizon + down * scale) for x, down, scale in scaled]

    def shape(self, points: Sequence[Point], color: Color, label: int, distance: float | None = None) -> None:
        """Paint a polygon; `distance` in metres, by default that of its first point."""
        flat = self._columns_rows(points)
        self._pen.polygon(flat, fill=color)
        code = round(255 * (1 - math.exp(-(points[0][2] if distance is None else distance) / DISTANCE_SCALE)))
        self._marker.polygon(flat, fill=(label, min(code, 254)))

    def detail(self, points: Sequence[Point], color: Color) -> None:
        """Paint a polygon that lies on a shape painted before: colour only."""
        self._pen.polygon(self._columns_rows(points), fill=color)

    def ball(self, center: Point, radius: tuple[float, float], color: Color, label: int | None) -> None:
        """Paint an ellipse that faces the camera, radii in metres across and up; label None = a detail."""
        (column, row), scale = self.camera.project(center), self.camera.focal / max(center[2], NEAREST)
        across, up = radius[0] * scale, radius[1] * scale
        box = [SUPERSAMPLE * v for v in (column - across, row - up, column + across, row + up)]
        self._pen.ellipse(box, fill=color)
        if label is not None:
            code = round(255 * (1 - math.exp(-center[2] / DISTANCE_SCALE)))
            self._marker.ellipse(box, fill=(label, min(code, 254)))

    def face(self, face: Face, color: Color, label: int) -> None:
        """Paint an upright rectangle."""
        self.shape(face.patch(0, 1, 0, 1), color, label, face.distance)

    def part(self, face: Face, left: float, right: float, bottom: float, top: float, color: Color) -> None:
        """Paint a part of a face, in shares of its width and height, as a detail."""
        self.detail(face.patch(left, right, bottom, top), color)

    def parts(
        self, face: Face, spans: Iterable[tuple[float, float]], levels: Sequence[tuple[float, float]], color: Color
    ) -> None:
        """Paint a grid of parts of a face (windows, bars): every span (left, right) at every level (bottom, top)."""
        heights = [face.low + (face.high - face.low) * up for level in levels for up in level]
        for left, right in spans:
            corners = face.patch(left, right, 0, 0)[:2]
            first, second = (self._columns_rows([(x, up, z) for up in heights]) for x, _, z in corners)
            for index in range(0, len(heights), 2):
                self._pen.polygon([first[index], second[index], second[index + 1], first[index + 1]], fill=color)

    def rows(self, top: float, bottom: float, colors: tuple[Color, Color], label: int, sky: bool = False) -> None:
        """Paint full rows of the picture from `top` to `bottom` in a gradient between two colours."""
        first, last = round(top * SUPERSAMPLE), round(bottom * SUPERSAMPLE)
        right = self.size[0] * SUPERSAMPLE
        step = 4
        for row in range(first, last, step):
            color = mix(colors[0], colors[1], (row - first) / max(last - first, 1))
            self._pen.rectangle([0, row, right, row + step - 1], fill=color)
        self._marker.rectangle([0, first, right, last], fill=(label, SKY_DISTANCE if sky else 0))

    def outline(self, points: Sequence[tuple[float, float]], color: Color, label: int) -> None:
        """Paint a polygon given in columns and rows of the picture, right before the lens (the own car's bonnet)."""
        flat = [(column * SUPERSAMPLE, row * SUPERSAMPLE) for column, row in points]
        self._pen.polygon(flat, fill=color)
        self._marker.polygon(flat, fill=(label, 0))

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
        """Colours (H, W, 3) in 0..255, label ids (H, W), and distance codes (H, W) of this file's scale."""
        colors = np.asarray(self._colors.reduce(SUPERSAMPLE), dtype=np.float32)
        codes = np.asarray(self._codes)[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE]
        return colors, codes[..., 0].copy(), codes[..., 1].copy()

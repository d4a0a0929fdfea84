"""One street: planned and painted the same way in both domains, with each domain's statistics and palette."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from segadapt.sample import furniture, ids, people, traffic
from segadapt.sample.canvas import Camera, Canvas
from segadapt.sample.styles import Palette, Range, Statistics
from segadapt.sample.surroundings import Ground, Plots, paint_sky

Paint = Callable[[], None]


@dataclass(frozen=True)
class Drawing:
    """A painted street before its look: colours (H, W, 3) in 0..255, label ids and distance codes (H, W)."""

    colors: NDArray[np.float32]
    labels: NDArray[np.uint8]
    distances: NDArray[np.uint8]
    camera: Camera
    ground: Ground


class Street:
    """A street in the making: things are collected with their distances, then painted far to near."""

    def __init__(self, canvas: Canvas, palette: Palette, statistics: Statistics, rng: Random, sunny: bool) -> None:
        self.canvas, self.palette, self.statistics, self.rng, self.sunny = canvas, palette, statistics, rng, sunny
        self.things: list[tuple[float, Paint]] = []
        verges = tuple(rng.uniform(1.5, 4.0) if rng.random() < statistics.verge else 0.0 for _ in range(2))
        self.ground = Ground(
            rng.uniform(*statistics.road_left), rng.uniform(*statistics.road_right), rng.uniform(*statistics.sidewalk),
            (verges[0], verges[1]),
        )  # fmt: skip
        self.has_tram = rng.random() < statistics.tram
        self.taken: list[tuple[float, float]] = []  # places (x, z) on the road and the sidewalks

    def paint(self) -> Ground:
        """Plan and paint everything."""
        paint_sky(self.canvas, self.palette, self.rng)
        self.ground.paint(self.canvas, self.palette, self.rng, rails=self.has_tram)
        self._plan_plots()
        self._paint_planned()  # first: nothing on a plot can hide what stands between the plots
        self._plan_traffic()
        self._plan_sidewalks()
        self._paint_planned()
        return self.ground

    def _paint_planned(self) -> None:
        for _, paint in sorted(self.things, key=lambda thing: -thing[0]):
            paint()
        self.things.clear()

    def _place(self, paint: Callable[..., None], x: float, z: float, *more: float | bool) -> None:
        self.things.append((z, lambda: paint(self.canvas, self.palette, self.rng, x, z, *more)))

    def _plan_plots(self) -> None:
        rng, statistics = self.rng, self.statistics
        kinds, weights = list(statistics.plots), list(statistics.plots.values())
        for side in (0, 1):
            front = self.ground.fronts[side]
            plots = Plots(front, self.palette, rng, sunny=self.sunny == bool(side))
            z = max(2.0, abs(front) * 0.9)
            while z < 70:
                kind = rng.choices(kinds, weights)[0]
                length = rng.uniform(*statistics.building_length) * (1.0 if z < 30 else 1.6)
                height = rng.uniform(*statistics.building_height)
                self.things.append((z, self._plot(plots, kind, z, z + length, height)))
                z += length + (rng.uniform(0.0, 2.5) if rng.random() < 0.4 else 0.0)

    def _plot(self, plots: Plots, kind: str, near: float, far: float, height: float) -> Paint:
        return lambda: plots.paint(self.canvas, kind, near, far, height)

    def _count(self, expected: Range) -> int:
        return self.rng.randint(int(expected[0]), int(expected[1]))

    def _free(self, x: float, z: float, across: float, along: float) -> bool:
        if any(abs(x - a) < across and abs(z - b) < along for a, b in self.taken):
            return False
        self.taken.append((x, z))
        return True

    def _plan_traffic(self) -> None:
        rng, statistics, (left, right) = self.rng, self.statistics, self.ground.curbs
        own, oncoming = 0.3, left * 0.62
        if self.has_tram:
            z = rng.uniform(15, 26)
            self._free(left * 0.45, z, 0, 0)
            self.taken += [(left * 0.45, z - 7), (left * 0.45, z + 7)]
            self._place(traffic.tram, left * 0.45, z, rng.choice((0.0, math.pi)))
        for large, chance in ((traffic.truck, statistics.truck), (traffic.bus, statistics.bus)):
            if rng.random() < chance:
                x, yaw = rng.choice(((own, 0.0), (oncoming, math.pi), (right - 1.3, 0.0), (left + 1.4, math.pi)))
                z = rng.uniform(12, 24)
                if self._free(x, z, 2.4, 10.5):
                    self._place(large, x, z, yaw + rng.uniform(-0.08, 0.08))
        for _ in range(self._count(statistics.cars)):
            x, yaw = rng.choice(((own, 0.0), (oncoming, math.pi), (right - 0.9, 0.0), (left + 1.0, math.pi)))
            z = rng.uniform(7, 32)
            if rng.random() < 0.1:
                yaw, x = math.pi / 2 * rng.choice((-1, 1)), rng.uniform(left, right)
            if self._free(x, z, 2.0, 6.5):
                self._place(traffic.car, x, z, yaw + rng.uniform(-0.1, 0.1))
        for cycle, expected in ((people.bicycle, statistics.bicycles), (people.motorcycle, statistics.motorcycles)):
            for _ in range(self._count(expected)):
                self._cycle(cycle)

    def _cycle(self, paint: Callable[..., None]) -> None:
        rng, ground = self.rng, self.ground
        ridden = rng.random() < self.statistics.ridden
        side = rng.randrange(2)
        if ridden:
            x = rng.uniform(ground.curbs[0] + 1.0, ground.curbs[1] - 0.5)
            z = rng.uniform(max(5.0, abs(x) * 1.5), max(12.0, abs(x) * 1.5 + 1))
        else:
            x = ground.curbs[side] + math.copysign(rng.uniform(0.4, 1.0), ground.curbs[side])
            z = rng.uniform(abs(x) * 1.5 + 1, abs(x) * 1.5 + 6)
        if self._free(x, z, 1.6, 2.0):
            self._place(paint, x, z, ridden)

    def _plan_sidewalks(self) -> None:
        statistics = self.statistics
        wanted: list[
            tuple[Callable[..., None], Range, float, float]
        ] = [  # what, how many, share of the sidewalk, reach
            (furniture.tree, statistics.trees, 0.22, 36),
            (furniture.lamp, statistics.lamps, 0.10, 34),
            (furniture.traffic_light, statistics.lights, 0.14, 12),
            (furniture.traffic_sign, statistics.signs, 0.12, 13),
            (furniture.bin_, (0, 1), 0.7, 14),
            (people.person, statistics.persons, 0.6, 9),
        ]
        for paint, expected, share, reach in wanted:
            for _ in range(self._count(expected)):
                side = self.rng.randrange(2)
                curb, walk = self.ground.curbs[side], self.ground.walks[side]
                spread = 0.35 if paint is people.person else 0.04
                x = curb + (walk - curb) * (share + self.rng.uniform(-spread, spread))
                if paint is people.person and self.rng.random() < 0.25:
                    x = self.rng.uniform(*self.ground.curbs)
                nearest = max(5.0, abs(x) * 1.45)
                z = self.rng.uniform(nearest, nearest + reach)
                if self._free(x, z, 0.5, 0.7):
                    self._place(paint, x, z)


def draw_street(size: tuple[int, int], palette: Palette, statistics: Statistics, rng: Random, sunny: bool) -> Drawing:
    """Draw one street of `size` (width, height); a pure function of its arguments and of the state of `rng`."""
    width, height = size
    camera = Camera(
        focal=rng.uniform(*statistics.focal) * width,
        center=rng.uniform(*statistics.center) * width,
        horizon=rng.uniform(*statistics.horizon) * height,
        height=rng.uniform(*statistics.camera_height),
    )
    canvas = Canvas(size, camera)
    ground = Street(canvas, palette, statistics, rng, sunny).paint()
    if rng.random() < statistics.bonnet:
        top = rng.uniform(0.90, 0.94) * height
        points = [
            (0.0, height),
            (0.08 * width, top + 6),
            (0.3 * width, top),
            (0.7 * width, top),
            (0.92 * width, top + 6),
        ]
        canvas.outline([*points, (width, height)], (44, 46, 52), ids.EGO_VEHICLE)
    colors, labels, distances = canvas.finish()
    return Drawing(colors, labels, distances, camera, ground)

"""Persons, bicycles and motorcycles, parked or with their riders."""

import math
from dataclasses import dataclass
from random import Random

from segadapt.sample import ids
from segadapt.sample.canvas import Canvas, Color, Point, shade
from segadapt.sample.styles import Palette


@dataclass(frozen=True)
class Panel:
    """An upright plane through (x, z), turned by `angle` from the picture plane; coordinates (along, up) in metres."""

    x: float
    z: float
    angle: float = 0.0
    mirror: float = 1.0  # −1 mirrors what is painted on it

    def point(self, along: float, up: float) -> Point:
        """A point of the plane in the world."""
        along *= self.mirror
        return self.x + along * math.cos(self.angle), up, self.z + along * math.sin(self.angle)

    def points(self, *flat: tuple[float, float]) -> list[Point]:
        """Several points of the plane in the world."""
        return [self.point(along, up) for along, up in flat]

    def limb(self, start: tuple[float, float], end: tuple[float, float], width: float) -> list[Point]:
        """A bar from `start` to `end`."""
        (x1, y1), (x2, y2) = start, end
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        dx, dy = -(y2 - y1) / length * width / 2, (x2 - x1) / length * width / 2
        return self.points((x1 + dx, y1 + dy), (x2 + dx, y2 + dy), (x2 - dx, y2 - dy), (x1 - dx, y1 - dy))

    def disc(self, along: float, up: float, radius: float) -> list[Point]:
        """A round polygon."""
        corners = [2 * math.pi * corner / 16 for corner in range(16)]
        return self.points(*((along + radius * math.cos(a), up + radius * math.sin(a)) for a in corners))


def person(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A walking or standing person, 1.5 to 2 metres tall."""
    panel = Panel(x, z, 0.0, rng.choice((-1.0, 1.0)))
    tall, step = rng.uniform(1.55, 1.95), rng.uniform(0.05, 0.30)
    shirt, trousers, skin = (
        rng.choice(palette.clothes),
        shade(rng.choice(palette.clothes), 0.7),
        rng.choice(palette.skins),
    )
    hip, neck = tall * 0.50, tall * 0.84
    for foot, light in ((-step, 0.85), (step, 1.0)):
        canvas.shape(panel.limb((foot, 0.0), (foot * 0.25, hip), 0.21), shade(trousers, light), ids.PERSON)
        canvas.detail(panel.limb((foot, 0.0), (foot + 0.08, 0.06), 0.12), (30, 28, 28))
    torso = panel.points(
        (-0.20, hip - 0.06), (0.20, hip - 0.06), (0.27, neck - 0.06), (0.10, neck), (-0.10, neck), (-0.27, neck - 0.06)
    )
    canvas.shape(torso, shirt, ids.PERSON)
    for side in (-1, 1):
        canvas.shape(
            panel.limb((0.25 * side, neck - 0.08), ((0.30 + step * 0.4) * side, hip), 0.13),
            shade(shirt, 0.85),
            ids.PERSON,
        )
    _head(canvas, panel, (0.0, tall * 0.92), tall * 0.085, skin, shade(rng.choice(palette.trunks), 0.6), ids.PERSON)
    if rng.random() < 0.35:
        canvas.shape(
            panel.points((0.28, hip - 0.3), (0.52, hip - 0.3), (0.52, hip), (0.28, hip)),
            rng.choice(palette.clothes),
            ids.PERSON,
        )


def _head(
    canvas: Canvas, panel: Panel, place: tuple[float, float], radius: float, skin: Color, hair: Color, label: int
) -> None:
    x, y, z = panel.point(*place)
    canvas.ball((x, y + radius * 0.25, z), (radius * 1.1, radius * 1.15), hair, label)
    canvas.ball((x, y - radius * 0.15, z), (radius * 0.85, radius), skin, label)


def _rider(canvas: Canvas, palette: Palette, rng: Random, panel: Panel, seat: float, helmet: bool) -> None:
    shirt, trousers, skin = (
        rng.choice(palette.clothes),
        shade(rng.choice(palette.clothes), 0.7),
        rng.choice(palette.skins),
    )
    hip, shoulder = (-0.22, seat + 0.06), (0.12, seat + 0.66)
    knee = (0.22, seat - 0.12)
    canvas.shape(panel.limb(hip, knee, 0.22), trousers, ids.RIDER)
    canvas.shape(panel.limb(knee, (0.08, seat - 0.55), 0.18), shade(trousers, 0.9), ids.RIDER)
    canvas.shape(panel.limb((hip[0], hip[1] - 0.06), shoulder, 0.40), shirt, ids.RIDER)
    canvas.shape(panel.limb(shoulder, (0.50, seat + 0.26), 0.13), shade(shirt, 0.85), ids.RIDER)
    hair = rng.choice(palette.cars) if helmet else shade(rng.choice(palette.trunks), 0.6)
    _head(canvas, panel, (0.20, seat + 0.86), 0.17 if helmet else 0.145, skin, hair, ids.RIDER)


def bicycle(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, ridden: bool) -> None:
    """A bicycle seen more or less from the side, with its rider when `ridden`."""
    panel = Panel(x, z, rng.uniform(-0.8, 0.8), rng.choice((-1.0, 1.0)))
    color = rng.choice(palette.cycles)
    for along in (-0.56, 0.56):
        canvas.shape(panel.disc(along, 0.37, 0.37), palette.tyres, ids.BICYCLE, z)
        canvas.detail(panel.disc(along, 0.37, 0.28), shade(palette.curb, 0.75))
        canvas.detail(panel.disc(along, 0.37, 0.06), palette.tyres)
        canvas.detail(panel.limb((along - 0.26, 0.37), (along + 0.26, 0.37), 0.03), palette.tyres)
        canvas.detail(panel.limb((along, 0.11), (along, 0.63), 0.03), palette.tyres)
    bars = (
        ((-0.56, 0.37), (-0.18, 0.86)),
        ((-0.18, 0.80), (0.42, 0.80)),
        ((0.0, 0.34), (-0.18, 0.86)),
        ((0.0, 0.34), (0.42, 0.80)),
    )
    for start, end in (*bars, ((0.56, 0.37), (0.40, 1.02)), ((-0.56, 0.37), (0.0, 0.34))):
        canvas.shape(panel.limb(start, end, 0.09), color, ids.BICYCLE, z)
    canvas.shape(panel.limb((0.34, 1.03), (0.50, 1.00), 0.08), palette.tyres, ids.BICYCLE, z)
    canvas.shape(panel.limb((-0.32, 0.90), (-0.08, 0.90), 0.10), palette.tyres, ids.BICYCLE, z)
    if ridden:
        _rider(canvas, palette, rng, panel, 0.92, helmet=rng.random() < 0.4)


def motorcycle(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, ridden: bool) -> None:
    """A motorcycle seen more or less from the side, with its rider when `ridden`."""
    panel = Panel(x, z, rng.uniform(-0.8, 0.8), rng.choice((-1.0, 1.0)))
    color = rng.choice(palette.cars)
    for along in (-0.68, 0.70):
        canvas.shape(panel.disc(along, 0.34, 0.34), palette.tyres, ids.MOTORCYCLE, z)
        canvas.detail(panel.disc(along, 0.34, 0.17), shade(palette.curb, 0.7))
    engine = panel.points((-0.5, 0.25), (0.42, 0.25), (0.55, 0.60), (-0.62, 0.58))
    canvas.shape(engine, shade(palette.poles[0], 0.7), ids.MOTORCYCLE, z)
    body = panel.points(
        (-0.98, 0.62), (0.30, 0.52), (0.62, 0.72), (0.50, 1.05), (0.18, 0.98), (-0.15, 0.78), (-0.95, 0.84)
    )
    canvas.shape(body, color, ids.MOTORCYCLE, z)
    canvas.shape(panel.limb((0.70, 0.34), (0.46, 1.02), 0.12), shade(palette.curb, 0.8), ids.MOTORCYCLE, z)
    canvas.shape(
        panel.points((-0.80, 0.82), (-0.10, 0.78), (-0.10, 0.88), (-0.80, 0.92)), palette.tyres, ids.MOTORCYCLE, z
    )
    canvas.shape(panel.disc(0.62, 0.86, 0.13), (244, 238, 200), ids.MOTORCYCLE, z)
    canvas.shape(panel.points((0.36, 1.0), (0.60, 1.0), (0.46, 1.28)), palette.glass, ids.MOTORCYCLE, z)
    if ridden:
        _rider(canvas, palette, rng, panel, 0.86, helmet=True)

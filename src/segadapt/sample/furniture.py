"""Street furniture: trees, lamps, traffic lights, signs, bins. Each is painted at a place (x, z) of the street plan."""

import math
from random import Random

from segadapt.sample import ids
from segadapt.sample.canvas import Canvas, Color, Face, Point, shade
from segadapt.sample.styles import Palette

SIGN_COLORS: tuple[Color, ...] = ((200, 36, 40), (34, 84, 176), (240, 196, 40), (30, 120, 84))
SIGN_WHITE: Color = (240, 240, 238)
LAMPS: tuple[Color, ...] = ((244, 60, 48), (250, 190, 50), (70, 220, 120))
LAMP_OFF: Color = (52, 54, 54)


def _post(canvas: Canvas, x: float, z: float, width: float, height: float, color: Color, label: int) -> None:
    canvas.face(Face((x - width / 2, z), (x + width / 2, z), 0.0, height), color, label)
    canvas.face(Face((x - width / 2, z), (x - width / 6, z), 0.0, height), shade(color, 1.25), label)


def tree(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A street tree: a trunk and a crown of many leaf balls, darker below."""
    height, radius = rng.uniform(3.4, 6.0), rng.uniform(1.2, 2.0)
    _post(canvas, x, z, 0.34, height, rng.choice(palette.trunks), ids.VEGETATION)
    color = rng.choice(palette.leaves)
    balls: list[tuple[float, Point, float]] = []
    for _ in range(24):
        angle, reach = rng.uniform(0, 2 * math.pi), radius * math.sqrt(rng.random())
        up = math.sin(angle) * reach
        balls.append((up, (x + math.cos(angle) * reach, height + up, z), rng.uniform(0.45, 0.8)))
    for up, spot, size in sorted(balls, key=lambda ball: ball[0]):
        light = 0.92 + 0.28 * up / radius + rng.uniform(-0.08, 0.08)
        canvas.ball(spot, (size, size * 0.9), shade(color, light), ids.VEGETATION)


def lamp(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A street lamp: post, arm towards the road, lantern."""
    color, height, reach = rng.choice(palette.poles), rng.uniform(5.0, 7.5), -math.copysign(1.6, x)
    _post(canvas, x, z, 0.32, height, color, ids.POLE)
    low, high = sorted((x, x + reach))
    canvas.face(Face((low, z), (high, z), height - 0.16, height), color, ids.POLE)
    canvas.face(
        Face((x + reach * 0.7, z), (x + reach * 1.15, z), height - 0.34, height - 0.1), shade(color, 1.5), ids.POLE
    )


def traffic_light(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A traffic light on its pole, sometimes with a second one hung over the road."""
    color, lit, height = rng.choice(palette.poles), rng.randrange(3), rng.uniform(3.4, 4.2)
    box = rng.choice(palette.light_boxes)
    _post(canvas, x, z, 0.30, height, color, ids.POLE)
    places = [(x, height - 1.0)]
    if rng.random() < 0.5:
        reach = -math.copysign(rng.uniform(1.8, 2.8), x)
        low, high = sorted((x, x + reach))
        canvas.face(Face((low, z), (high, z), height + 0.2, height + 0.4), color, ids.POLE)
        _post(canvas, x, z, 0.30, height + 0.4, color, ids.POLE)
        places.append((x + reach, height - 1.0))
    for column, low in places:
        face = Face((column - 0.40, z), (column + 0.40, z), low, low + 1.8)
        canvas.face(face, shade(box, 0.8), ids.TRAFFIC_LIGHT)
        canvas.part(face, 0.1, 0.9, 0.05, 0.95, box)
        for index, lamp_color in enumerate(LAMPS):
            spot = (column, low + 1.45 - 0.55 * index, z)
            canvas.ball(spot, (0.22, 0.22), lamp_color if index == lit else LAMP_OFF, None)


def traffic_sign(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A sign on a pole: disc, triangle, square, or a board with lines of text."""
    height, size, kind = rng.uniform(2.3, 3.0), rng.uniform(0.48, 0.66), rng.randrange(4)
    color = rng.choice(SIGN_COLORS)
    _post(canvas, x, z, 0.26, height, rng.choice(palette.poles), ids.POLE)
    up = height + size * 0.4
    if kind == 0:
        canvas.ball((x, up, z), (size, size), color, ids.TRAFFIC_SIGN)
        canvas.ball((x, up, z), (size * 0.68, size * 0.68), SIGN_WHITE, None)
    elif kind == 1:
        corners = [(x - size * 1.1, up - size * 0.8, z), (x + size * 1.1, up - size * 0.8, z), (x, up + size * 1.1, z)]
        canvas.shape(corners, SIGN_COLORS[0], ids.TRAFFIC_SIGN)
        inner = [(x - size * 0.62, up - size * 0.5, z), (x + size * 0.62, up - size * 0.5, z), (x, up + size * 0.6, z)]
        canvas.detail(inner, SIGN_WHITE)
    else:
        half = size if kind == 2 else size * 1.6
        face = Face((x - half, z), (x + half, z), up - size, up + size)
        canvas.face(face, SIGN_WHITE, ids.TRAFFIC_SIGN)
        canvas.part(face, 0.07, 0.93, 0.07, 0.93, color)
        for line in range(1, kind):
            canvas.part(face, 0.2, 0.8, 0.3 * line, 0.3 * line + 0.12, SIGN_WHITE)


def bin_(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float) -> None:
    """A litter bin (static, ignored in the scores)."""
    face = Face((x - 0.3, z), (x + 0.3, z), 0.0, 1.0)
    canvas.face(face, shade(rng.choice(palette.fences), 0.9), ids.STATIC)
    canvas.part(face, 0, 1, 0.85, 1, shade(palette.glass, 1.2))

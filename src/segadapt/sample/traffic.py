"""Cars, trucks, buses and trams as boxes that show the camera their visible faces."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from segadapt.sample import ids
from segadapt.sample.canvas import Canvas, Color, Face, Point, shade
from segadapt.sample.styles import Palette

TAIL: Color = (206, 36, 34)
HEADLIGHT: Color = (250, 244, 214)
PLATE: Color = (236, 232, 212)
SHADOW: Color = (40, 40, 44)


@dataclass(frozen=True)
class Frame:
    """A vehicle's own axes: `along` its length (its front at +), `across` its width, both from its middle in metres."""

    x: float
    z: float
    yaw: float  # 0 drives away from the camera, π towards it

    def plan(self, along: float, across: float) -> tuple[float, float]:
        """A point of the vehicle on the street plan (x, z)."""
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        return self.x + across * cosine + along * sine, self.z - across * sine + along * cosine

    def point(self, along: float, across: float, up: float) -> Point:
        """A point of the vehicle in the world."""
        x, z = self.plan(along, across)
        return x, up, z

    def faces(self, back: float, front: float, half: float, low: float, high: float) -> dict[str, Face]:
        """The upright faces of a box that the camera sees, by name: "front", "back", "side"."""
        corners = {
            "front": ((front, -half), (front, half)),
            "back": ((back, half), (back, -half)),
            "left": ((back, -half), (front, -half)),
            "right": ((front, half), (back, half)),
        }
        seen: dict[str, Face] = {}
        for name, (first, last) in corners.items():
            (x1, z1), (x2, z2) = self.plan(*first), self.plan(*last)
            if x1 * z2 - x2 * z1 > 0:  # its outer side looks at the camera in the origin
                seen["side" if name in ("left", "right") else name] = Face((x1, z1), (x2, z2), low, high)
        return dict(sorted(seen.items(), key=lambda item: item[0] != "side"))


def _ground_shadow(canvas: Canvas, frame: Frame, half_length: float, half_width: float) -> None:
    corners = (
        (-half_length, -half_width),
        (half_length, -half_width),
        (half_length, half_width),
        (-half_length, half_width),
    )
    canvas.detail([frame.point(along, across, 0.0) for along, across in corners], SHADOW)


def _wheels(
    canvas: Canvas, frame: Frame, places: Iterable[float], half: float, radius: float, tyre: Color, label: int
) -> None:
    for along in places:
        for side in (-half, half):
            x, z = frame.plan(along, side)
            normal_x, normal_z = frame.plan(along, side * 2)
            if x * (normal_x - x) + z * (normal_z - z) > 0:
                continue  # on the far side
            angles = [2 * math.pi * corner / 14 for corner in range(14)]
            rim = [frame.point(along + radius * math.cos(a), side, radius + radius * math.sin(a)) for a in angles]
            canvas.shape(rim, tyre, label, z)
            hub = [
                frame.point(along + radius * 0.5 * math.cos(a), side, radius + radius * 0.5 * math.sin(a))
                for a in angles
            ]
            canvas.detail(hub, shade(tyre, 3.6))


def car(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, yaw: float) -> None:
    """A car, about 4.3 × 1.8 × 1.5 metres: body, cabin with glass all round, bonnet, lights, wheels."""
    frame, color = Frame(x, z, yaw), rng.choice(palette.cars)
    half, length, roof = 0.90, rng.uniform(1.95, 2.3), rng.uniform(1.42, 1.72)
    belt, tumble = 0.88, 0.16
    estate = rng.random() < 0.4
    cabin = (-length + 0.1 if estate else -length + 0.75, length - 1.15)  # of the belt line, back and front
    top = (cabin[0] + (0.2 if estate else 0.55), cabin[1] - 0.75)
    _ground_shadow(canvas, frame, length + 0.15, half + 0.15)
    body = frame.faces(-length, length, half, 0.22, belt)
    for deck, slope in (((cabin[1], length), 0.0), ((-length, cabin[0]), 0.0)):
        corners = ((deck[0], -half), (deck[1], -half), (deck[1], half), (deck[0], half))
        canvas.shape([frame.point(a, c, belt + slope) for a, c in corners], shade(color, 1.15), ids.CAR, z)
    for side in (-1, 1):  # the cabin's sides, then its ends
        outer, inner = side * (half - 0.05), side * (half - tumble)
        flank = [(cabin[0], outer, belt), (cabin[1], outer, belt), (top[1], inner, roof), (top[0], inner, roof)]
        if "side" in body and _faces_camera(frame, 0.0, side):
            canvas.shape([frame.point(*corner) for corner in flank], shade(color, 0.9), ids.CAR, z)
            glass = [(cabin[0] + 0.25, outer, belt + 0.06), (cabin[1] - 0.2, outer, belt + 0.06)]
            glass += [(top[1] - 0.02, inner, roof - 0.1), (top[0] + 0.1, inner, roof - 0.1)]
            canvas.detail([frame.point(*corner) for corner in glass], palette.glass)
    for name, low, high in (("front", cabin[1], top[1]), ("back", cabin[0], top[0])):
        if name in body:
            screen = [
                (low, -half + 0.05, belt),
                (low, half - 0.05, belt),
                (high, half - tumble, roof),
                (high, -half + tumble, roof),
            ]
            canvas.shape([frame.point(*corner) for corner in screen], color, ids.CAR, z)
            pane = [(low, -half + 0.18, belt + 0.05), (low, half - 0.18, belt + 0.05)]
            pane += [(high, half - tumble - 0.1, roof - 0.1), (high, -half + tumble + 0.1, roof - 0.1)]
            canvas.detail([frame.point(*corner) for corner in pane], shade(palette.glass, 1.15))
    for name, face in body.items():
        canvas.face(face, shade(color, 0.84 if name == "side" else 1.0), ids.CAR)
        canvas.part(face, 0, 1, 0.0, 0.22, shade(palette.tyres, 1.6))
        if name != "side":
            _lights(canvas, face, TAIL if name == "back" else HEADLIGHT)
    _wheels(canvas, frame, (-length * 0.62, length * 0.64), half, 0.34, palette.tyres, ids.CAR)


def _faces_camera(frame: Frame, along: float, side: float) -> bool:
    x, z = frame.plan(along, side)
    outer_x, outer_z = frame.plan(along, side * 2)
    return x * (outer_x - x) + z * (outer_z - z) < 0


def _lights(canvas: Canvas, face: Face, color: Color, up: float = 0.62) -> None:
    for left in (0.06, 0.76):
        canvas.part(face, left, left + 0.18, up, up + 0.2, color)
    canvas.part(face, 0.38, 0.62, 0.34, 0.50, PLATE)


def truck(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, yaw: float) -> None:
    """A truck: a tall box behind a separate cab."""
    frame, cargo, cab = Frame(x, z, yaw), rng.choice(palette.trucks), rng.choice(palette.cars)
    half, length, high = 1.15, rng.uniform(2.8, 3.8), rng.uniform(2.9, 3.5)
    _ground_shadow(canvas, frame, length + 0.2, half + 0.2)
    boxes = [(frame.faces(-length, length - 1.9, half, 0.75, high), cargo, False)]
    cab_faces = frame.faces(length - 1.8, length, half * 0.94, 0.45, 2.5)
    boxes.insert(0 if "front" not in cab_faces else 1, (cab_faces, cab, True))
    canvas.face(_chassis(frame, length, half), shade(palette.tyres, 1.5), ids.TRUCK)
    for faces, color, is_cab in boxes:
        for name, face in faces.items():
            canvas.face(face, shade(color, 0.84 if name == "side" else 1.0), ids.TRUCK)
            if is_cab:
                canvas.part(face, 0.08, 0.92, 0.52, 0.88, palette.glass)
                if name == "front":
                    _lights(canvas, face, HEADLIGHT, 0.12)
            elif name == "back":
                canvas.part(face, 0.485, 0.515, 0.02, 0.96, shade(color, 0.6))
                canvas.part(face, 0.0, 1.0, 0.0, 0.08, TAIL)
            else:
                canvas.part(face, 0, 1, 0.42, 0.56, shade(cab, 0.9))
                for rib in range(1, 6):
                    canvas.part(face, rib / 6 - 0.008, rib / 6, 0.0, 1.0, shade(color, 0.72))
    _wheels(canvas, frame, (-length * 0.7, -length * 0.35, length * 0.72), half, 0.48, palette.tyres, ids.TRUCK)


def _chassis(frame: Frame, length: float, half: float) -> Face:
    """The dark underside: the end that the camera sees, or the side when it sees that only."""
    faces = frame.faces(-length, length, half * 0.9, 0.25, 0.8)
    return faces.get("back") or faces.get("front") or faces["side"]


def bus(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, yaw: float) -> None:
    """A city bus: one long box with a band of windows, a coloured skirt and a large windscreen."""
    frame, color = Frame(x, z, yaw), rng.choice(palette.buses)
    length = rng.uniform(4.2, 5.6)
    _ground_shadow(canvas, frame, length + 0.2, 1.45)
    for name, face in frame.faces(-length, length, 1.25, 0.35, rng.uniform(2.8, 3.1)).items():
        light = 0.84 if name == "side" else 1.0
        canvas.face(face, shade(color, light), ids.BUS)
        canvas.part(face, 0, 1, 0.0, 0.12, shade(palette.tyres, 1.7))
        if name == "side":
            for pane in range(7):
                canvas.part(face, (pane + 0.06) / 7, (pane + 0.94) / 7, 0.48, 0.84, palette.glass)
            canvas.part(face, 0, 1, 0.30, 0.36, shade(color, light * 1.35))
        else:
            canvas.part(face, 0.07, 0.93, 0.40, 0.80, palette.glass)
            canvas.part(face, 0.2, 0.8, 0.84, 0.95, (36, 34, 30))
            canvas.part(face, 0.3, 0.7, 0.87, 0.92, (250, 200, 70))
            _lights(canvas, face, TAIL if name == "back" else HEADLIGHT, 0.16)
    _wheels(canvas, frame, (-length * 0.6, length * 0.62), 1.25, 0.48, palette.tyres, ids.BUS)


def tram(canvas: Canvas, palette: Palette, rng: Random, x: float, z: float, yaw: float) -> None:
    """A tram (class train): longer and taller than a bus, two-coloured, hidden wheels, a lamp on the forehead."""
    frame, color = Frame(x, z, yaw), rng.choice(palette.trams)
    length, high = rng.uniform(7.0, 9.0), rng.uniform(3.4, 3.7)
    skirt = palette.trams[1] if color is palette.trams[0] else palette.trams[0]
    for name, face in frame.faces(-length, length, 1.3, 0.12, high).items():
        light = 0.84 if name == "side" else 1.0
        canvas.face(face, shade(color, light), ids.TRAIN)
        canvas.part(face, 0, 1, 0.0, 0.26, shade(skirt, light))
        canvas.part(face, 0, 1, 0.90, 1.0, shade(palette.poles[0], light))
        if name == "side":
            for pane in range(9):
                tall = pane % 3 == 1  # doors
                canvas.part(face, (pane + 0.1) / 9, (pane + 0.9) / 9, 0.08 if tall else 0.44, 0.80, palette.glass)
        else:
            canvas.shape([*_forehead(face)], shade(color, 1.1), ids.TRAIN)
            canvas.part(face, 0.12, 0.88, 0.44, 0.82, palette.glass)
            canvas.part(face, 0.45, 0.55, 0.86, 0.92, HEADLIGHT)
            _lights(canvas, face, HEADLIGHT if name == "front" else TAIL, 0.28)


def _forehead(face: Face) -> list[Point]:
    return face.patch(0.1, 0.9, 0.26, 0.90)

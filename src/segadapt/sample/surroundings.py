"""What stands still along the street, from the sky to the house fronts: painted in stripes of plots, far to near."""

import math
from random import Random

from segadapt.sample import ids
from segadapt.sample.canvas import Canvas, Color, Face, mix, shade
from segadapt.sample.styles import Palette

FAR = 110.0  # metres: where the street ends


def paint_sky(canvas: Canvas, palette: Palette, rng: Random) -> None:
    """Gradient sky with clouds, then the far skyline that closes the street."""
    horizon = canvas.camera.horizon
    canvas.rows(0, horizon + 2, rng.choice(palette.sky), ids.SKY, sky=True)
    for _ in range(rng.randrange(5)):
        x, y = rng.uniform(-900, 900), rng.uniform(150, 500)
        for _ in range(6):
            spot = (x + rng.uniform(-110, 110), y + rng.uniform(-14, 14), 1000.0)
            canvas.ball(spot, (rng.uniform(40, 120), rng.uniform(12, 34)), palette.clouds, None)
    leaves = mix(rng.choice(palette.leaves), palette.sky[0][1], 0.35)
    for x in range(-160, 161, 16):
        height = rng.uniform(3, 9)
        canvas.ball((x + rng.uniform(-5, 5), 0.0, FAR * 1.4), (rng.uniform(9, 15), height), leaves, ids.VEGETATION)
    for _ in range(rng.randrange(2, 6)):
        x, width = rng.uniform(-120, 120), rng.uniform(12, 30)
        face = Face((x, FAR * 1.3), (x + width, FAR * 1.3), 0.0, rng.uniform(9, 24))
        color = mix(rng.choice(palette.facades), palette.sky[0][1], 0.3)
        canvas.face(face, color, ids.BUILDING)
        paint_windows(canvas, face, mix(rng.choice(palette.windows), color, 0.4), 4.0, 4.0)


def paint_windows(canvas: Canvas, face: Face, color: Color, spacing: float, storey: float) -> None:
    """A grid of windows about `spacing` metres apart, on storeys of about `storey` metres."""
    camera = canvas.camera
    near, far = sorted((max(face.start[1], 1.0), max(face.end[1], 1.0)))
    if camera.focal * storey / near < 4:  # too far away to be seen
        return
    columns = max(1, min(8 if near < 25 else 5, round(face.width / spacing)))
    floors = max(1, min(7, round((face.high - face.low) / storey)))
    highest = camera.height + camera.horizon * far / camera.focal  # metres, the highest point in the picture
    levels = [((floor + 0.28) / floors, (floor + 0.80) / floors) for floor in range(floors)]
    levels = [level for level in levels if face.low + (face.high - face.low) * level[0] <= highest]
    panes = [((column + 0.26) / columns, (column + 0.74) / columns) for column in range(columns)]
    if near < 20:
        rims = [(left - 0.05 / columns, right + 0.05 / columns) for left, right in panes]
        canvas.parts(face, rims, [(bottom - 0.06 / floors, top) for bottom, top in levels], shade(color, 1.5))
    canvas.parts(face, panes, levels, color)


class Ground:
    """The street's cross-section, in metres from the camera to both sides: road, sidewalk, verge, plots."""

    def __init__(self, left: float, right: float, sidewalk: float, verges: tuple[float, float]) -> None:
        self.curbs = (-left, right)
        self.walks = (-left - sidewalk, right + sidewalk)
        self.fronts = (self.walks[0] - verges[0], self.walks[1] + verges[1])

    def paint(self, canvas: Canvas, palette: Palette, rng: Random, rails: bool) -> None:
        """Paint the ground: terrain everywhere, then sidewalks, road, curbs, markings, rails."""
        camera, height = canvas.camera, canvas.size[1]
        terrain = rng.choice(palette.terrain)
        canvas.rows(camera.horizon, height, (shade(terrain, 1.05), shade(terrain, 0.92)), ids.TERRAIN)
        walk, road = rng.choice(palette.sidewalk), rng.choice(palette.road)
        self._strip(canvas, self.walks[0], self.walks[1], walk, ids.SIDEWALK)
        self._strip(canvas, self.curbs[0] - 0.18, self.curbs[1] + 0.18, palette.curb, ids.SIDEWALK)
        self._strip(canvas, *self.curbs, road, ids.ROAD)
        joint = shade(walk, 0.86)
        for side in (0, 1):
            inner, outer = sorted((self.curbs[side], self.walks[side]))
            for step in range(2, 14):
                z = step * 2.0
                canvas.detail([(inner, 0, z), (outer, 0, z), (outer, 0, z + 0.12), (inner, 0, z + 0.12)], joint)
        self._markings(canvas, palette, rng)
        if rails:
            middle = self.curbs[0] * 0.45
            for x in (middle - 0.75, middle + 0.75):
                self._strip(canvas, x - 0.08, x + 0.08, shade(palette.curb, 0.6), None)

    def _strip(self, canvas: Canvas, left: float, right: float, color: Color, label: int | None) -> None:
        corners = [(left, 0.0, 1.0), (right, 0.0, 1.0), (right, 0.0, FAR), (left, 0.0, FAR)]
        if label is None:
            canvas.detail(corners, color)
        else:
            canvas.shape(corners, color, label, 0.0)  # distance 0: the ground's is known from its row

    def _markings(self, canvas: Canvas, palette: Palette, rng: Random) -> None:
        middle = self.curbs[0] * 0.35
        offset = rng.uniform(0, 5)
        for step in range(12):
            z = 2 + offset + step * 6
            corners = [
                (middle - 0.08, 0.0, z),
                (middle + 0.08, 0.0, z),
                (middle + 0.08, 0.0, z + 3),
                (middle - 0.08, 0.0, z + 3),
            ]
            canvas.detail(corners, palette.markings)
        if rng.random() < 0.35:  # a zebra crossing
            z, x = rng.uniform(6, 14), self.curbs[0] + 0.4
            while x < self.curbs[1] - 0.5:
                canvas.detail(
                    [(x, 0.0, z), (x + 0.5, 0.0, z), (x + 0.5, 0.0, z + 2.6), (x, 0.0, z + 2.6)], palette.markings
                )
                x += 1.0


class Plots:
    """One side of the street: what stands on its plots, each with the distance of its near end."""

    def __init__(self, front: float, palette: Palette, rng: Random, sunny: bool) -> None:
        self.front, self.palette, self.rng = front, palette, rng
        self.outward = math.copysign(1.0, front)
        self.light = 1.04 if sunny else 0.80  # of the faces along the street

    def paint(self, canvas: Canvas, kind: str, near: float, far: float, height: float) -> None:
        """Paint one plot of this kind from `near` to `far` metres; height in metres (buildings)."""
        if kind == "building":
            self._building(canvas, self.front, near, far, height)
            return
        if self.rng.random() < 0.6:  # visible above a low plot: a house set back, or trees
            setback = self.front + self.outward * self.rng.uniform(7, 12)
            self._building(canvas, setback, near + 1, far - 1, height * 0.8)
        if self.rng.random() < 0.7:
            self._grove(canvas, near, far)
        if kind == "wall":
            self._wall(canvas, near, far)
        elif kind == "fence":
            self._fence(canvas, near, far)
        elif kind == "hedge":
            self._hedge(canvas, near, far)

    def _front_face(self, front: float, near: float, far: float, height: float) -> Face:
        return Face((front, near), (front, far), 0.0, height)

    def _building(self, canvas: Canvas, front: float, near: float, far: float, height: float) -> None:
        rng, palette = self.rng, self.palette
        color, window = rng.choice(palette.facades), rng.choice(palette.windows)
        end = Face((front, near), (front + self.outward * 12, near), 0.0, height)
        face = self._front_face(front, near, far, height)
        for side, light in ((end, 0.92 if self.light > 1 else 0.98), (face, self.light)):
            canvas.face(side, shade(color, light), ids.BUILDING)
            paint_windows(canvas, side, shade(window, light), rng.uniform(2.2, 3.2), rng.uniform(2.8, 3.4))
        roof = rng.choice(palette.roofs)
        canvas.part(face, 0, 1, 1 - 0.5 / height, 1, shade(roof, self.light))
        canvas.part(end, 0, 1, 1 - 0.5 / height, 1, roof)
        canvas.part(face, 0, 1, 0, 0.5 / height, shade(color, self.light * 0.7))
        left, door = rng.uniform(0.1, 0.7), 2.3 / height
        canvas.part(face, left, left + 1.4 / face.width, 0, door, shade(rng.choice(palette.doors), self.light))
        if rng.random() < 0.3:  # an awning over a shop
            canvas.part(
                face, left - 0.1, min(1.0, left + 4 / face.width), door, door + 0.7 / height, rng.choice(palette.cars)
            )

    def _wall(self, canvas: Canvas, near: float, far: float) -> None:
        color = self.rng.choice(self.palette.walls)
        face = self._front_face(self.front, near, far, self.rng.uniform(1.8, 2.9))
        canvas.face(Face(face.start, (self.front + self.outward * 0.6, near), 0, face.high), color, ids.WALL)
        canvas.face(face, shade(color, self.light), ids.WALL)
        courses = 5
        for course in range(1, courses):
            up = course / courses
            canvas.part(face, 0, 1, up - 0.015, up + 0.015, shade(color, self.light * 0.82))
        canvas.part(face, 0, 1, 0.90, 1.0, shade(color, self.light * 1.12))

    def _fence(self, canvas: Canvas, near: float, far: float) -> None:
        color = self.rng.choice(self.palette.fences)
        face = self._front_face(self.front, near, far, self.rng.uniform(1.6, 2.4))
        canvas.face(face, shade(mix(color, self.palette.terrain[0], 0.45), self.light * 0.8), ids.FENCE)
        count = max(3, round(face.width / 0.5))
        bars = [(index / count, (index + 0.5) / count) for index in range(count)]
        canvas.parts(face, bars, [(0.05, 0.97)], shade(color, self.light))
        for up in (0.2, 0.8):
            canvas.part(face, 0, 1, up, up + 0.07, shade(color, self.light * 1.1))

    def _hedge(self, canvas: Canvas, near: float, far: float) -> None:
        color, height = self.rng.choice(self.palette.leaves), self.rng.uniform(1.2, 2.2)
        z = far
        while z > near:
            canvas.ball(
                (self.front, height * 0.45, z),
                (0.7, height * 0.55),
                shade(color, self.rng.uniform(0.8, 1.1)),
                ids.VEGETATION,
            )
            z -= 0.8

    def _grove(self, canvas: Canvas, near: float, far: float) -> None:
        rng = self.rng
        z = far
        while z > near:
            color, height = rng.choice(self.palette.leaves), rng.uniform(1.5, 3.2)
            x = self.front + self.outward * rng.uniform(2.5, 6)
            for _ in range(7):
                spot = (x + rng.uniform(-1.2, 1.2), height + rng.uniform(-1.2, 1.6), z + rng.uniform(-0.5, 0.5))
                canvas.ball(
                    spot,
                    (rng.uniform(0.8, 1.5), rng.uniform(0.7, 1.3)),
                    shade(color, rng.uniform(0.75, 1.15)),
                    ids.VEGETATION,
                )
            z -= rng.uniform(2.0, 4.0)

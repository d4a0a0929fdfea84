"""From a painted street to a picture: texture, light, wetness, haze, lens and sensor, in this order.

Both domains go through the same steps with other numbers: the rendered look is nearly the painting itself, the camera
look uses every step. Nothing here changes what a pixel shows: labels stay exact.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from segadapt.sample import ids
from segadapt.sample.canvas import DISTANCE_SCALE, Color
from segadapt.sample.street import Drawing
from segadapt.sample.styles import Range
from segadapt.sample.textures import PIXELS_PER_METRE, TILE, rain, sensor_noise, tiles

Plane = NDArray[np.float32]

WRAP = TILE - 1  # TILE is a power of two: `& WRAP` is `% TILE`, much faster
GROUND = (ids.ROAD, ids.SIDEWALK, ids.TERRAIN)
FRONTS = (ids.BUILDING, ids.WALL, ids.FENCE)


@dataclass(frozen=True)
class Look:
    """How pictures of a domain are made; each picture draws new values from the ranges."""

    textures: dict[int, tuple[str, float]]  # label id -> (tile, strength as a share of the colour)
    sun: float  # probability of direct sun, with cast shadows
    shadow: Range  # share of the light that shadows take away
    wet: float  # probability of a wet street
    reflection: Range  # share of the mirror image on a wet street
    rain: float  # probability that it is still raining, when wet
    haze: Range  # density per 100 metres
    haze_colors: tuple[Color, ...]
    exposure: Range  # factor of the light
    cast: float  # largest colour cast: a share, drawn per channel
    saturation: Range
    contrast: Range  # around mid grey
    vignette: Range  # share of the light lost in the corners
    blur: Range  # radius of the lens blur, in pixels at a width of 480
    noise: Range  # standard deviation of the sensor noise at mid grey, in 0..255


@dataclass(frozen=True)
class _Plan:
    """Where each pixel of a picture is: rows and columns, ground distances."""

    ground: NDArray[np.bool_]  # (H, W): the flat street
    distance: Plane  # (H, W) metres
    rows: Plane  # (H, 1) distance of the ground at each row below the horizon, a huge one above
    across: Plane  # (H, W) metres to the right, on the ground


def _plan(drawing: Drawing) -> _Plan:
    height, width = drawing.labels.shape
    camera = drawing.camera
    below = np.arange(height, dtype=np.float32)[:, None] + 0.5 - camera.horizon
    rows = np.where(below > 0.5, camera.focal * camera.height / np.maximum(below, 0.5), 400.0).astype(np.float32)
    across = (np.arange(width, dtype=np.float32)[None] + 0.5 - camera.center) / camera.focal * rows
    codes = np.arange(256) / 255.0
    scale = (-DISTANCE_SCALE * np.log(np.maximum(1 - codes, 1e-3))).astype(np.float32)
    ground = drawing.distances == 0
    return _Plan(ground, np.where(ground, rows, scale[drawing.distances]), rows, across)


def develop(drawing: Drawing, look: Look, rng: Random, sunny: bool) -> NDArray[np.uint8]:
    """The picture (H, W, 3) of a painted street; a pure function of its arguments and of the state of `rng`."""
    plan = _plan(drawing)
    colors = np.ascontiguousarray(drawing.colors.transpose(2, 0, 1))  # (3, H, W): planes are faster to work on
    colors *= 1.0 + _texture(drawing, plan, look, rng)
    if sunny:
        _cast_shadows(colors, drawing, plan, rng, rng.uniform(*look.shadow))
    is_wet = rng.random() < look.wet
    if is_wet:
        _mirror(colors, drawing, plan, rng, rng.uniform(*look.reflection))
    _haze(colors, plan, rng.uniform(*look.haze), rng.choice(look.haze_colors))
    if is_wet and rng.random() < look.rain:
        colors += 60.0 * _window(rain(), drawing.labels.shape, rng)
    _expose(colors, look, rng)
    picture = np.ascontiguousarray(np.clip(colors, 0, 255, out=colors).astype(np.uint8).transpose(1, 2, 0))
    picture = _lens(picture, rng.uniform(*look.blur))
    return _sense(picture, rng.uniform(*look.noise), rng)


def _window(tile: NDArray[np.float32], shape: tuple[int, ...], rng: Random) -> NDArray[np.float32]:
    """A window of the tile at a random place, repeated where the picture is larger than the tile."""
    top, left = rng.randrange(tile.shape[0]), rng.randrange(tile.shape[1])
    if top + shape[0] <= tile.shape[0] and left + shape[1] <= tile.shape[1]:
        return np.asarray(tile[top : top + shape[0], left : left + shape[1]])
    rows = (np.arange(shape[0]) + top) % tile.shape[0]
    columns = (np.arange(shape[1]) + left) % tile.shape[1]
    return np.asarray(tile[rows[:, None], columns[None]])


def _texture(drawing: Drawing, plan: _Plan, look: Look, rng: Random) -> Plane:
    """Relative brightness (H, W) from the textures: in perspective on ground and fronts, flat on the rest."""
    height, width = drawing.labels.shape
    camera, labels = drawing.camera, drawing.labels
    result = np.zeros((height, width), np.float32)
    top = max(0, min(height - 1, int(camera.horizon) + 1))
    shift = rng.randrange(TILE)
    along = (plan.rows[top:] * PIXELS_PER_METRE).astype(np.int32) + shift
    across = (plan.across[top:] * PIXELS_PER_METRE).astype(np.int32)
    ground = (along & WRAP) * TILE + (across & WRAP)
    fade = np.minimum(1.0, 9.0 / plan.rows[top:])
    column = np.arange(width, dtype=np.float32) + 0.5 - camera.center
    fronts = np.where(column > 0, drawing.ground.fronts[1], -drawing.ground.fronts[0])
    away = np.clip(camera.focal * fronts / np.maximum(np.abs(column), 4.0), 1.0, 90.0).astype(np.float32)
    rising = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - camera.horizon) * (away / camera.focal)
    upright = (rising * PIXELS_PER_METRE).astype(np.int32) & WRAP
    upright *= TILE
    upright += ((away * PIXELS_PER_METRE).astype(np.int32) + shift) & WRAP
    front_fade = np.minimum(1.0, 14.0 / away)
    for label, (name, strength) in look.textures.items():
        here = labels == label
        tile = tiles()[name]
        if label in GROUND:
            here = here[top:]
            result[top:][here] = strength * (tile.ravel().take(ground[here]) * np.broadcast_to(fade, here.shape)[here])
        elif label in FRONTS:
            result[here] = strength * (tile.ravel().take(upright[here]) * np.broadcast_to(front_fade, here.shape)[here])
        else:
            result[here] = strength * _window(tile, here.shape, rng)[here]
    return result


def _cast_shadows(colors: Plane, drawing: Drawing, plan: _Plan, rng: Random, depth: float) -> None:
    """Shadows of the houses of one side on the street: each stretch has its own reach."""
    side = rng.randrange(2)
    reach = np.array([rng.uniform(0.5, 9.0) if rng.random() < 0.7 else 0.0 for _ in range(16)], np.float32)
    stretch = np.minimum((plan.distance + 0.6 * plan.across) / 7.0, 15.0).astype(np.int32)
    front = drawing.ground.fronts[side]
    shadowed = plan.ground & (np.abs(plan.across - front) < reach[np.maximum(stretch, 0)])
    colors *= np.where(shadowed, np.float32(1 - depth), np.float32(1))


def _mirror(colors: Plane, drawing: Drawing, plan: _Plan, rng: Random, share: float) -> None:
    """What stands above the horizon, mirrored on the wet street, more in puddles and farther away."""
    height, _ = drawing.labels.shape
    rows = np.clip(2 * drawing.camera.horizon - np.arange(height) * 1.0 + 6, 0, height - 1).astype(np.int32)
    puddles = _window(tiles()["clouds"], drawing.labels.shape, rng)
    amount = share * np.clip(0.6 + 0.35 * puddles, 0.1, 1.2) * np.isin(drawing.labels, (ids.ROAD, ids.SIDEWALK))
    colors += (colors[:, rows] - colors) * np.minimum(amount, 0.85).astype(np.float32)


def _haze(colors: Plane, plan: _Plan, density: float, color: Color) -> None:
    clear = np.exp(-plan.distance * (density / 100.0))
    for plane, level in zip(colors, color, strict=True):
        plane -= level
        plane *= clear
        plane += level


def _expose(colors: Plane, look: Look, rng: Random) -> None:
    """Saturation, contrast, exposure, colour cast and vignette, in place."""
    saturation, contrast = rng.uniform(*look.saturation), rng.uniform(*look.contrast)
    exposure, corners = rng.uniform(*look.exposure), rng.uniform(*look.vignette)
    height, width = colors.shape[1:]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    light = exposure * (1 - corners / 2 * (rows + columns))
    gray = (colors[0] + colors[1] + colors[2]) * np.float32((1 - saturation) * contrast / 3)
    gray += np.float32(128 * (1 - contrast))
    for plane in colors:
        plane *= saturation * contrast
        plane += gray
        plane *= light * np.float32(1 + rng.uniform(-look.cast, look.cast))


def _lens(picture: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    radius *= picture.shape[1] / 480
    if radius < 0.2:
        return picture
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _sense(picture: NDArray[np.uint8], deviation: float, rng: Random) -> NDArray[np.uint8]:
    """Sensor noise that grows with the square root of the light."""
    if deviation <= 0:
        return picture
    levels = (deviation * np.sqrt((np.arange(256) + 12.0) / 140.0)).astype(np.float32)
    noisy = levels[picture]
    noisy *= _window(sensor_noise(), picture.shape, rng)
    noisy += picture
    return np.asarray(np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy), np.uint8)


RENDERED = Look(
    textures={
        ids.ROAD: ("asphalt", 0.04),
        ids.SIDEWALK: ("asphalt", 0.03),
        ids.TERRAIN: ("grass", 0.06),
        ids.VEGETATION: ("foliage", 0.06),
        ids.BUILDING: ("plaster", 0.02),
    },
    sun=0.8, shadow=(0.35, 0.5), wet=0.0, reflection=(0.0, 0.0), rain=0.0,
    haze=(0.0, 0.25), haze_colors=((200, 220, 240),),
    exposure=(0.92, 1.08), cast=0.03, saturation=(0.95, 1.1), contrast=(0.95, 1.05), vignette=(0.0, 0.05),
    blur=(0.0, 0.0), noise=(0.0, 0.0),
)  # fmt: skip

CAMERA = Look(
    textures={
        ids.ROAD: ("cobbles", 0.10),
        ids.SIDEWALK: ("slabs", 0.10),
        ids.TERRAIN: ("grass", 0.20),
        ids.VEGETATION: ("foliage", 0.25),
        ids.BUILDING: ("bricks", 0.08),
        ids.WALL: ("plaster", 0.12),
        ids.FENCE: ("plaster", 0.10),
        ids.SKY: ("clouds", 0.05),
    },
    sun=0.25, shadow=(0.3, 0.55), wet=0.35, reflection=(0.12, 0.40), rain=0.5,
    haze=(0.15, 1.1), haze_colors=((206, 208, 210), (190, 196, 204), (214, 206, 194)),
    exposure=(0.88, 1.15), cast=0.05, saturation=(0.75, 1.0), contrast=(0.88, 1.08), vignette=(0.05, 0.25),
    blur=(0.4, 1.2), noise=(2.5, 7.0),
)  # fmt: skip

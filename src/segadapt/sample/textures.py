"""Tiles of texture and noise, drawn once per process: each image takes random windows of them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Tile = NDArray[np.float32]

TILE = 512  # pixels, both ways; tiles repeat without a seam
PIXELS_PER_METRE = 48  # of tiles that lie on the ground or on house fronts


def _fractal(generator: np.random.Generator, slope: float, finest: float) -> Tile:
    """Noise with a spectrum f^-slope up to `finest` (share of the Nyquist frequency); mean 0, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(generator.standard_normal((TILE, TILE))) * frequency**-slope
    spectrum[frequency > finest / 2] = 0
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.asarray(noise / noise.std(), np.float32)


def _masonry(generator: np.random.Generator, width: int, height: int, joint: int) -> Tile:
    """Courses of stones of their own shades with dark joints, every second course shifted by half a stone."""
    rows, columns = np.mgrid[0:TILE, 0:TILE]
    course = rows // height
    shifted = (columns + (course % 2) * (width // 2)) % TILE
    shades = generator.standard_normal((TILE // height + 1, TILE // width + 1))
    tile = 0.8 * shades[course, shifted // width]
    tile[(rows % height < joint) | (shifted % width < joint)] = -1.8
    return np.asarray(tile - tile.mean(), np.float32)


@cache
def tiles() -> dict[str, Tile]:
    """All texture tiles (TILE, TILE) by name, mean 0 and standard deviation about 1."""
    generator = np.random.default_rng(20190127)
    return {
        "none": np.zeros((TILE, TILE), np.float32),
        "clouds": _fractal(generator, 1.6, 0.5),
        "asphalt": 0.5 * _fractal(generator, 1.2, 0.3) + 0.7 * _fractal(generator, 0.0, 0.7),
        "cobbles": _masonry(generator, 8, 8, 1) + 0.4 * _fractal(generator, 1.4, 0.5),
        "slabs": _masonry(generator, 32, 32, 1) + 0.4 * _fractal(generator, 0.5, 0.8),
        "bricks": _masonry(generator, 16, 8, 1) + 0.5 * _fractal(generator, 1.4, 0.5),
        "plaster": 0.8 * _fractal(generator, 1.5, 0.5) + 0.3 * _fractal(generator, 0.0, 0.9),
        "grass": _fractal(generator, 0.6, 0.6),
        "foliage": np.tanh(1.5 * _fractal(generator, 0.7, 0.5)).astype(np.float32),
    }


@cache
def sensor_noise() -> NDArray[np.float32]:
    """White noise (2·TILE, 2·TILE, 3), standard deviation 1, a little alike in the three channels."""
    generator = np.random.default_rng(20190128)
    noise = generator.standard_normal((2 * TILE, 2 * TILE, 3), dtype=np.float32)
    shared = generator.standard_normal((2 * TILE, 2 * TILE, 1), dtype=np.float32)
    return np.asarray(0.8 * noise + 0.6 * shared, dtype=np.float32)


@cache
def rain() -> Tile:
    """Slanted streaks (2·TILE, 2·TILE) in 0..1."""
    generator = np.random.default_rng(20190129)
    side = 2 * TILE
    drops = (generator.random((side, side)) < 0.0012).astype(np.float32)
    streaks = np.zeros_like(drops)
    for step in range(14):
        streaks += np.roll(drops, (step, -(step // 4)), axis=(0, 1))
    return np.minimum(streaks, 1.0)

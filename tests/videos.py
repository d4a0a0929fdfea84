"""Small videos for the tests: frames in, a file out, with sound, odd times, a rotation; and what is in a file."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segadapt.data.label_spaces import LabelSpace

av = pytest.importorskip("av", reason="the extra is not installed: pip install 'segadapt[video]'")
"""Whoever imports this file is skipped without it."""

Picture = NDArray[np.uint8]
RATE = Fraction(30000, 1001)
SAMPLES = 48_000
"""Sound per second, and samples in a frame of it."""
BLOCK = 960
QUARTERS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""Degrees clockwise -> display matrix (a, b, c, d)."""


def painted(space: LabelSpace, labels: Picture) -> Picture:
    """Train ids (h, w) as an RGB frame in their colours, 8 pixels each."""
    return space.palette[labels.repeat(8, 0).repeat(8, 1)]


def write(
    path: Path,
    frames: Sequence[Picture],
    rate: Fraction = RATE,
    sound: str | None = None,
    times: Sequence[int] | None = None,
    codec: str = "libx264rgb",
) -> Path:
    """A video that keeps pixels as they are (`libx264rgb`); `times` in 1 / 30000 s, `sound` a codec for a beep."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=rate, options={"qp": "0", "bf": "0"})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p"
        video.codec_context.time_base = Fraction(1, 30000)
        beep: Any = None if sound is None else container.add_stream(sound, rate=SAMPLES, layout="mono")
        sounding = 0
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = round(number * 30000 / rate) if times is None else times[number]
            frame.time_base = Fraction(1, 30000)
            container.mux(video.encode(frame))
            while beep is not None and sounding / SAMPLES < (number + 1) / rate:
                wave = (8000 * np.sin(np.arange(sounding, sounding + BLOCK) / 3)).astype(np.int16)[None]
                heard = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = SAMPLES, sounding, Fraction(1, SAMPLES)
                container.mux(beep.encode(heard))
                sounding += BLOCK
        for stream in (video, beep):
            if stream is not None:
                container.mux(stream.encode(None))
    return path


def turn(path: Path, degrees: int) -> Path:
    """Say in an MP4 file that players turn it clockwise, as phones do: the matrix of its first track."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in QUARTERS[degrees])
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@dataclass
class Found:
    """What a video holds."""

    frames: list[Picture] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)  # of the sound
    rate: Fraction | None = None
    codecs: tuple[str, ...] = ()
    pixels: str = ""
    sound_seconds: float = 0.0


def read(path: Path) -> Found:
    """All of a video."""
    found = Found()
    with av.open(str(path)) as container:
        found.codecs = tuple(stream.codec_context.name for stream in container.streams)
        video = container.streams.video[0]
        found.rate, found.pixels = video.average_rate, str(video.codec_context.pix_fmt)
        for packet in container.demux(*container.streams):
            if packet.stream.type == "audio":
                if packet.dts is not None:
                    found.packets.append(bytes(packet))
                    found.sound_seconds = float((packet.pts + packet.duration) * packet.time_base)
                continue
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                found.frames.append(frame.to_ndarray(format="rgb24"))
                found.times.append(float(frame.time or 0))
    return found


def nearest(space: LabelSpace, picture: Picture) -> Picture:
    """RGB (H, W, 3) -> the class of the nearest colour in the middle of each 8×8 block, (H / 8, W / 8)."""
    middles = picture[4::8, 4::8].astype(np.int64)[..., None, :]
    distance = np.square(middles - space.colors.astype(np.int64)).sum(-1)
    labels: Picture = distance.argmin(-1).astype(np.uint8)
    return labels

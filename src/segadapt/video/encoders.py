"""Which encoder writes a video: the usual one of a container, or one that somebody names, of a GPU for instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from segadapt.errors import UsageError
from segadapt.video.library import reason

FORMS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix -> FFmpeg's name of the container."""
X264, VP9 = "libx264", "libvpx-vp9"
QUALITY: Mapping[str, Mapping[str, str]] = {
    X264: {"crf": "20", "preset": "veryfast"},
    "libx265": {"crf": "24", "preset": "veryfast", "x265-params": "log-level=none"},
    VP9: {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"},
}
"""Options of encoders whose scale of quality is known here; others get a bit rate."""
BITS = Fraction(15, 100)
"""For a pixel of a frame, of encoders that get a bit rate: 8 Mbit/s at 1920×1080 and 25 frames per second."""
PIXELS = ("yuv420p", "nv12")
"""4:2:0 as encoders take it from memory."""
CODECS = {
    ".mp4": {"h264", "hevc", "av1", "vp9", "mpeg4"},
    ".mov": {"h264", "hevc", "mpeg4"},
    ".mkv": {"h264", "hevc", "av1", "vp9", "vp8", "mpeg4"},
    ".webm": {"av1", "vp9", "vp8"},
}
"""What players expect in a container."""
HARDWARE = 0x40000 | 0x80000
"""AV_CODEC_CAP_HARDWARE and AV_CODEC_CAP_HYBRID."""
TRIED = (320, 240)
"""Size of the video that is begun to see whether an encoder works: the smallest is larger than 128 for some."""


@dataclass(frozen=True)
class Encoder:
    """An encoder that works here, with its options and the pixels it takes."""

    name: str
    options: Mapping[str, str]
    pixels: str

    def bit_rate(self, width: int, height: int, rate: Fraction) -> int | None:
        """Bits per second for frames of this size; None where the options say how good it is."""
        return None if self.options else round(width * height * rate * BITS)


def encoder_for(suffix: str, name: str | None = None, where: str = "--encoder") -> Encoder:
    """The encoder of that name, or the usual one, for a video whose name has this suffix.

    Raises UsageError when this build of FFmpeg does not have it, when no such video holds what it makes, and when it
    does not work here, as where the hardware or its driver is missing.
    """
    if name is None:
        name, where = VP9 if suffix == ".webm" else X264, "--out"
    codec = _codec(name)
    if codec is None:
        raise _unknown(name, suffix, where)
    if codec.canonical_name not in CODECS[suffix]:
        raise UsageError(
            f"{name} makes {codec.canonical_name}, which players do not expect in {suffix}",
            where=where,
            remedy=f"For {suffix} there are {', '.join(_offered(suffix))}; .mkv takes most.",
        )
    taken = [form.name for form in codec.video_formats or ()]
    pixels = next((form for form in PIXELS if form in taken or not taken), None)
    if pixels is None:
        raise UsageError(f"{name} takes no 4:2:0 frames from memory", where=where, remedy=_others(suffix))
    found = Encoder(name, QUALITY.get(name, {}), pixels)
    _try(found, suffix, where)
    return found


def _codec(name: str) -> av.Codec | None:
    """The video encoder of exactly this name; None where this build has none."""
    try:
        codec = av.Codec(name, "w")
    except (av.FFmpegError, ValueError):
        return None
    return codec if codec.type == "video" and codec.name == name else None


def _offered(suffix: str, hardware: bool = True) -> list[str]:
    """The encoders of this build for a container; whether the hardware of some is there only a trial tells."""
    codecs = [codec for name in sorted(av.codecs_available) if (codec := _codec(name)) is not None]
    return [
        codec.name
        for codec in codecs
        if codec.canonical_name in CODECS[suffix]
        and (hardware or not codec.capabilities & HARDWARE)
        and (not codec.video_formats or any(form.name in PIXELS for form in codec.video_formats))
    ]


def _others(suffix: str) -> str:
    return f"It has for {suffix}: {', '.join(_offered(suffix))}."


def _unknown(name: str, suffix: str, where: str) -> UsageError:
    wheels = "Install the wheels of PyPI, which have it: pip install --force-reinstall 'segadapt[video]'."
    return UsageError(
        f"this build of PyAV has no encoder {name}",
        where=where,
        remedy=wheels if name in (X264, VP9) else _others(suffix),
    )


def _try(found: Encoder, suffix: str, where: str) -> None:
    """Begin a small video in memory. Raises UsageError when the encoder does not begin."""
    try:
        context: Any = av.CodecContext.create(found.name, "w")
        context.width, context.height = TRIED
        context.pix_fmt = found.pixels
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = dict(found.options)
        bits = found.bit_rate(*TRIED, Fraction(25))
        if bits is not None:
            context.bit_rate = bits
        context.open()
    except av.FFmpegError as error:
        raise UsageError(
            f"{found.name} does not work on this machine ({reason(error)})",
            where=where,
            remedy="Check that its hardware and driver are there. Without any there are, for "
            f"{suffix}: {', '.join(_offered(suffix, hardware=False))}.",
        ) from error

"""Predicted frames as a video, with the sound of the source.

While it is being written, a video is called NAME.unfinished.SUFFIX and can be played up to about its last half second
whatever happens: MP4 and MOV are fragmented until they are closed, Matroska and WebM consist of clusters.
"""

import errno
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from segadapt.errors import SegadaptError
from segadapt.files import write_failure
from segadapt.video.encoders import FORMS, Encoder, encoder_for
from segadapt.video.library import reason
from segadapt.video.panels import Panels
from segadapt.video.source import Frame, Picture, Sound, Source

FRAGMENTS = {
    # Fragments while writing, replaced by a complete index on closing.
    "movflags": "frag_keyframe+delay_moov+hybrid_fragmented+default_base_moof",
    "frag_duration": "500000",  # microseconds
}
CLUSTERS = {"cluster_time_limit": "500"}  # milliseconds; a cluster is written once complete
FLUSHED = {"flush_packets": "1"}
COPIED = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    ".mov": {"aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le"},
    ".webm": {"opus", "vorbis"},
}
"""Codecs that players expect in a container, copied unchanged; Matroska takes any. Other sound is re-encoded."""

ENCODED = {".webm": ("libopus", 48_000)}
"""Codec and sample rate of re-encoded sound; elsewhere AAC at the original rate."""


OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG)
"""Error numbers that do not come from a codec, for which FFmpeg uses others."""


class VideoSink:
    """Writes each frame's panels, and the sound, to `path`. Call `close` at the end, also after an error.

    The frame rate is the source's by the selection's; each frame keeps its own time. `encoder`: None for the usual one
    of the container; raises UsageError when it cannot be used here.
    """

    overwrites = True

    def __init__(self, path: Path, suffix: str, source: Source, panels: Panels, encoder: Encoder | None = None) -> None:
        self.path, self.suffix, self.source, self.panels = path, suffix, source, panels
        self.encoder = encoder or encoder_for(suffix)
        self.written = 0
        self._size: tuple[int, int] | None = None
        self._container: OutputContainer | None = None
        self._video: Any = None
        self._sound: Any = None
        self._copies = True
        self._early: list[Sound] = []
        self._last = -1  # time of the newest frame in the source's time base
        self._heard = Fraction(-(2**40))  # and of the newest packet of sound in seconds

    def wants(self, frame: Frame) -> bool:
        """Every frame."""
        return True

    def compose(self, frame: Frame, labels: Sequence[Picture]) -> tuple[Picture, Fraction]:
        """Compose the picture of a frame; may be called from threads."""
        size = self._size
        if size is None:
            raise RuntimeError("`begin` comes before the first frame")
        return self.panels.compose(frame.image, labels, size), frame.time

    def begin(self, frame: Frame) -> None:
        """Let the first frame set the size of panels."""
        self._size = self._size or (frame.image.shape[1], frame.image.shape[0])

    def write(self, made: tuple[Picture, Fraction]) -> None:
        """Encode a picture at its timestamp; in order."""
        picture, time = made
        try:
            if self._container is None:
                self._open(picture)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=self.encoder.pixels, dst_colorspace=Colorspace.ITU709)
            stamp = max(round(time / self.source.time_base), self._last + 1)
            frame.pts, frame.time_base, self._last = stamp, self.source.time_base, stamp
            self._mux(self._video.encode(frame))
        except av.FFmpegError as error:
            raise self._failure(error) from error
        self.written += 1

    def write_sound(self, sound: Sound) -> None:
        """Write a packet of the source's sound, copied or re-encoded."""
        if self._container is None:  # the header needs the first frame's size
            self._early.append(sound)
            return
        packet = sound.packet
        time = packet.dts * packet.time_base
        if time <= self._heard:  # containers reject timestamps that go back
            return
        self._heard = time
        try:
            if self._copies:
                packet.stream = self._sound
                self._container.mux(packet)
                return
            for frame in _decoded(packet):
                self._mux(self._sound.encode(frame))
        except av.FFmpegError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Flush the encoders and write the index."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            for stream in (self._video, None if self._copies else self._sound):
                if stream is not None:
                    container.mux(stream.encode(None))
            container.close()
        except av.FFmpegError as error:
            raise self._failure(error) from error

    def _open(self, picture: Picture) -> None:
        """Start the file, now that the size of its frames is known."""
        source = self.source
        options = FLUSHED | (FRAGMENTS if self.suffix in (".mp4", ".mov") else CLUSTERS)
        container = av.open(f"file:{self.path}", "w", format=FORMS[self.suffix], options=options)
        rate = source.rate / source.selection.every
        encoder, rate = self.encoder, rate.limit_denominator(100_000)
        video: Any = container.add_stream(encoder.name, rate=rate, options=dict(encoder.options))
        video.height, video.width = picture.shape[:2]
        video.pix_fmt = encoder.pixels
        bits = encoder.bit_rate(video.width, video.height, rate)
        if bits is not None:
            video.bit_rate = bits
        context = video.codec_context
        context.time_base = source.time_base
        context.gop_size = max(1, round(2 * rate))  # so that players can seek to every other second
        context.sample_aspect_ratio = source.pixel_aspect
        # What players assume from 720 lines on, specified for all sizes.
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        if source.sound is not None:
            self._open_sound(container, source.sound)
        self._container, self._video = container, video
        early, self._early = self._early, []
        for sound in early:
            self.write_sound(sound)

    def _open_sound(self, container: OutputContainer, sound: Any) -> None:
        """Add the sound unchanged if players expect its codec, else in the container's usual codec."""
        codec = sound.codec_context.codec.canonical_name
        bare = codec == "aac" and not sound.codec_context.extradata  # a broadcast's: its parameters are in its packets
        self._copies = codec in COPIED.get(self.suffix, {codec}) and not bare
        if self._copies:
            self._sound = container.add_stream_from_template(sound)
            return
        layout = sound.codec_context.layout.name
        if "channels" in layout:  # a file that does not specify its channels
            layout = "mono" if sound.codec_context.channels == 1 else "stereo"
        name, samples = ENCODED.get(self.suffix, ("aac", None))
        self._sound = container.add_stream(name, rate=samples or sound.codec_context.sample_rate, layout=layout)

    def _mux(self, packets: Sequence[Any]) -> None:
        assert self._container is not None
        for packet in packets:
            self._container.mux(packet)

    def _failure(self, error: Exception) -> SegadaptError:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            return write_failure(self.path, OSError(error.errno, reason(error)))
        return SegadaptError(
            f"cannot be encoded ({reason(error)})", where=self.path, remedy="Try another suffix: .mkv takes most."
        )


def _decoded(packet: Any) -> list[Any]:
    """The frames of a packet of sound; none if it is broken."""
    try:
        frames: list[Any] = packet.decode()
    except av.FFmpegError:  # AAC says "not permitted" of some
        return []
    return frames

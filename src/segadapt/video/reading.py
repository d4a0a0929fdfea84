"""Videos, streams and cameras as sources, read with PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace

from segadapt.data.orientation import Exif
from segadapt.data.reading import max_pixels, too_large
from segadapt.errors import SegadaptError, UsageError
from segadapt.video.inputs import CAMERA, camera, is_live, is_stream
from segadapt.video.library import reading_failure, shown
from segadapt.video.source import Frame, Picture, Selection, Sound, Source

PATIENCE = 20.0
"""Seconds without data after which a stream counts as disconnected."""
RATE = Fraction(25)
"""Frames per second of a video that does not specify it."""
FASTEST = 1000
"""Plausible frames per second."""
HIGH_DEFINITION = 720
"""From so many lines on, players take unspecified colours for BT.709, below for BT.601."""
UNTOLD = 2
"""AVCOL_SPC_UNSPECIFIED."""
COVER = 0x400
"""AV_DISPOSITION_ATTACHED_PIC: a picture in a sound file."""
CLIPS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mjpeg,h264,hevc,yuv4mpegpipe,mxf"
"""FFmpeg's names of self-contained formats; a playlist would refer to other files and addresses."""


class VideoSource(Source):
    """The first video stream of a file, an address or a camera, and its sound.

    Timestamps are those of the frames, so a variable frame rate stays variable, and start at 0. `exif` "turn" turns
    frames upright as players do (phones store a rotation), "raw" keeps them as stored. Packets that cannot be decoded
    are skipped and reported; `place` is the folder of the frames' places, which are numbered from 0. A `stranger`'s
    file must be self-contained: nothing else is opened on its behalf.

    Raises UsageError for what does not exist or has no video, SegadaptError for what cannot be read.
    """

    def __init__(
        self,
        text: str,
        selection: Selection = Selection(),
        exif: Exif = "turn",
        place: Path = Path(),
        sound: bool = True,
        stranger: bool = False,
    ) -> None:
        self.selection, self.broken, self._exif, self._place = selection, [], exif, place
        self._path = camera(text) or text
        self.name = shown(self._path)
        self._container = _opened(self._path, stranger)
        videos = [stream for stream in self._container.streams.video if not int(stream.disposition) & COVER]
        if not videos:
            self._container.close()
            raise UsageError("has no video stream", where=self.name, remedy="Give a file that has one.")
        self._stream: Any = videos[0]  # has the attributes of the stream and of its codec
        self._stream.thread_type = "AUTO"
        sounds = [track for track in self._container.streams.audio if track.sample_rate and track.channels]
        self.sound = sounds[0] if sound and sounds else None  # a track without a known codec cannot be decoded
        self.rate = _believed(self._stream.average_rate) or _believed(self._stream.guessed_rate) or RATE
        self.time_base = self._stream.time_base or 1 / self.rate
        duration = self._container.duration
        self.live = duration is None and is_live(text)
        self.frames = self._stream.frames or (None if duration is None else round(duration * self.rate / av.time_base))
        self._start = _start([self._stream] if self.sound is None else [self._stream, self.sound])
        self._lost = 0

    def items(self) -> Iterator[Frame | Sound]:
        """Frames and sound in the order in which they are stored."""
        number, streams = 0, [self._stream] if self.sound is None else [self._stream, self.sound]
        for packet in self._packets(streams):
            if packet.stream.index != self._stream.index:
                if packet.pts is None or packet.dts is None:  # the end of the stream
                    continue
                shift = round(self._since(packet) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                if not self.selection.ends_before(packet.pts * packet.time_base):
                    yield Sound(packet)
                continue
            for frame in self._decoded(packet):
                time = number / self.rate if frame.pts is None else frame.pts * self.time_base - self._since(frame)
                if self.selection.ends_before(time):
                    self._tell_lost()
                    return
                if number % self.selection.every == 0:
                    yield Frame(self._pixels(frame), time, self._place / f"{number:06d}")
                number += 1
        self._tell_lost()
        if number == 0:
            raise SegadaptError("holds no frame that can be decoded", where=self.name, remedy="Replace the file.")

    def close(self) -> None:
        """Close the file; nothing may be reading it."""
        self._container.close()

    def _packets(self, streams: list[Any]) -> Iterator[Any]:
        try:
            yield from self._container.demux(streams)
        except av.FFmpegError as error:
            raise reading_failure(self._path, error) from error

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames of a packet; none if it is broken, as the first of a stream may be, which can start anywhere."""
        try:
            frames: list[Any] = packet.decode()
        except (av.InvalidDataError, av.PatchWelcomeError):
            self._lost += 1
            return []
        except av.FFmpegError as error:
            raise reading_failure(self._path, error) from error
        first = self._stream.codec_context
        self.pixel_aspect = first.sample_aspect_ratio or Fraction(1)
        return frames

    def _since(self, thing: Any) -> Fraction:
        """The file's time that counts as 0, in seconds; if unspecified, that of the first packet."""
        if self._start is None:
            self._start = thing.pts * thing.time_base
        return self._start

    def _pixels(self, frame: Any) -> Picture:
        if frame.width * frame.height > max_pixels():
            raise too_large(self.name, f"frames of {frame.width}×{frame.height} pixels, more than {max_pixels():,}")
        untold = frame.colorspace == UNTOLD and frame.height >= HIGH_DEFINITION
        space = Colorspace.ITU709 if untold else None
        image: Picture = frame.reformat(format="rgb24", src_colorspace=space).to_ndarray()
        return upright(image, _matrix(frame)) if self._exif == "turn" else image

    def _tell_lost(self) -> None:
        if self._lost and not self.live:
            what = f"{self._lost} packets could not be decoded" if self._lost > 1 else "a packet could not be decoded"
            remedy = "Replace the file, or see whether a player shows the same gaps."
            self.broken.append(SegadaptError(f"{what}; their frames are left out", where=self.name, remedy=remedy))


def upright(image: Picture, matrix: tuple[int, int, int, int] | None) -> Picture:
    """An image turned by a display matrix (a, b, c, d): pixel (x, y) is shown at (a·x + c·y, b·x + d·y), y downwards.

    Quarter turns and mirroring only, which is all that cameras write; None leaves it unchanged.
    """
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


def _matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The upper left of a frame's display matrix (the rest translates and zooms), None if it has none."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return None
    values = np.frombuffer(bytes(data), np.int32)
    return int(values[0]), int(values[1]), int(values[3]), int(values[4])


def _opened(path: str, stranger: bool = False) -> InputContainer:
    """A file, an address or a camera. Raises SegadaptError in words."""
    options: dict[str, Any] = {"metadata_errors": "replace"}
    if is_stream(path):
        options["timeout"] = (PATIENCE, PATIENCE)
        if path.lower().startswith("rtsp"):
            options["options"] = {"rtsp_transport": "tcp"}  # over UDP, lost packets become grey frames
    elif path.startswith(CAMERA):
        options["format"] = "v4l2"
    else:
        path = f"file:{path}"  # a file name with a colon is not an address
        if stranger:
            options["options"] = {"format_whitelist": CLIPS, "protocol_whitelist": "file"}
    try:
        container: InputContainer = av.open(path, **options)
        return container
    except (av.FFmpegError, ValueError) as error:
        raise reading_failure(path.removeprefix("file:"), error) from error


def _believed(rate: Fraction | None) -> Fraction | None:
    return rate if rate is not None and 0 < rate <= FASTEST else None


def _start(streams: list[Any]) -> Fraction | None:
    """Start of the earliest stream, in seconds; None if one does not specify it."""
    starts = [None if stream.start_time is None else stream.start_time * stream.time_base for stream in streams]
    return None if None in starts else min(start for start in starts if start is not None)

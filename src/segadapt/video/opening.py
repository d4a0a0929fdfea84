"""From words to a source: one video, a camera, a stream, or images as one sequence."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from segadapt.data.orientation import Exif
from segadapt.errors import UsageError
from segadapt.video.inputs import images_of, is_video
from segadapt.video.library import need_av
from segadapt.video.sequence import RATE, ImageSource, Place
from segadapt.video.source import Selection, Source


def one_source(
    inputs: Sequence[str],
    selection: Selection = Selection(),
    fps: float | None = None,
    exif: Exif = "turn",
    *,
    out: Path | None = None,
    sound: bool = True,
    dashes: str = "--",
) -> Source:
    """What one video is made from: one video, or images. What lies in `out` is left out.

    `dashes` stand before the names of options in messages. Raises UsageError for several videos, for `fps` of a video,
    and for what is not there.
    """
    videos = [text for text in inputs if is_video(text, to_video=True)]
    if not videos:
        return sequence(images_of(inputs, out), selection, fps, exif)
    if len(inputs) > 1:
        raise UsageError(
            f"{len(inputs)} inputs cannot become one video",
            where=out or "video",
            remedy="Give one video, or images alone; several videos can go into a folder: -o folder/.",
        )
    if fps is not None:
        raise UsageError("is for images: a video has its own frame rate", where=f"{dashes}fps", remedy="Leave it out.")
    return one_video(videos[0], selection, exif, sound=sound)


def one_video(
    text: str, selection: Selection = Selection(), exif: Exif = "turn", *, place: Path = Path(), sound: bool = False
) -> Source:
    """A video, camera or stream. Raises UsageError where PyAV is missing, else as `VideoSource`."""
    need_av()
    from segadapt.video.reading import VideoSource

    return VideoSource(text, selection, exif, place, sound)


def sequence(images: Sequence[Place], selection: Selection, fps: float | None, exif: Exif) -> Source:
    """Images as frames."""
    rate = RATE if fps is None else Fraction(fps).limit_denominator(1001)
    return ImageSource(images, selection, rate, exif)

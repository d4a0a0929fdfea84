"""Predict a clip with models, as a video that browsers play."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segadapt.app.networks import Segmenter
from segadapt.inference.streams import readers
from segadapt.video.flow import Running, play
from segadapt.video.library import need_av
from segadapt.video.panels import Panels, View
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Selection

SUFFIX = ".mp4"


@dataclass(frozen=True)
class ClipOptions:
    """How a clip is shown, and how much of it."""

    view: View = "overlay"
    opacity: float = 0.55
    seconds: float = 10.0
    every: int = 1
    smooth: float = 0.0


@dataclass(frozen=True)
class Clip:
    """A predicted clip, and the text about it."""

    file: Path | None  # None: stopped before the first frame
    said: str


def predict_clip(
    clip: Path,
    folder: Path,
    segmenters: Sequence[Segmenter],
    options: ClipOptions,
    progress: Callable[[int, int | None], None],
    stopped: Callable[[], bool],
) -> Clip:
    """Write the predicted clip into `folder`; if it is stopped, the part done so far.

    Raises SegadaptError for a clip that cannot be read, and then removes the output.
    """
    need_av()
    from segadapt.video.reading import VideoSource
    from segadapt.video.writing import VideoSink

    out = folder / f"{clip.stem[:60]}{SUFFIX}"
    source = VideoSource(str(clip), Selection(options.every, options.seconds), stranger=True)
    folder.mkdir(parents=True, exist_ok=True)
    spaces, names = [one.space for one in segmenters], [one.name for one in segmenters]
    sink = VideoSink(out, SUFFIX, source, Panels(options.view, spaces, names, options.opacity))
    labels = [FrameLabels(one.predictor, options.smooth) for one in segmenters]
    try:
        played = play(source, labels, sink, Running(readers(labels[0].predictor.device), progress, stopped))
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    broken = f" {source.broken[0]}" if source.broken else ""
    if not sink.written:
        out.unlink(missing_ok=True)
        return Clip(None, f"Stopped before the first frame was predicted.{broken}")
    ended = f"{played.frames} frames predicted" if played.ended else f"Stopped after {played.frames} frames"
    return Clip(out, f"{ended}.{broken}")

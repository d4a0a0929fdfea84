"""Videos in Python: `segadapt.predict_video` writes one, `segadapt.predict_frames` gives frame after frame."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from segadapt.data.orientation import Exif
from segadapt.errors import SegadaptError, SegadaptErrors, UsageError, nearest
from segadapt.files import exists, need_regular, need_writable, unfinished_file, user_path
from segadapt.inference.model import MODEL, LabelledImage, Model, load
from segadapt.inference.streams import need_other_places, readers
from segadapt.video.flow import Running, Sink, labelled, play
from segadapt.video.inputs import WRITTEN, is_live, writes_video
from segadapt.video.library import need_av
from segadapt.video.opening import one_source
from segadapt.video.panels import Panels, View, parse_view
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Selection, Source
from segadapt.weights.hub import is_hub

ModelLike = Model | Path | str
"""A loaded model, or what `segadapt.load` takes."""
VideoLike = Path | str | int | Sequence[Path | str]
"""A video, a folder of frames, a pattern, an address, the number of a camera; or several images."""
MOST_SMOOTH = 0.99


@dataclass(frozen=True)
class VideoFrame:
    """One frame as it was read."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    time: float  # seconds since the beginning
    name: str  # of a video its number from 0, six digits; of images the file's name without suffix


def predict_video(
    models: ModelLike | Sequence[ModelLike],
    video: VideoLike,
    out: Path | str,
    *,
    view: View = "overlay",
    every: int = 1,
    seconds: float | None = None,
    smooth: float = 0.0,
    fps: float | None = None,
    encoder: str | None = None,
    overwrite: bool = False,
    exif: Exif = "turn",
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Predict every frame of a video and write what is seen as a video, with its sound; gives the number of frames.

    `models` is one model, or several, which are shown side by side: each loaded (`segadapt.load` says at which size and
    where it runs), or a path. `video` is a file, a folder or list of images, a pattern (`frames/%06d.png`), an address
    or the number of a camera. `out` ends in .mp4, .mov, .mkv or .webm.

    `view`: "overlay", "side-by-side" or "labels". Every `every`-th frame is taken, of the first `seconds`; `smooth` (0
    … 0.99) averages class probabilities over time; `fps` is the frame rate of images (None: 25); `encoder` is FFmpeg's
    name of one (None: H.264 by x264, in .webm VP9). `progress` is called with (frames done, all or None).

    While it is written the file is called NAME.unfinished.SUFFIX; that one stays if the writing is interrupted. Raises
    UsageError for what cannot be, or is there already and not to be replaced (`overwrite`); SegadaptError at the end,
    when the video is written, for frames that could not be read. Needs the extra `video`.
    """
    path, inputs = user_path(out), _inputs(video)
    selection, shown = _checked(every, seconds, smooth, fps, exif), parse_view(view, "view")
    if not writes_video(path):
        remedy = f"Let its name end in {', '.join(WRITTEN)}; for pictures use predict_frames, and `save`."
        raise UsageError("is no video's name", where=path, remedy=remedy)
    need_av()
    need_regular(path)
    need_other_places([Path(text) for text in inputs], [path])
    if exists(path) and not overwrite:
        raise UsageError("is there already", where=path, remedy="Give another name, or overwrite=True.")
    need_writable(path)
    from segadapt.video.encoders import encoder_for
    from segadapt.video.writing import VideoSink

    suffix = path.suffix.lower()
    chosen = encoder_for(suffix, encoder, "encoder")
    several = isinstance(models, Sequence) and not isinstance(models, str)
    given: list[ModelLike] = list(models) if several else [models]  # type: ignore[arg-type, list-item]
    if not given:
        raise UsageError("is empty", where="models", remedy="Give one model or several.")
    loaded = [_loaded(model) for model in given]
    source = one_source(inputs, selection, fps, exif, out=path, dashes="")
    names = panel_names([_word(word, model) for word, model in zip(given, loaded, strict=True)])
    labels = [FrameLabels(model.predictor, smooth) for model in loaded]
    with unfinished_file(path) as part:
        sink = VideoSink(part, suffix, source, Panels(shown, [model.label_space for model in loaded], names), chosen)
        with told_what_is_there(sink, part):
            played = play(source, labels, sink, Running(readers(labels[0].predictor.device), progress))
    raise_broken(source)
    return played.frames


def predict_frames(
    model: ModelLike,
    video: VideoLike,
    *,
    every: int = 1,
    seconds: float | None = None,
    smooth: float = 0.0,
    fps: float | None = None,
    exif: Exif = "turn",
) -> Iterator[tuple[VideoFrame, LabelledImage]]:
    """The frames of a video in their order, each with the model's prediction: for a loop of one's own.

    A prediction has labels (H, W) at the frame's size, `overlay()` and `save()`; no probabilities, which would be most
    of the memory and the time. Arguments are those of `predict_video`. Frames are read and resized in other threads
    while the loop works; frames of a camera or a stream that come too fast for it are dropped. Leave the loop at any
    time: the video is closed.

    Raises UsageError at once for arguments, model and video; while iterating, SegadaptError for a stream that breaks
    off, and after the last frame for those that could not be read. Needs the extra `video`, unless `video` is images.
    """
    inputs, selection = _inputs(video), _checked(every, seconds, smooth, fps, exif)
    loaded = _loaded(model)
    source = one_source(inputs, selection, fps, exif, sound=False, dashes="")
    return _frames(source, loaded, smooth)


def _frames(source: Source, model: Model, smooth: float) -> Iterator[tuple[VideoFrame, LabelledImage]]:
    labels = FrameLabels(model.predictor, smooth)
    for frame, found in labelled(source, labels, readers(model.predictor.device)):
        shown = VideoFrame(frame.image, float(frame.time), frame.place.name)
        yield shown, LabelledImage(frame.image, found.cpu().numpy(), model.label_space)
    raise_broken(source)


def panel_names(models: Sequence[Path]) -> list[str]:
    """What is written over the panels of models: a stage's name, its run's too where two are alike, or a file's."""
    names = [_panel_name(model) for model in models]
    if len(set(names)) < len(names):  # the same stage of two runs
        names = [f"{model.absolute().parent.parent.name}/{name}" for model, name in zip(models, names, strict=True)]
    return names


def _panel_name(model: Path) -> str:
    if is_hub(model):
        return model.name
    return model.absolute().parent.name if model.name == MODEL else model.stem


@contextmanager
def told_what_is_there(sink: Sink, part: Path) -> Iterator[None]:
    """A failure in the middle also says how much of the video is in `part`."""
    try:
        yield
    except SegadaptError as error:
        if sink.written:
            error.remedy += f" The {sink.written} frames before are in {part}."
        raise


def raise_broken(source: Source) -> None:
    """Raise SegadaptError for what could not be read, once everything else is done."""
    if source.broken:
        raise source.broken[0] if len(source.broken) == 1 else SegadaptErrors(source.broken)


def _loaded(model: ModelLike) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, (str, Path)):
        what = f"{type(model).__name__} is no model"
        raise UsageError(what, where="model", remedy="Give what segadapt.load gives, or takes.")
    return load(model)


def _word(given: ModelLike, loaded: Model) -> Path:
    """The path that a panel is named after: on the hub the repository's name, else the file's."""
    named = isinstance(given, (str, Path)) and is_hub(given)
    return Path(str(given)) if named else loaded.path


def _inputs(video: VideoLike) -> list[str]:
    words: list[Path | str | int] = [video] if isinstance(video, (str, Path, int)) else list(video)
    if not words or not all(isinstance(word, (str, Path, int)) and not isinstance(word, bool) for word in words):
        remedy = "Give a path, an address, a camera's number, or paths of images."
        raise UsageError(f"{video!r:.60} is no video", where="video", remedy=remedy)
    texts = map(str, words)
    return [text if is_live(text) else str(user_path(text)) for text in texts]


def _checked(every: int, seconds: float | None, smooth: float, fps: float | None, exif: Exif) -> Selection:
    """Raises UsageError for a number out of its range."""
    wrong = (
        ("every", every, isinstance(every, int) and every >= 1, "1 or more"),
        ("seconds", seconds, seconds is None or seconds > 0, "more than 0"),
        ("smooth", smooth, 0 <= smooth <= MOST_SMOOTH, f"0 to {MOST_SMOOTH}"),
        ("fps", fps, fps is None or 0 < fps <= 1000, "more than 0, 1000 at the most"),
    )
    for name, value, fits, remedy in wrong:
        if not fits:
            raise UsageError(f"cannot be {value!r}", where=name, remedy=f"Give {remedy}.")
    if exif not in get_args(Exif):
        raise UsageError(f"unknown '{exif}'", where="exif", remedy=nearest(exif, list(get_args(Exif))))
    return Selection(every, seconds)

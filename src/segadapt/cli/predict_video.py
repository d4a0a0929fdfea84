"""`predict` where frames belong together: videos, streams, cameras and sequences of images."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segadapt.cli.completion import one_of, several_of
from segadapt.cli.output import say
from segadapt.cli.views import Views, load_segmenter

if TYPE_CHECKING:
    from segadapt.data.label_spaces import LabelSpace
    from segadapt.data.orientation import Exif
    from segadapt.video.flow import Played, Sink
    from segadapt.video.panels import View
    from segadapt.video.smoothing import FrameLabels
    from segadapt.video.source import Selection, Source

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images and folders of images; videos, patterns (frames/%06d.png), cameras (0, /dev/video0) and addresses "
        "(http://, rtsp://).",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder for the predictions; a name ending in .mp4, .mov, .mkv or .webm is one video."
    ),
]
PictureFormats = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Of pictures: train_id, label_id (Cityscapes), colour (default), overlay; separate several by commas.",
        autocompletion=several_of("train_id", "label_id", "colour", "overlay"),
    ),
]
ViewName = Annotated[
    str | None,
    typer.Option(
        "--view",
        help="What a video shows: overlay (default), side-by-side (the frame and its labels), labels.",
        autocompletion=one_of("overlay", "side-by-side", "labels"),
    ),
]
Beside = Annotated[
    list[Path] | None,
    typer.Option(metavar="MODEL", help="Another model, shown in a panel of its own in a video; may be repeated."),
]
Every = Annotated[int, typer.Option(min=1, metavar="N", help="Take every N-th frame of a video or sequence.")]
Smooth = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.99,
        metavar="W",
        help="Average class probabilities over time: W times the average so far plus 1 - W times the frame's.",
    ),
]
Fps = Annotated[
    float | None, typer.Option(min=0.01, max=1000, help="Frames per second of images as a video; default 25.")
]
Seconds = Annotated[
    float | None, typer.Option(min=0.001, help="Take only the first seconds of a video, stream or sequence.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="FFmpeg's encoder of a video, as h264_nvenc or h264_videotoolbox; default: x264, in .webm VP9.",
    ),
]
PLAIN = "colour"
"""The format of pictures, unless somebody says otherwise."""


@dataclass(frozen=True)
class VideoOptions:
    """The options of `predict` that concern frames."""

    view: "View | None"
    beside: tuple[Path, ...]
    selection: "Selection"
    smooth: float
    fps: float | None
    encoder: str | None
    overwrite: bool
    exif: "Exif"
    label_space: str | None

    @classmethod
    def parse(
        cls,
        view: str | None,
        beside: Sequence[Path] | None,
        every: int,
        smooth: float,
        fps: float | None,
        encoder: str | None,
        seconds: float | None,
        overwrite: bool,
        exif: "Exif",
        label_space: str | None,
    ) -> "VideoOptions":
        """From what was typed. Raises UsageError for an unknown view."""
        from segadapt.video.panels import parse_view
        from segadapt.video.source import Selection

        shown = None if view is None else parse_view(view)
        chosen = Selection(every, seconds)
        return cls(shown, tuple(beside or ()), chosen, smooth, fps, encoder, overwrite, exif, label_space)

    def writes_video(self, out: Path) -> bool:
        """Whether one video is written; else what is for videos alone is refused with a UsageError."""
        from segadapt.errors import UsageError
        from segadapt.video.inputs import writes_video

        if writes_video(out):
            return True
        for option, given in self._of_videos:
            if given:
                raise UsageError(
                    f"is for videos, but {out} is a folder",
                    where=option,
                    remedy="Let --out end in .mp4; for pictures there is --format.",
                )
        return False

    @property
    def _of_videos(self) -> list[tuple[str, object]]:
        return [("--view", self.view), ("--beside", self.beside), ("--fps", self.fps), ("--encoder", self.encoder)]

    @property
    def ordered(self) -> bool:
        """Whether images, too, are frames of a sequence."""
        return self.smooth > 0 or self.selection.every > 1 or self.selection.seconds is not None


def predict_video(
    model: Path, inputs: list[str], out: Path, formats: str | None, options: VideoOptions, views: Views
) -> None:
    """One video, or images as one, into one video."""
    from segadapt.errors import UsageError
    from segadapt.files import exists, need_regular, need_writable, unfinished_file
    from segadapt.inference.streams import need_other_places
    from segadapt.video.library import need_av

    if formats is not None:
        raise UsageError("is for folders of pictures", where="--format", remedy="A video has --view.")
    need_av()
    need_regular(out)
    need_other_places([Path(text) for text in inputs], [out])
    if exists(out) and not options.overwrite:
        raise UsageError("is there already", where=out, remedy="Give another name, or --overwrite to replace it.")
    need_writable(out)
    from segadapt.video.encoders import encoder_for
    from segadapt.video.opening import one_source
    from segadapt.video.panels import Panels
    from segadapt.video.predict import raise_broken
    from segadapt.video.writing import VideoSink

    suffix = out.suffix.lower()
    encoder = encoder_for(suffix, options.encoder)
    source = one_source(inputs, options.selection, options.fps, options.exif, out=out)
    labels, spaces, names = _models([model, *options.beside], options, views)
    with unfinished_file(out) as part:
        sink = VideoSink(part, suffix, source, Panels(options.view or "overlay", spaces, names), encoder)
        played, took = _play(source, labels, sink, out.name, part)
    say(f"{played.frames} frames predicted, {played.frames / took:.1f} per second: {out}")
    raise_broken(source)


def predict_frames(
    model: Path, inputs: list[str], out: Path, formats: str | None, options: VideoOptions, views: Views
) -> list[str]:
    """Videos, and images where they are a sequence, into folders of pictures; gives back the other images."""
    from segadapt.inference.formats import parse_formats
    from segadapt.video.inputs import images_of, is_video, video_places
    from segadapt.video.library import need_av
    from segadapt.video.opening import one_video, sequence
    from segadapt.video.predict import raise_broken

    forms = parse_formats(formats or PLAIN)
    videos = [text for text in inputs if is_video(text)]
    images = [text for text in inputs if text not in videos]
    if not videos and not options.ordered:
        return images
    places, selection, exif = video_places(videos), options.selection, options.exif
    if videos:
        need_av()
    # Opened when it is their turn.
    sources: list[Callable[[], Source]] = [
        partial(one_video, text, selection, exif, place=place) for text, place in places.items()
    ]
    found = images_of(images, out) if images else []  # before hours of video: one may be misspelt
    if found and options.ordered:
        sources.insert(0, partial(sequence, found, selection, options.fps, exif))
    from segadapt.video.folder import FolderSink

    labels, spaces, _ = _models([model], options, views)
    for opening in sources:
        source, sink = opening(), FolderSink(out, forms, spaces[0], options.overwrite)
        for each in labels:
            each.forget()
        played, took = _play(source, labels, sink, source.name)
        there = played.frames - played.predicted
        done = f", {there} were already done" if there else ""
        say(f"{played.predicted} frames predicted{done}, {played.frames / took:.1f} per second: {out}")
        raise_broken(source)
    return [] if options.ordered else images


def _models(
    models: Sequence[Path], options: VideoOptions, views: Views
) -> tuple[list["FrameLabels"], list["LabelSpace"], list[str]]:
    """Each model with its label space and its name. Raises UsageError for `--batch`."""
    from segadapt.errors import UsageError
    from segadapt.inference.model import find_model
    from segadapt.video.predict import panel_names
    from segadapt.video.smoothing import FrameLabels
    from segadapt.weights.hub import is_hub

    if views.batch is not None:
        raise UsageError(
            "is for images that have nothing to do with one another: frames go through the network one by one",
            where="--batch",
            remedy="Leave it out.",
        )
    files = [find_model(model) for model in models]
    saved = [load_segmenter(file, options.label_space) for file in files]
    labels = [FrameLabels(views.predictor(each), options.smooth) for each in saved]
    named = [model if is_hub(model) else file for model, file in zip(models, files, strict=True)]
    return labels, [each.header.space for each in saved], panel_names(named)


def _play(
    source: "Source", labels: Sequence["FrameLabels"], sink: "Sink", title: str, part: Path | None = None
) -> "tuple[Played, float]":
    """Let a source through, with progress and until a signal; gives back the seconds it took, too.

    Raises Stopped when a signal ended it, unless it had no end of its own. What goes wrong is told with what has been
    written to `part` before.
    """
    from segadapt.engine.trainer import stop_signals
    from segadapt.errors import Stopped
    from segadapt.inference.streams import readers
    from segadapt.video.flow import Running, play
    from segadapt.video.predict import told_what_is_there

    begun = time.monotonic()
    with stop_signals(tell=False) as received, _progress(f"predict {title}") as progress:
        running = Running(readers(labels[0].predictor.device), progress, lambda: bool(received))
        with nullcontext() if part is None else told_what_is_there(sink, part):
            played = play(source, labels, sink, running)
    if not played.ended and not source.live:
        count = source.selection.count(source.frames, source.rate)
        whole = "" if count is None else f" of about {count}"
        again = "Run the same command to resume." if part is None else "Run the same command to begin anew."
        kept = f"They are in {part}, which can be played. " if part is not None and sink.written else ""
        raise Stopped(
            f"stopped after {played.frames}{whole} frames",
            signal_number=received[0],
            where=source.name,
            remedy=f"{kept}{again}",
        )
    return played, time.monotonic() - begun


@contextmanager
def _progress(description: str) -> "Iterator[Callable[[int, int | None], None]]":
    """A bar on stderr with frames per second and the time left, gone when it is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Frames per second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} frames/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""`predict` where frames belong together: videos, streams, cameras and sequences of images."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
        return cls(shown, tuple(beside or ()), chosen, smooth, fps, overwrite, exif, label_space)

    def writes_video(self, out: Path) -> bool:
        """Whether one video is written; else what is for videos alone is refused with a UsageError."""
        from segadapt.errors import UsageError
        from segadapt.video.inputs import writes_video

        if writes_video(out):
            return True
        for option, given in (("--view", self.view), ("--beside", self.beside), ("--fps", self.fps)):
            if given:
                raise UsageError(
                    f"is for videos, but {out} is a folder",
                    where=option,
                    remedy="Let --out end in .mp4; for pictures there is --format.",
                )
        return False

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
    from segadapt.video.panels import Panels
    from segadapt.video.writing import VideoSink

    source = _one_source(inputs, out, options)
    labels, spaces, names = _models([model, *options.beside], options, views)
    with unfinished_file(out) as part:
        sink = VideoSink(part, out.suffix.lower(), source, Panels(options.view or "overlay", spaces, names))
        played, took = _play(source, labels, sink, out.name, part)
    say(f"{played.frames} frames predicted, {played.frames / took:.1f} per second: {out}")
    _tell_broken(source)


def predict_frames(
    model: Path, inputs: list[str], out: Path, formats: str | None, options: VideoOptions, views: Views
) -> list[str]:
    """Videos, and images where they are a sequence, into folders of pictures; gives back the other images."""
    from segadapt.inference.formats import parse_formats
    from segadapt.video.inputs import images_of, is_video, video_places

    forms = parse_formats(formats or PLAIN)
    videos = [text for text in inputs if is_video(text)]
    images = [text for text in inputs if text not in videos]
    if not videos and not options.ordered:
        return images
    places = video_places(videos)
    sources: list[Callable[[], Source]] = [_opener(text, place, options) for text, place in places.items()]
    found = images_of(images, out) if images else []  # before hours of video: one may be misspelt
    if found and options.ordered:
        sources.insert(0, lambda: _sequence(found, options))
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
        _tell_broken(source)
    return [] if options.ordered else images


def _models(
    models: Sequence[Path], options: VideoOptions, views: Views
) -> tuple[list["FrameLabels"], list["LabelSpace"], list[str]]:
    """Each model with its label space and its name. Raises UsageError for `--batch`."""
    from segadapt.errors import UsageError
    from segadapt.inference.model import MODEL, find_model
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
    names = [file.absolute().parent.name if file.name == MODEL else file.stem for file in files]
    names = [model.name if is_hub(model) else name for model, name in zip(models, names, strict=True)]
    if len(set(names)) < len(names):  # the same stage of two runs
        names = [f"{file.absolute().parent.parent.name}/{name}" for file, name in zip(files, names, strict=True)]
    return labels, [each.header.space for each in saved], names


def _one_source(inputs: Sequence[str], out: Path, options: VideoOptions) -> "Source":
    """What one video is made from. Raises UsageError for several."""
    from segadapt.errors import UsageError
    from segadapt.video.inputs import images_of, is_video

    videos = [text for text in inputs if is_video(text, to_video=True)]
    if not videos:
        return _sequence(images_of(inputs, out), options)
    if len(inputs) > 1:
        raise UsageError(
            f"{len(inputs)} inputs cannot become one video",
            where=out,
            remedy="Give one video, or images alone; several videos can go into a folder: -o folder/.",
        )
    if options.fps is not None:
        raise UsageError("is for images: a video has its own frame rate", where="--fps", remedy="Leave it out.")
    return _opener(videos[0], Path(), options, sound=True)()


def _opener(text: str, place: Path, options: VideoOptions, sound: bool = False) -> Callable[[], "Source"]:
    """What opens a video when it is its turn."""
    from segadapt.video.library import need_av

    need_av()
    from segadapt.video.reading import VideoSource

    return lambda: VideoSource(text, options.selection, options.exif, place, sound)


def _sequence(images: Sequence[tuple[Path, Path]], options: VideoOptions) -> "Source":
    """Images as frames."""
    from fractions import Fraction

    from segadapt.video.sequence import RATE, ImageSource

    rate = RATE if options.fps is None else Fraction(options.fps).limit_denominator(1001)
    return ImageSource(images, options.selection, rate, options.exif)


def _play(
    source: "Source", labels: Sequence["FrameLabels"], sink: "Sink", title: str, part: Path | None = None
) -> "tuple[Played, float]":
    """Let a source through, with progress and until a signal; gives back the seconds it took, too.

    Raises Stopped when a signal ended it, unless it had no end of its own. What goes wrong is told with what has been
    written to `part` before.
    """
    from segadapt.engine.trainer import stop_signals
    from segadapt.errors import SegadaptError, Stopped
    from segadapt.inference.streams import readers
    from segadapt.video.flow import Running, play

    begun = time.monotonic()
    with stop_signals(tell=False) as received, _progress(f"predict {title}") as progress:
        running = Running(readers(labels[0].predictor.device), progress, lambda: bool(received))
        try:
            played = play(source, labels, sink, running)
        except SegadaptError as error:
            if sink.written and part is not None:
                error.remedy += f" The {sink.written} frames before are in {part}."
            raise
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


def _tell_broken(source: "Source") -> None:
    """Raise SegadaptError for what could not be read, once everything else is written."""
    from segadapt.errors import SegadaptErrors

    if source.broken:
        raise source.broken[0] if len(source.broken) == 1 else SegadaptErrors(source.broken)


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

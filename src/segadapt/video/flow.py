"""The pipeline from source to sink: one thread decodes, some resize, the network runs in the calling thread, some
threads compose pictures, and one encodes.

The queues between them are short, so memory is bounded whatever the length, and the order is preserved. FFmpeg, numpy,
Pillow and torch release the interpreter lock while they compute.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from torch import Tensor

from segadapt.inference.streams import READERS, ahead
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Frame, Picture, Sound, Source

AHEAD = 8
"""Capacity of the queue of frames and sound packets before the network, and of the one behind it."""
LOOK = 0.2
"""Seconds between checks for a stop request while no frame arrives."""
LEAVE = 2.0
"""Seconds to wait for a thread that is in the middle of a read."""
Item = Frame | Sound | Exception
"""What the reading thread passes on."""


class Sink(Protocol):
    """Where predicted frames go."""

    written: int

    def begin(self, frame: Frame) -> None:
        """Called with each frame, in order, before anything else."""

    def wants(self, frame: Frame) -> bool:
        """Whether the frame's labels are needed."""

    def compose(self, frame: Frame, labels: Sequence[Picture]) -> Any:
        """Make the output for a frame from each model's train ids (H, W); called from several threads."""

    def write(self, made: Any) -> None:
        """Write it; called from one thread, in the order of the frames."""

    def write_sound(self, sound: Sound) -> None:
        """Write a packet of sound, in its place between the frames."""

    def close(self) -> None:
        """Finish, also after an error."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Running:
    """Settings of the pipeline."""

    threads: int = READERS  # for resizing, and as many for composing pictures
    progress: Callable[[int, int | None], None] | None = None  # called with (done, all or None) after each frame
    stopped: Callable[[], bool] = _never  # once true, frames in progress are finished and written, and no others


@dataclass(frozen=True)
class Played:
    """Number of frames read, number selected, and whether the source ended by itself."""

    frames: int
    predicted: int
    ended: bool


def play(source: Source, models: Sequence[FrameLabels], sink: Sink, running: Running = Running()) -> Played:
    """Read the whole source, label its frames with each model and write them; closes both.

    Raises what source, models and sink raise; frames in progress before that are written.
    """
    smoothed = any(model.weight for model in models)  # each frame influences later ones
    frames = predicted = 0
    ended = False
    try:
        with _read_ahead(source, models, running) as items, _Behind(sink, running.threads) as behind:
            for item in items:
                if isinstance(item, Sound):
                    behind.put_sound(item)
                    continue
                sink.begin(item)
                wanted = sink.wants(item)
                labels = [model(item) for model in models] if wanted or smoothed else []
                if wanted:
                    behind.put(item, labels)
                frames, predicted = frames + 1, predicted + wanted
                if running.progress is not None:
                    running.progress(frames, source.selection.count(source.frames, source.rate))
            ended = items.ended
    finally:
        sink.close()
    return Played(frames, predicted, ended)


def labelled(source: Source, model: FrameLabels, threads: int = READERS) -> Iterator[tuple[Frame, Tensor]]:
    """Read the source and give its frames in order, each with its train ids (H, W) on the model's device; closes it.

    Frames are read and resized while whoever asks for them works. Raises what source and model raise.
    """
    with _read_ahead(source, [model], Running(threads)) as items:
        for item in items:
            if isinstance(item, Frame):
                yield item, model(item)


def _read_ahead(source: Source, models: Sequence[FrameLabels], running: Running) -> "Ahead":
    """The source's items in threads of their own, frames made ready for the models."""
    sizes = {model.predictor.size for model in models}
    read = _with_its_error(source)
    prepared = ahead(lambda item: _prepared(item, models, sizes), read, running.threads, running.threads)
    return Ahead(prepared, source, running.stopped)


def _with_its_error(source: Source) -> Iterator[Item]:
    """The source's items, with an exception as the last one, so that earlier items are still processed."""
    try:
        yield from source.items()
    except Exception as error:
        yield error


def _prepared(item: Item, models: Sequence[FrameLabels], sizes: set[tuple[int, int]]) -> Item:
    """A frame with its image at the networks' input sizes."""
    if not isinstance(item, Frame):
        return item
    sized = {model.predictor.size: model.predictor for model in models}
    return replace(item, inputs={size: sized[size].resized(item.image) for size in sizes})


class Ahead:
    """Iterates over `items` in a thread of its own, at most AHEAD items before the consumer.

    Frames of a live source do not wait: those that arrive while the queue is full are dropped.
    """

    def __init__(self, items: Generator[Item], source: Source, stopped: Callable[[], bool] = _never) -> None:
        self.ended = False
        self._items, self._source, self._stopped = items, source, stopped
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reading a video", daemon=True)

    def __enter__(self) -> "Ahead":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._leaving.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(LEAVE)
        if not self._thread.is_alive():  # a stream may block for long; its thread ends with the process
            self._source.close()

    def __iter__(self) -> Iterator[Frame | Sound]:
        while not self._stopped():
            try:
                item = self._queue.get(timeout=LOOK)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                self.ended = True
                return
            yield item

    def _read(self) -> None:
        end: Exception | None = None
        try:
            with closing(self._items) as items:
                for item in items:
                    self._put(item)
                    if self._leaving.is_set():
                        break
        except Exception as error:
            end = error
        self._put(end)

    def _put(self, item: Item | None) -> None:
        while not self._leaving.is_set():
            try:
                self._queue.put(item, timeout=LOOK)
            except queue.Full:
                if self._source.live and isinstance(item, Frame):
                    return
            else:
                return


class _Behind:
    """The stages after the network: threads compose, one more writes, in order and with bounded queues."""

    def __init__(self, sink: Sink, threads: int) -> None:
        self.sink, self.most = sink, threads + AHEAD
        self._composing = ThreadPoolExecutor(threads)
        self._writing = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Behind":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._composing.shutdown()
        self._writing.shutdown()
        if kind is None:
            self._wait(0)

    def put(self, frame: Frame, labels: Iterable[Any]) -> None:
        """Hand over a frame with each model's labels, tensors on their device."""
        # Copied to the host by the thread that needs them, so that the main thread runs ahead of a GPU.
        made = self._composing.submit(lambda: self.sink.compose(frame, [each.cpu().numpy() for each in labels]))
        self._waiting.append(self._writing.submit(lambda: self.sink.write(made.result())))
        self._wait(self.most)

    def put_sound(self, sound: Sound) -> None:
        """Hand over a packet of sound."""
        self._waiting.append(self._writing.submit(self.sink.write_sound, sound))
        self._wait(self.most)

    def _wait(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()

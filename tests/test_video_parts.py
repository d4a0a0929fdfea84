"""The parts of video prediction that need no video: panels, smoothing, what inputs mean, the flow of frames."""

import sys
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from command import assert_told, command
from made_pictures import write_model
from scored_runs import SIZE, colour_network
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import unfinished_file
from segadapt.inference.formats import overlay
from segadapt.inference.predictor import Predictor
from segadapt.models.networks import build
from segadapt.video.flow import AHEAD, Played, Running, play
from segadapt.video.inputs import camera, is_video, video_places, writes_video
from segadapt.video.library import shown
from segadapt.video.panels import Panels, parse_view
from segadapt.video.sequence import is_pattern, pattern_images
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Frame, Selection, Sound, Source

SPACE = load_label_space("cityscapes19")
Picture = NDArray[np.uint8]
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (16, 32, 3), np.uint8)
LABELS = RANDOM.integers(0, len(SPACE), (16, 32), np.uint8)


# --- panels ---


def panels(view: Any, models: int, image: Picture = IMAGE, labels: Picture = LABELS) -> Picture:
    """The picture of some models that all say the same, without names."""
    made = Panels(view, [SPACE] * models, [])
    return made.compose(image, [labels] * models, (image.shape[1], image.shape[0]))


def test_an_overlay_is_that_of_pictures() -> None:
    expected = np.asarray(overlay(IMAGE, LABELS, SPACE)).astype(int)
    assert np.abs(panels("overlay", 1).astype(int) - expected).max() <= 1


def test_panels_stand_beside_each_other_in_rows() -> None:
    colours = SPACE.palette[LABELS]
    assert np.array_equal(panels("labels", 1), colours)
    assert np.array_equal(panels("side-by-side", 1), np.hstack([IMAGE, colours]))
    assert np.array_equal(panels("side-by-side", 2), np.hstack([IMAGE, colours, colours]))
    four = np.vstack([np.hstack([IMAGE, colours]), np.hstack([colours, colours])])
    assert np.array_equal(panels("side-by-side", 3), four)
    five = panels("side-by-side", 4)
    assert five.shape == (32, 96, 3) and not five[16:, 64:].any()


def test_odd_panels_keep_every_pixel() -> None:
    whole = panels("side-by-side", 2, IMAGE[:15, :31], LABELS[:15, :31])
    assert whole.shape == (16, 94, 3)
    assert np.array_equal(whole[:15, :31], IMAGE[:15, :31]) and np.array_equal(whole[:15, 62:93], whole[:15, 31:62])
    assert np.array_equal(whole[15], whole[14]) and np.array_equal(whole[:, 93], whole[:, 92])


def test_names_are_written_over_the_models_panels_alone() -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    labels = np.full((240, 320), 8, np.uint8)  # vegetation
    plain = Panels("side-by-side", [SPACE] * 2, []).compose(image, [labels] * 2, (320, 240))
    named = Panels("side-by-side", [SPACE] * 2, ["sean", "mic"]).compose(image, [labels] * 2, (320, 240))
    changed = (plain != named).any(axis=2)
    assert not changed[:, :320].any() and not changed[30:].any()
    assert changed[:30, 320:420].any() and changed[:30, 640:740].any()
    assert (image == 90).all()


def test_a_frame_of_another_size_is_scaled_to_fit() -> None:
    made = Panels("labels", [SPACE], []).compose(IMAGE, [np.full((16, 32), 8, np.uint8)], (32, 32))
    assert made.shape == (32, 32, 3) and not made[:8].any() and not made[24:].any()
    assert np.array_equal(made[16, 16], SPACE.palette[8])


def test_views_by_name() -> None:
    assert parse_view("labels") == "labels"
    with pytest.raises(UsageError, match="'side-by-side'"):
        parse_view("sidebyside")


# --- smoothing ---


def noise(count: int) -> list[Frame]:
    """Frames that have nothing to do with one another."""
    random = np.random.default_rng(1)
    images = (random.integers(0, 256, (24, 40, 3), np.uint8) for _ in range(count))
    return [Frame(image, Fraction(number), Path(str(number))) for number, image in enumerate(images)]


@pytest.mark.numeric
@pytest.mark.parametrize("views", [{}, {"scales": (1.0, 0.5), "mirror": True}, {"window": (16, 16)}])
def test_smoothing_is_the_exponential_average_of_probabilities(float64: None, views: dict[str, Any]) -> None:
    torch.manual_seed(0)
    predictor = Predictor(build("deeplab_small", classes=5).eval(), (40, 24), **views)
    labels = FrameLabels(predictor, 0.7)
    average: Any = None
    plain = not views
    for frame in noise(4):
        if plain:
            now = predictor.logits(frame.image).softmax(1)
        else:
            now = torch.from_numpy(predictor.probabilities(frame.image, (40, 24)))[None]
        average = now if average is None else 0.7 * average + 0.3 * now
        expected = predictor.network.upsample(average.log(), (24, 40))[0]
        found = labels(frame)
        top = expected.sort(dim=0, descending=True).values
        clear = (top[0] - top[1] > 1e-4).numpy()  # by more than rounding
        assert clear.mean() > 0.9
        assert np.array_equal(found.numpy()[clear], expected.argmax(0).numpy()[clear])


@pytest.mark.numeric
def test_no_weight_is_no_smoothing() -> None:
    torch.manual_seed(0)
    predictor = Predictor(build("deeplab_small", classes=5).eval(), (40, 24))
    smoothed, plain = FrameLabels(predictor, 1e-9), FrameLabels(predictor)
    same = [float((smoothed(frame) == plain(frame)).float().mean()) for frame in noise(3)]
    assert min(same) > 0.99  # rounding alone decides between classes that are equally likely


def test_what_flickers_is_calmed_and_forgotten_between_videos() -> None:
    """Of two classes that take turns the one stays that is there more often; a new video begins anew."""
    labels = FrameLabels(Predictor(colour_network(SPACE), SIZE), 0.8)

    def label(number: int) -> int:
        image = np.broadcast_to(SPACE.palette[number], (SIZE[1], SIZE[0], 3)).copy()
        found = labels(Frame(image, Fraction(0), Path("x")))
        return int(found.flatten()[0])

    assert [label(number) for number in (2, 2, 5, 2, 2)] == [2] * 5
    assert [label(5) for _ in range(8)][-1] == 5
    labels.forget()
    assert label(2) == 2


# --- inputs ---


def test_what_inputs_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("rtsp://camera/1", "http://host/a.jpg?x=%d", "0", "/dev/video3", "drive.MP4", "a.mkv"):
        assert is_video(text), text
    for text in ("street.jpg", "frames", "frames/%06d.png", "/dev/videos", "C:", "notes.bin"):
        assert not is_video(text), text
    Path("notes.bin").write_bytes(b"")
    Path("7").mkdir()
    assert is_video("notes.bin", to_video=True) and not is_video("notes.bin") and not is_video("7")
    assert camera("12") == "/dev/video12" and camera("7") is None and camera("/dev/video0/x") is None


def test_where_predictions_go(tmp_path: Path) -> None:
    assert writes_video(Path("a.MP4")) and writes_video(Path("a.webm")) and not writes_video(Path("out"))
    (tmp_path / "odd.mp4").mkdir()
    assert not writes_video(tmp_path / "odd.mp4")
    with pytest.raises(UsageError, match=r"\.avi is read, but not written"):
        writes_video(Path("a.avi"))
    places = video_places(["a/drive.mp4", "b/walk.mp4", "rtsp://me:secret@camera/1"])
    assert list(map(str, places.values())) == ["drive", "walk", "camera_1"]
    with pytest.raises(UsageError, match="the same name"):
        video_places(["a/drive.mp4", "b/drive.mkv"])


def test_patterns(tmp_path: Path) -> None:
    for name in ("f_2.png", "f_10.png", "f_1.png", "f_x.png", "g_3.png", "f_4.txt"):
        Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")

    def found(pattern: str) -> list[str]:
        return [place.name for _, place in pattern_images(str(tmp_path / pattern))]

    assert found("f_%d.png") == ["f_1", "f_2", "f_10"] and found("f_%02d.png") == ["f_10"]
    assert found("*_[0-9].png") == ["f_1", "f_2", "g_3"]
    with pytest.raises(UsageError, match="matches no image"):
        found("h_%d.png")
    (tmp_path / "a?b.png").write_bytes(b"")
    assert not is_pattern(str(tmp_path / "a?b.png"))


def test_passwords_are_not_shown() -> None:
    assert shown("rtsp://me:secret@camera:554/1") == "rtsp://me:***@camera:554/1"
    assert shown("http://host:80/x@y") == "http://host:80/x@y"


def test_how_many_frames_a_selection_takes() -> None:
    assert Selection(every=3).count(10, Fraction(25)) == 4
    assert Selection(seconds=0.5).count(None, Fraction(25)) == 13  # those before 0.5 s, the last at 0.48
    assert Selection(every=2, seconds=100).count(9, Fraction(25)) == 5
    assert Selection().count(None, Fraction(25)) is None


# --- the flow ---


class Counted(Source):
    """Frames that say their number; counts how many have been asked for."""

    def __init__(self, count: int, live: bool = False, fails_at: int = -1) -> None:
        self.name, self.selection, self.rate, self.time_base = "counted", Selection(), Fraction(25), Fraction(1, 25)
        self.frames, self.live, self.broken = None if live else count, live, []
        self.count, self.fails_at, self.asked, self.closed = count, fails_at, 0, False

    def items(self) -> Iterator[Frame | Sound]:
        for number in range(self.count):
            if number == self.fails_at:
                raise SegadaptError("breaks off", where="counted", remedy="Mend it.")
            self.asked = number + 1
            yield Sound(number)
            yield Frame(np.full((16, 32, 3), number, np.uint8), number / self.rate, Path(str(number)))

    def close(self) -> None:
        self.closed = True


class Kept:
    """A sink that keeps the order in which things come, and can be slow."""

    def __init__(self, source: Counted, gate: threading.Event | None = None, fails_at: int = -1) -> None:
        self.source, self.gate, self.fails_at = source, gate, fails_at
        self.came: list[int] = []
        self.sounds: list[int] = []
        self.written, self.ahead, self.closed = 0, 0, False

    def begin(self, frame: Frame) -> None:
        pass

    def wants(self, frame: Frame) -> bool:
        return True

    def compose(self, frame: Frame, labels: Sequence[Picture]) -> int:
        assert frame.inputs[(16, 8)].shape == (8, 16, 3)
        return int(frame.image[0, 0, 0])

    def write(self, made: int) -> None:
        if made == self.fails_at:
            raise SegadaptError("no space left on the disk", where="kept", remedy="Free some.")
        if self.gate is not None:
            self.gate.wait()
        self.came.append(made)
        self.ahead = max(self.ahead, self.source.asked - made)
        self.written += 1

    def write_sound(self, sound: Sound) -> None:
        self.sounds.append(sound.packet)

    def close(self) -> None:
        self.closed = True


class Labels:
    """A model that says nothing, at its own input size."""

    weight = 0.0

    def __init__(self) -> None:
        self.predictor = Predictor(build("deeplab_small", classes=3).eval(), (16, 8))

    def __call__(self, frame: Frame) -> torch.Tensor:
        return torch.zeros(frame.image.shape[:2], dtype=torch.uint8)


def through(source: Counted, sink: Kept, running: Running = Running()) -> Played:
    """`play` with one model."""
    model: Any = Labels()
    return play(source, [model], sink, running)


def test_order_is_kept_and_memory_is_bounded() -> None:
    source = Counted(120)
    sink, told = Kept(source), list[tuple[int, int | None]]()
    played = through(source, sink, Running(threads=3, progress=lambda done, all: told.append((done, all))))
    assert played == Played(120, 120, True) and sink.came == sink.sounds == list(range(120))
    assert told == [(number + 1, 120) for number in range(120)]
    assert sink.closed and source.closed
    assert sink.ahead <= 2 * (AHEAD + 2 * 3) + 2  # what may wait before and behind the network


def test_a_stop_ends_what_was_begun() -> None:
    source = Counted(1000)
    sink = Kept(source)
    seen: list[int] = []
    running = Running(progress=lambda done, all: seen.append(done), stopped=lambda: len(seen) >= 5)
    assert through(source, sink, running) == Played(5, 5, False)
    assert sink.came == [0, 1, 2, 3, 4] and sink.closed and source.closed


def test_errors_of_either_end_come_through() -> None:
    source = Counted(100, fails_at=7)
    sink = Kept(source)
    with pytest.raises(SegadaptError, match="breaks off"):
        through(source, sink)
    assert sink.came == list(range(7)) and sink.closed and source.closed

    source = Counted(1000)
    sink = Kept(source, fails_at=3)
    with pytest.raises(SegadaptError, match="no space"):
        through(source, sink)
    assert sink.came[:3] == [0, 1, 2] and sink.closed and source.closed and source.asked < 1000


def test_a_camera_does_not_wait_for_a_slow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is written, frames that come are dropped, the sound is not; what is kept is in order."""
    monkeypatch.setattr("segadapt.video.flow.LOOK", 0.001)
    gate = threading.Event()

    class Camera(Counted):
        def items(self) -> Iterator[Frame | Sound]:
            for item in super().items():
                if isinstance(item, Frame):
                    yield item
            gate.set()

    source = Camera(150, live=True)
    sink = Kept(source, gate)
    played = through(source, sink)
    assert played.ended and 0 < played.frames < 150
    assert sink.came == sorted(set(sink.came)) and sink.came[0] == 0


# --- files and errors ---


def test_unfinished_files(tmp_path: Path) -> None:
    out, part = tmp_path / "a.mp4", tmp_path / "a.unfinished.mp4"
    with pytest.raises(KeyboardInterrupt), unfinished_file(out) as file:
        assert file == part
        file.write_bytes(b"half")
        raise KeyboardInterrupt
    assert part.read_bytes() == b"half" and not out.exists()
    with pytest.raises(KeyboardInterrupt), unfinished_file(tmp_path / "b.mp4"):
        raise KeyboardInterrupt
    with unfinished_file(out) as file:
        file.write_bytes(b"whole")
        with pytest.raises(UsageError, match="written by another process"), unfinished_file(out):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and out.read_bytes() == b"whole"


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for out in ("out.mp4", "out"):
        outcome = command(capsys, "predict", write_model(tmp_path / "m.safetensors"), "a.mp4", "-o", tmp_path / out)
        assert_told(outcome, 2, "video", "PyAV is not installed", "pip install 'segadapt[video]'.")

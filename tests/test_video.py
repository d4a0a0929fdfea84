"""Videos in, videos out: what comes through the whole of `predict`, held to a network whose answers are known."""

import functools
import os
import signal
import threading
import wave
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import videos
from command import Outcome, assert_told, command
from scored_runs import SIZE, registered, save
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError
from segadapt.video.panels import Panels
from segadapt.video.reading import VideoSource
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Frame
from segadapt.video.writing import VideoSink

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
Picture = NDArray[np.uint8]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("registered")


def labels(number: int) -> Picture:
    """The train ids of frame `number` in blocks of 8 pixels, (2, 4): each frame has others."""
    return (np.arange(8, dtype=np.uint8).reshape(2, 4) + number) % len(SPACE)


FRAMES = [videos.painted(SPACE, labels(number)) for number in range(12)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The stage folder of a network that knows the classes' colours."""
    save(tmp_path / "run" / "colour" / "model.safetensors", SPACE)
    return tmp_path / "run" / "colour"


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Twelve frames, with sound."""
    return videos.write(tmp_path / "drive.mp4", FRAMES, sound="aac")


def predicted(capsys: Capture, *arguments: object) -> Outcome:
    """`segadapt predict`, which must end well."""
    outcome = command(capsys, "predict", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def shown(path: Path) -> list[Picture]:
    """The labels of each frame of a video that shows labels alone."""
    return [videos.nearest(SPACE, frame) for frame in videos.read(path).frames]


def same(found: list[Picture], expected: list[Picture]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def test_labels_times_and_sound_come_through(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    out = tmp_path / "out.mp4"
    assert predicted(capsys, model, drive, "-o", out, "--view", "labels").out.startswith("12 frames predicted, ")
    before, after = videos.read(drive), videos.read(out)
    assert same(shown(out), [labels(number) for number in range(12)])
    assert after.times == before.times and after.rate == before.rate == videos.RATE
    assert after.codecs == ("h264", "aac") and after.pixels == "yuv420p"
    assert after.packets == before.packets  # copied, not encoded anew
    assert [path.name for path in tmp_path.glob("out*")] == ["out.mp4"]


def test_every_other_frame_takes_as_long(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    out = tmp_path / "out.mp4"
    predicted(capsys, model, drive, "-o", out, "--view", "labels", "--every", 3)
    before, after = videos.read(drive), videos.read(out)
    assert same(shown(out), [labels(number) for number in (0, 3, 6, 9)])
    assert after.times == before.times[::3] and after.packets == before.packets


def test_the_first_seconds(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    out = tmp_path / "out.mp4"
    predicted(capsys, model, drive, "-o", out, "--view", "labels", "--seconds", 0.2)
    assert same(shown(out), [labels(number) for number in range(6)])  # 6 / 29.97 s is just above 0.2


def test_a_variable_frame_rate_stays_one(tmp_path: Path, model: Path, capsys: Capture) -> None:
    times = [0, 1000, 5000, 5100, 9000]
    source = videos.write(tmp_path / "phone.mp4", FRAMES[:5], times=times)
    predicted(capsys, model, source, "-o", tmp_path / "out.mp4")
    assert videos.read(tmp_path / "out.mp4").times == pytest.approx([time / 30000 for time in times], abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_phones_rotation_is_honoured(tmp_path: Path, model: Path, degrees: int, capsys: Capture) -> None:
    source = videos.turn(videos.write(tmp_path / "phone.mp4", FRAMES[:2]), degrees)
    for exif, turns in (("turn", -degrees // 90), ("raw", 0)):
        out = tmp_path / f"{exif}.mp4"
        predicted(capsys, model, source, "-o", out, "--view", "side-by-side", "--exif", exif)
        for number, frame in enumerate(videos.read(out).frames):
            whole = np.rot90(labels(number), turns)  # that way FFmpeg's own `rotation` goes, see below
            left = frame[:, : frame.shape[1] // 2]
            assert np.array_equal(videos.nearest(SPACE, left), whole)
    with videos.av.open(str(source)) as container:
        assert next(container.decode(video=0)).rotation % 360 == -degrees % 360


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm"])
def test_other_containers(tmp_path: Path, model: Path, drive: Path, suffix: str, capsys: Capture) -> None:
    out = tmp_path / f"out{suffix}"
    predicted(capsys, model, drive, "-o", out, "--view", "labels")
    before, after = videos.read(drive), videos.read(out)
    assert len(after.frames) == 12
    assert np.diff(after.times) == pytest.approx(np.diff(before.times), abs=2e-3)  # Matroska counts milliseconds
    assert after.codecs == (("vp9", "opus") if suffix == ".webm" else ("h264", "aac"))
    assert after.sound_seconds == pytest.approx(before.sound_seconds, abs=0.15)  # a frame or two of the codec


@pytest.mark.parametrize(("name", "codec"), [("recorder.mkv", "pcm_s16le"), ("broadcast.ts", "aac")])
def test_sound_that_cannot_be_copied_is_encoded(
    tmp_path: Path, model: Path, name: str, codec: str, capsys: Capture
) -> None:
    source = videos.write(tmp_path / name, FRAMES, sound=codec, codec="libx264")
    predicted(capsys, model, source, "-o", tmp_path / "out.mp4")
    before, after = videos.read(source), videos.read(tmp_path / "out.mp4")
    assert after.codecs == ("h264", "aac")
    # A transport stream does not begin at 0.
    assert after.sound_seconds - after.times[0] == pytest.approx(before.sound_seconds - before.times[0], abs=0.15)


def test_odd_sizes_are_padded(tmp_path: Path, model: Path, capsys: Capture) -> None:
    source = videos.write(tmp_path / "odd.mkv", [frame[:15, :31] for frame in FRAMES[:2]])
    predicted(capsys, model, source, "-o", tmp_path / "out.mp4", "--size", "32x16")
    assert {frame.shape for frame in videos.read(tmp_path / "out.mp4").frames} == {(16, 32, 3)}


def test_models_side_by_side(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    other = tmp_path / "run" / "other" / "model.safetensors"
    save(other, SPACE)
    out = tmp_path / "out.mp4"
    predicted(capsys, model, drive, "-o", out, "--view", "side-by-side", "--beside", other, "--beside", model)
    for number, frame in enumerate(videos.read(out).frames):
        assert frame.shape == (2 * SIZE[1], 2 * SIZE[0], 3)
        assert np.array_equal(videos.nearest(SPACE, frame[:16, :32]), labels(number))


def test_frames_as_pictures_and_pictures_as_a_video(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    predicted(capsys, model, drive, "-o", out, "--format", "train_id,colour", "--every", 4)
    names = ["000000.png", "000004.png", "000008.png"]
    assert [path.name for path in sorted((out / "train_id" / "drive").iterdir())] == names
    for name in names:
        with Image.open(out / "train_id" / "drive" / name) as picture:
            assert np.array_equal(np.asarray(picture)[4::8, 4::8], labels(int(Path(name).stem)))
    (out / "colour" / "drive" / names[1]).unlink()
    said = predicted(capsys, model, drive, "-o", out, "--format", "train_id,colour", "--every", 4).out
    assert said.startswith("1 frames predicted, 2 were already done")

    colours = out / "colour" / "drive"
    for form, source in (("folder", colours), ("number", colours / "%06d.png"), ("stars", colours / "0000*.png")):
        video = tmp_path / f"{form}.mp4"
        predicted(capsys, model, source, "-o", video, "--view", "labels", "--fps", 5)
        assert same(shown(video), [labels(number) for number in (0, 4, 8)])
        assert videos.read(video).times == pytest.approx([0, 0.2, 0.4])
    several = sorted(colours.iterdir())  # as a shell spells out a pattern
    predicted(capsys, model, *several, "-o", tmp_path / "several.mp4", "--view", "labels", "--every", 2)
    assert same(shown(tmp_path / "several.mp4"), [labels(number) for number in (0, 8)])


def test_images_in_order_are_a_sequence_where_frames_count_for_others(
    tmp_path: Path, model: Path, capsys: Capture
) -> None:
    for number in (1, 2, 10):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(FRAMES[number]).save(tmp_path / "in" / f"{number}.png")
    predicted(capsys, model, tmp_path / "in", "-o", tmp_path / "out", "--format", "train_id", "--every", 2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "10.png"]


def test_an_interrupted_video_is_playable_and_says_so(
    tmp_path: Path, model: Path, drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    label = FrameLabels.__call__

    def interrupted(self: FrameLabels, frame: Frame) -> object:
        if frame.place.name == "000004":
            os.kill(os.getpid(), signal.SIGTERM)
        return label(self, frame)

    out = tmp_path / "out.mp4"
    with monkeypatch.context() as patch:
        patch.setattr(FrameLabels, "__call__", interrupted)
        outcome = command(capsys, "predict", model, drive, "-o", out, "--view", "labels")
    part = tmp_path / "out.unfinished.mp4"
    said = f"5 of about 12 frames. They are in {part}"
    assert_told(outcome, 128 + signal.SIGTERM, str(drive), said, "to begin anew.")
    assert same(shown(part), [labels(number) for number in range(5)]) and not out.exists()

    predicted(capsys, model, drive, "-o", out, "--view", "labels")
    assert out.exists() and not part.exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_a_kill_leaves_is_playable(tmp_path: Path, suffix: str) -> None:
    """What is on the disk at a moment is what kill -9 leaves."""
    source = VideoSource(str(videos.write(tmp_path / "long.mkv", FRAMES * 8)))
    sink = VideoSink(tmp_path / f"part{suffix}", suffix, source, Panels("labels", [SPACE], ["colour"]))
    for number, frame in enumerate(source.items()):
        assert isinstance(frame, Frame)
        sink.begin(frame)
        sink.write(sink.compose(frame, [labels(number % 12).repeat(8, 0).repeat(8, 1)]))
    left = tmp_path / f"left{suffix}"
    left.write_bytes(sink.path.read_bytes())
    found = shown(left)
    assert 40 <= len(found) < 96 and same(found, [labels(number % 12) for number in range(len(found))])
    sink.close()
    source.close()
    assert len(shown(sink.path)) == 96


def test_a_broken_frame_is_left_out_and_told(tmp_path: Path, model: Path, capsys: Capture) -> None:
    for number in range(3):
        Image.fromarray(FRAMES[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG broken")
    out = tmp_path / "out.mp4"
    outcome = command(capsys, "predict", model, tmp_path / "%d.png", "-o", out, "--view", "labels")
    assert outcome.code == 1 and len(outcome.errors) == 1 and "1.png: cannot be read" in outcome.err
    assert same(shown(out), [labels(0), labels(2)])


def test_over_http(tmp_path: Path, model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    videos.write(tmp_path / "served.mkv", FRAMES[:4])
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, out = f"http://127.0.0.1:{server.server_port}", tmp_path / "out.mp4"
        predicted(capsys, model, f"{address}/served.mkv", "-o", out, "--view", "labels")
        assert same(shown(out), [labels(number) for number in range(4)])
        outcome = command(capsys, "predict", model, f"{address}/no.mkv", "-o", tmp_path / "no.mp4")
        assert_told(outcome, 1, f"{address}/no.mkv", "404", "whether the server answers.")
        server.shutdown()


def beep(path: Path) -> Path:
    """A file of sound alone."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    return path


def cut(path: Path) -> Path:
    """The first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def text(path: Path) -> Path:
    path.write_text("no video")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], list[str], int, str, str]] = {
    "nothing": (lambda at: at / "no.mp4", [], 2, "does not exist", "Check the path."),
    "text": (lambda at: text(at / "a.mp4"), [], 1, "cannot be read as a video", "a player shows it."),
    "sound": (lambda at: beep(at / "a.wav"), [], 2, "has no video stream", "that has one."),
    "cut": (lambda at: cut(videos.write(at / "a.mp4", FRAMES)), [], 1, "cannot be read as a video", "shows it."),
    "camera": (lambda at: Path("/dev/video77"), [], 2, "does not exist", "Check the path."),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_video_is_told(tmp_path: Path, model: Path, what: str, capsys: Capture) -> None:
    make, options, code, told, remedy = REFUSED[what]
    source = make(tmp_path)
    outcome = command(capsys, "predict", model, source, "-o", tmp_path / "out.mp4", *options)
    assert_told(outcome, code, str(source), told, remedy)
    assert not list(tmp_path.glob("out*"))


def test_misuse_is_told(tmp_path: Path, model: Path, drive: Path, capsys: Capture) -> None:
    out = tmp_path / "out.mp4"
    for options, place, told in (
        ((drive, "-o", out, "--view", "overlays"), "--view", "unknown view"),
        ((drive, "-o", out, "--format", "colour"), "--format", "is for folders of pictures"),
        ((drive, "-o", out, "--fps", "5"), "--fps", "has its own frame rate"),
        ((drive, model, "-o", out), out, "2 inputs cannot become one video"),
        ((drive, "-o", tmp_path / "out", "--view", "labels"), "--view", "is for videos"),
        ((drive, "-o", tmp_path / "out", "--beside", model), "--beside", "is for videos"),
        ((drive, "-o", tmp_path / "out.avi"), tmp_path / "out.avi", ".avi is read, but not written"),
        ((drive, "-o", tmp_path / "out.gif"), "--out", "is the name of a picture, but a folder is expected"),
        ((drive, "-o", tmp_path / "out.PNG"), "--out", "is the name of a picture, but a folder is expected"),
        ((drive, "-o", drive, "--overwrite"), drive, "would overwrite an input"),
        ((text(tmp_path / "there.mp4"), "-o", tmp_path / "there.mp4"), tmp_path / "there.mp4", "overwrite an input"),
    ):
        outcome = command(capsys, "predict", model, *options)
        assert_told(outcome, 2, str(place), told, outcome.errors[0][-9:])
    text(out)
    assert_told(command(capsys, "predict", model, drive, "-o", out), 2, str(out), "is there already", "to replace it.")
    assert out.read_text() == "no video"
    predicted(capsys, model, drive, "-o", out, "--overwrite")
    assert len(videos.read(out).frames) == 12


def test_packets_that_cannot_be_decoded_are_left_out_and_told(tmp_path: Path, model: Path, capsys: Capture) -> None:
    source = videos.write(tmp_path / "a.mkv", FRAMES)
    content = bytearray(source.read_bytes())
    with videos.av.open(str(source)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0)][6]
    place = content.index(packet)
    content[place : place + len(packet)] = b"\xff" * len(packet)
    source.write_bytes(content)
    out = tmp_path / "out.mp4"
    outcome = command(capsys, "predict", model, source, "-o", out, "--view", "labels")
    assert_told(outcome, 1, str(source), "could not be decoded; ", "shows the same gaps.")
    assert 6 <= len(videos.read(out).frames) < 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told(drive: Path) -> None:
    source = VideoSource(str(drive), sound=False)
    sink = VideoSink(Path("/dev/full"), ".mkv", source, Panels("labels", [SPACE], []))
    frame = next(frame for frame in source.items() if isinstance(frame, Frame))
    sink.begin(frame)
    made = sink.compose(frame, [labels(0).repeat(8, 0).repeat(8, 1)])
    with pytest.raises(SegadaptError, match="no space left on the disk"):
        for _ in range(200):
            sink.write(made)
    with pytest.raises(SegadaptError, match="no space left on the disk"):
        sink.close()
    source.close()


@pytest.fixture
def webcam(monkeypatch: pytest.MonkeyPatch) -> str:
    """FFmpeg's test picture in place of a camera: it has no end."""
    picture = videos.av.open("testsrc=size=32x16:rate=25", format="lavfi")
    monkeypatch.setattr("segadapt.video.reading._opened", lambda path, stranger: picture)
    return "/dev/video77"


def test_a_camera_is_watched_for_some_seconds(tmp_path: Path, model: Path, webcam: str, capsys: Capture) -> None:
    out = tmp_path / "out.mp4"
    predicted(capsys, model, webcam, "-o", out, "--seconds", 2)
    times = videos.read(out).times
    assert times[0] == 0 and 0 < times[-1] < 2 and sorted(set(times)) == times


def test_what_a_camera_saw_until_ctrl_c_is_whole(
    tmp_path: Path, model: Path, webcam: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    label = FrameLabels.__call__
    seen: list[Frame] = []

    def pressed(self: FrameLabels, frame: Frame) -> object:
        seen.append(frame)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return label(self, frame)

    monkeypatch.setattr(FrameLabels, "__call__", pressed)
    predicted(capsys, model, webcam, "-o", tmp_path / "out.mkv")
    assert len(videos.read(tmp_path / "out.mkv").frames) == 5
    assert not list(tmp_path.glob("*unfinished*"))

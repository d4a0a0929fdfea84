"""Videos in Python: the same as the command gives, frame after frame in a loop of one's own, and other encoders."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segadapt
import videos
from command import command
from scored_runs import registered, save
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.video import encoders

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
LABELS = [(np.arange(8, dtype=np.uint8).reshape(2, 4) + number) % len(SPACE) for number in range(6)]
FRAMES = [videos.painted(SPACE, labels) for labels in LABELS]

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one stage, whose network knows the classes' colours."""
    save(tmp_path / "run" / "colour" / "model.safetensors", SPACE)
    return tmp_path / "run"


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Six frames, with sound."""
    return videos.write(tmp_path / "drive.mp4", FRAMES, sound="aac")


def full(labels: videos.Picture) -> videos.Picture:
    return labels.repeat(8, 0).repeat(8, 1)


def test_a_video_is_what_the_command_writes(
    run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[int, int | None]] = []
    frames = segadapt.predict_video(
        segadapt.load(run),
        drive,
        tmp_path / "p.mp4",
        view="side-by-side",
        every=2,
        progress=lambda *at: done.append(at),
    )
    arguments = (run, drive, "-o", tmp_path / "c.mp4", "--view", "side-by-side", "--every", 2)
    assert command(capsys, "predict", *arguments).code == 0
    ours, theirs = videos.read(tmp_path / "p.mp4"), videos.read(tmp_path / "c.mp4")
    assert frames == len(ours.frames) == 3 and done == [(1, 3), (2, 3), (3, 3)]
    assert all(map(np.array_equal, ours.frames, theirs.frames))
    assert ours.times == theirs.times and ours.packets == theirs.packets
    with pytest.raises(UsageError, match="is there already"):
        segadapt.predict_video(run, drive, tmp_path / "p.mp4")


def test_several_models_and_images(run: Path, tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    images = [tmp_path / f"{number}.png" for number in (0, 1, 2)]
    segadapt.predict_video([run, segadapt.load(run)], images, tmp_path / "o.mkv", view="labels", fps=10, overwrite=True)
    found = videos.read(tmp_path / "o.mkv")
    assert found.rate == 10 and [frame.shape for frame in found.frames] == [(16, 64, 3)] * 3


def test_frames_in_a_loop_of_ones_own(run: Path, drive: Path, tmp_path: Path) -> None:
    found = list(segadapt.predict_frames(run, str(drive)))
    assert [frame.name for frame, _ in found] == [f"{number:06d}" for number in range(6)]
    assert [frame.time for frame, _ in found] == pytest.approx([float(number / videos.RATE) for number in range(6)])
    for (frame, prediction), labels, picture in zip(found, LABELS, FRAMES, strict=True):
        assert np.array_equal(frame.image, picture) and np.array_equal(prediction.labels, full(labels))
        assert prediction.overlay().size == (32, 16) and prediction.label_space.name == SPACE.name
    found[0][1].save(tmp_path / "first.png", "train_id")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "first.png")), full(LABELS[0]))
    every = [frame.name for frame, _ in segadapt.predict_frames(run, drive, every=4)]
    assert every == ["000000", "000004"]


def test_a_loop_may_be_left(run: Path, drive: Path) -> None:
    frames = segadapt.predict_frames(run, drive)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    drive.unlink()
    assert list(frames) == []


def test_what_could_not_be_read_is_raised_after_the_last_frame(run: Path, tmp_path: Path) -> None:
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    seen = []
    with pytest.raises(SegadaptError, match=r"b\.png"):
        for frame, _ in segadapt.predict_frames(run, [tmp_path / "a.png", tmp_path / "b.png"]):
            seen.append(frame.name)
    assert seen == ["a"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"every": 0}, "every: cannot be 0"),
        ({"smooth": 1.0}, "smooth: cannot be 1.0"),
        ({"fps": 10}, "fps: is for images"),
        ({"view": "all"}, "view: unknown view 'all'"),
        ({"out": "o.gif"}, "o.gif: is no video's name"),
        ({"out": "o.avi"}, r"o.avi: \.avi is read, but not written"),
        ({"models": []}, "models: is empty"),
        ({"models": [3]}, "model: int is no model"),
        ({"video": "none.mp4"}, "none.mp4: does not exist"),
        ({"video": []}, r"video: \[\] is no video"),
        ({"exif": "left"}, "exif: unknown 'left'"),
        ({"encoder": "h265"}, "encoder: this build of PyAV has no encoder h265.*libx265"),
    ],
)
def test_what_cannot_be_is_said_in_the_words_of_python(
    run: Path, drive: Path, wrong: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"models": run, "video": drive, "out": "o.mp4", **wrong}
    with pytest.raises(UsageError, match=told):
        segadapt.predict_video(**given)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("o*"))


# --- encoders ---


def test_another_encoder_writes_the_video(
    run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MPEG-4 is in every build; it has no scale of quality that is known here, and gets a bit rate."""
    arguments = ("predict", run, drive, "-o", tmp_path / "o.mp4", "--view", "labels")
    assert command(capsys, *arguments, "--encoder", "mpeg4").code == 0
    found = videos.read(tmp_path / "o.mp4")
    assert found.codecs == ("mpeg4", "aac") and len(found.frames) == 6
    told = command(capsys, *arguments, "--encoder", "h264_magic", "--overwrite")
    assert told.code == 2 and "has no encoder h264_magic" in told.errors[0] and "libx264" in told.errors[0]
    folder = command(capsys, "predict", run, drive, "-o", tmp_path / "folder", "--encoder", "mpeg4")
    assert folder.code == 2 and folder.errors[0].startswith("error: --encoder: is for videos")


def test_encoders_of_this_build() -> None:
    usual = encoders.encoder_for(".mp4")
    assert (usual.name, usual.pixels, usual.bit_rate(64, 64, videos.RATE)) == ("libx264", "yuv420p", None)
    assert encoders.encoder_for(".webm").name == "libvpx-vp9"
    assert encoders.encoder_for(".mkv", "mpeg4").bit_rate(1920, 1080, Fraction(25)) == 7_776_000
    for suffix, name, told in (
        (".webm", "libx264", "players do not expect"),
        (".mp4", "aac", "has no encoder aac"),
        (".mp4", "vp9", "has no encoder vp9"),  # a decoder, and a codec
        (".mov", "libx264rgb", "takes no 4:2:0"),
    ):
        with pytest.raises(UsageError, match=told):
            encoders.encoder_for(suffix, name)


def test_an_encoder_whose_hardware_is_missing_is_told_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, mode: str) -> None:
        raise videos.av.PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(videos.av.CodecContext, "create", fails)
    with pytest.raises(UsageError, match=r"libx264 does not work on .* \(Operation not permitted\)") as told:
        encoders.encoder_for(".mp4", "libx264")
    assert "mpeg4" in told.value.remedy and "nvenc" not in told.value.remedy

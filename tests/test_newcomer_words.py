"""What newcomers type instead of what they mean, and the one line that leads on."""

from pathlib import Path

import pytest
from PIL import Image

from command import command
from segadapt.errors import SegadaptError, UsageError
from segadapt.inference.pixels import rgb_pixels
from segadapt.setup.folders import look

Capture = pytest.CaptureFixture[str]


def test_the_recipe_that_init_wrote_without_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 1\n")
    told = command(capsys, "run", "mine", "--dry-run")
    assert told.code == 2 and told.errors == [
        "error: mine: no recipe of this name, and no file. Did you mean 'mine.yaml'?"
    ]


def test_a_folder_before_its_layout(tmp_path: Path, capsys: Capture) -> None:
    told = command(capsys, "data", "check", tmp_path)
    assert told.code == 2 and f"Name the layout before it: 'folder {tmp_path}'" in told.errors[0]


def test_a_misspelt_verb_ends_in_one_question_mark(capsys: Capture) -> None:
    told = command(capsys, "predcit", "run")
    assert told.code == 2 and told.errors[0].endswith("Did you mean 'predict'? See `segadapt --help`.")


def test_a_video_in_the_place_of_a_data_set_or_an_image(tmp_path: Path, capsys: Capture) -> None:
    drive = tmp_path / "my drive.mp4"
    drive.write_bytes(b"a video")
    with pytest.raises(UsageError, match=r"is a video, and no folder of images.*ffmpeg -i '.*my drive\.mp4'"):
        look(drive)
    with pytest.raises(SegadaptError, match=r"is a video, and no image\. .*predict_frames"):
        rgb_pixels(drive)
    told = command(capsys, "stylize", "none", drive, "-o", tmp_path / "out")
    assert told.code == 2
    Image.new("RGB", (4, 4)).save(tmp_path / "a.mp4", "PNG")
    assert rgb_pixels(tmp_path / "a.mp4").shape == (4, 4, 3)  # whatever it is called


def test_a_network_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra is not installed: pip install 'segadapt[video]'")
    import segadapt

    with pytest.raises(UsageError, match=r"model: object is no model\. Give what segadapt\.load gives"):
        segadapt.predict_video(object(), "drive.mp4", tmp_path / "o.mp4")  # type: ignore[arg-type]

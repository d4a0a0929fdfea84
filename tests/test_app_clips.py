"""Clips in the web app: predicted, stopped, refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scored_runs import blocks, registered, save
from segadapt.app.choices import Choices
from segadapt.app.clips import ClipOptions, predict_clip
from segadapt.app.networks import Networks, Segmenter
from segadapt.app.pictures import read_upload
from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space
from segadapt.errors import SegadaptError
from videos import nearest, painted, read, write

pytestmark = pytest.mark.usefixtures(registered.__name__)


@pytest.fixture
def space() -> LabelSpace:
    return load_label_space("cityscapes19")


@pytest.fixture
def model(tmp_path: Path, space: LabelSpace, registered: None) -> Segmenter:
    save(tmp_path / "model.safetensors", space)
    choices = Choices(segmenters={"one": tmp_path / "model.safetensors"})
    return Networks(choices, torch.device("cpu")).segmenter("one")


def clip(path: Path, space: LabelSpace, frames: int) -> Path:
    labels = [np.where(one == IGNORE, 0, one)[::4, ::4].astype(np.uint8) for one in map_blocks(space, frames)]
    return write(path, [painted(space, one) for one in labels])


def map_blocks(space: LabelSpace, frames: int) -> list[np.ndarray]:
    return [blocks(space, seed, classes=3) for seed in range(frames)]


def test_a_clip_is_predicted_up_to_the_seconds_that_are_wanted(
    tmp_path: Path, space: LabelSpace, model: Segmenter
) -> None:
    told: list[tuple[int, int | None]] = []
    file = clip(tmp_path / "drive.mp4", space, 6)
    options = ClipOptions("labels", seconds=0.15)
    made = predict_clip(file, tmp_path / "out", [model], options, lambda *done: told.append(done), lambda: False)
    assert made.file == tmp_path / "out" / "drive.mp4" and made.said == "5 frames predicted."
    found, wanted = read(made.file).frames, read(file).frames
    assert len(found) == 5 and told[-1][0] == 5
    assert all(
        np.array_equal(nearest(space, one), nearest(space, two)) for one, two in zip(found, wanted, strict=False)
    )
    assert np.array_equal(read_upload(file), wanted[0])  # its first frame stands for it


def test_a_stopped_clip_keeps_what_was_done(tmp_path: Path, space: LabelSpace, model: Segmenter) -> None:
    file, done = clip(tmp_path / "drive.mp4", space, 6), [0]
    made = predict_clip(
        file, tmp_path / "out", [model], ClipOptions(), lambda *told: done.append(told[0]), lambda: done[-1] >= 2
    )
    assert made.said == "Stopped after 2 frames." and made.file is not None and len(read(made.file).frames) == 2
    made = predict_clip(file, tmp_path / "none", [model], ClipOptions(), lambda *told: None, lambda: True)
    assert made.file is None and not list((tmp_path / "none").glob("*"))


def test_a_playlist_under_a_clips_name_opens_nothing_else(tmp_path: Path, space: LabelSpace, model: Segmenter) -> None:
    secret = clip(tmp_path / "secret.mp4", space, 2)
    bad = tmp_path / "bad.mp4"
    bad.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    with pytest.raises(SegadaptError, match="cannot be read"):
        read_upload(bad)
    with pytest.raises(SegadaptError, match="cannot be read"):
        predict_clip(bad, tmp_path / "out", [model], ClipOptions(), lambda *told: None, lambda: False)

"""The stage and the verb `stylize`: sizes, names, the published pixels, resuming, ranks."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from command import assert_told, command
from forking import Forks
from made_pictures import SIZE, files, write_generator, write_stages
from recorded import stylized, transformer_net_start, write_micro
from segadapt.errors import Stopped
from segadapt.inference.stylizer import Stylizer
from segadapt.weights.saved import load_generator
from tiny_runs import run


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


@pytest.mark.numeric
def test_the_recorded_style_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_micro(tmp_path / "micro")
    torch.save(transformer_net_start(), tmp_path / "transformer_net.pth")
    inputs = (tmp_path / "transformer_net.pth", tmp_path / "micro/GTA5/images")
    told = command(capsys, "stylize", *inputs, "-o", tmp_path / "out", "--size", "128x64", "--official")
    assert (told.code, told.out) == (0, f"3 images stylized: {tmp_path / 'out'}\n")
    for name, expected in stylized().items():
        assert (pixels(tmp_path / "out" / f"{name}.png") == expected).mean() >= 0.999

    told = command(capsys, "stylize", *inputs, "-o", tmp_path / "rounded", "--size", "128x64", "--output-size", "64x32")
    assert told.code == 0
    cut = Image.open(tmp_path / "out/00001.png").resize((64, 32), Image.Resampling.BICUBIC)
    brighter = pixels(tmp_path / "rounded/00001.png").astype(float) - np.asarray(cut)
    assert 0.3 < brighter.mean() < 0.7  # half a level: rounded, where the published program cuts


def test_a_sheet_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 24), (90, 120, 150)).save(tmp_path / "in/a.png")
    generator = write_generator(tmp_path / "generator.safetensors")
    inputs = (generator, tmp_path / "in")
    told = command(capsys, "stylize", *inputs, "-o", tmp_path / "out", "--size", "16x8", "--sheet", tmp_path / "in")
    assert told.code == 2 and f"{tmp_path / 'in'}: cannot be written" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.numeric
def test_pixels_by_hand(tmp_path: Path) -> None:
    """RGB to Caffe pixels, through the generator, mean added, clipped, rounded."""
    network = load_generator(write_generator(tmp_path / "generator.safetensors")).network
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)
    bgr = torch.from_numpy(image[:, :, ::-1].astype(np.float32)).permute(2, 0, 1)[None] - mean
    with torch.no_grad():
        raw = (network(bgr) + mean)[0].permute(1, 2, 0).numpy()[:, :, ::-1]
    rounded = Stylizer(network, (24, 16))([image, image])
    np.testing.assert_array_equal(rounded[0], np.clip(np.rint(raw), 0, 255))
    np.testing.assert_array_equal(rounded[1], rounded[0])
    np.testing.assert_array_equal(Stylizer(network, (24, 16), truncated=True)([image])[0], np.clip(raw, 0, 255) // 1)
    low = Stylizer(network, (24, 16), precision="bf16")([image])
    assert 0 < np.abs(low[0].astype(int) - rounded[0]).mean() < 8


def test_the_stage_writes_copies_a_sheet_and_a_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = write_stages(tmp_path, stylize={"batch": 4})
    run(recipe, tmp_path / "run")
    stage, images = tmp_path / "run/stylize", tmp_path / "data/gta5/images"
    names = sorted(path.name for path in images.iterdir())[:6]  # the last two are held out
    assert sorted(path.name for path in (stage / "images").iterdir()) == names
    stylizer = Stylizer(load_generator(tmp_path / "generator.safetensors").network, SIZE)
    for name in names:
        original = Image.open(images / name)
        small = np.asarray(original.resize(SIZE, Image.Resampling.BICUBIC))
        expected = Image.fromarray(stylizer([small])[0]).resize(original.size, Image.Resampling.BICUBIC)
        assert np.abs(pixels(stage / "images" / name).astype(int) - np.asarray(expected)).max() <= 1
    assert Image.open(stage / "contact_sheet.png").width > 3 * 480
    result = json.loads((stage / "result.json").read_text())
    assert result["images"] == 6 and result["settings"]["quirks"] == {"truncated": False}
    assert "6 images stylized, 0 were already done" in capfd.readouterr().err


def test_a_killed_stage_resumes_exactly(forks: Forks, tmp_path: Path) -> None:
    """kill -9 with an image of a batch there and the other not; the batch is computed again, whole."""
    recipe, out = write_stages(tmp_path, stylize={"size": [256, 128], "batch": 2}), tmp_path / "killed"
    arguments = ["run", str(recipe), "--threads", "1", "--out", str(out)]
    forks.kill_when(lambda: list(out.glob("stylize/images/*.png")), arguments, tmp_path / "said")
    there = sorted(out.glob("stylize/images/*.png"))
    assert len(there) < 6
    there[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in there[1:]}
    run(recipe, out, "runtime.threads=1")
    run(recipe, tmp_path / "whole", "runtime.threads=1")
    assert files(out / "stylize") == files(tmp_path / "whole/stylize")
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_a_signal_ends_the_batch_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_stages(tmp_path, stylize={"batch": 2})
    call = Stylizer.on_device

    def interrupted(self: Stylizer, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return call(self, images)

    monkeypatch.setattr(Stylizer, "on_device", interrupted)
    with pytest.raises(Stopped, match="4 of 6 images left to do") as stopped:
        run(recipe, tmp_path / "run")
    assert stopped.value.exit_code == 128 + signal.SIGINT
    assert len(list((tmp_path / "run/stylize/images").iterdir())) == 2
    assert not (tmp_path / "run/stylize/result.json").exists()
    monkeypatch.undo()
    run(recipe, tmp_path / "run")
    assert (tmp_path / "run/stylize/result.json").exists()


def test_two_ranks_write_what_one_writes(forks: Forks, tmp_path: Path) -> None:
    recipe = write_stages(tmp_path, stylize={"batch": 2}, pseudo_labels={})
    machine = ("runtime.threads=1", "runtime.inference_batch=4")  # of six images
    for process in forks.ranks(2, ["run", str(recipe), *machine, "--out", str(tmp_path / "two")], tmp_path):
        assert process.wait() == 0, process.said.read_text()
    run(recipe, tmp_path / "one", *machine)
    for stage in ("stylize", "pseudo_labels"):
        assert files(tmp_path / "two" / stage) == files(tmp_path / "one" / stage)


def test_the_verb_takes_folders_and_a_second_run_does_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, images = write_generator(tmp_path / "g.safetensors"), tmp_path / "in"
    for name in ("a.png", "city/b.jpg", "city/c.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 24), (90, 120, 150)).save(images / name)
    (images / "city/broken.png").write_bytes(b"no image")
    arguments = ("stylize", generator, images, "-o", tmp_path / "out", "--size", "16x8", "--batch", "3")
    told = command(capsys, *arguments)
    assert_told(told, 1, str(images / "city/broken.png"), "the other 3 images are done", "finds all such files.")
    (images / "city/broken.png").unlink()
    sheet = ("--sheet", tmp_path / "sheet.png", "--target", images / "city")
    told = command(capsys, *arguments, *sheet)
    assert told.out == f"0 images stylized, 3 were already done: {tmp_path / 'out'}\n"
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert found == {"a.png", "city/b.png", "city/c.png"}
    assert Image.open(tmp_path / "out/city/b.png").size == (40, 24)
    assert Image.open(tmp_path / "sheet.png").width > 3 * 480

    other = command(capsys, "stylize", tmp_path / "in", images, "-o", tmp_path / "out")
    assert_told(other, 2, str(tmp_path / "in"), "holds no generator", "or a generator's file.")
    wrong = command(capsys, *arguments, "--png-level", "11")
    assert_told(wrong, 2, "--png-level", "11 should be less than or equal to 9", "in --help.")
    alone = command(capsys, *arguments, "--target", images)
    assert_told(alone, 2, "--target", "applies to --sheet only", "Give --sheet FILE with it.")
    over = command(capsys, "stylize", generator, images, "-o", images, "--size", "16x8")
    assert over.code == 2

"""An input that does not fit into memory is told before anything is computed."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from command import assert_told, command
from made_pictures import write_generator, write_model
from segadapt.errors import UsageError
from segadapt.inference import memory
from segadapt.inference.model import load
from segadapt.inference.stylizer import Stylizer
from segadapt.models.networks import build
from segadapt.weights.saved import load_generator

HUGE = (16000, 16000)


def test_the_peak_of_a_pass_by_hand() -> None:
    """Input (3), first convolution (8), second one (4), float32 planes: two neighbours are alive at a time."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1))
    plane = 4 * 64 * 64
    assert memory.pass_bytes(network, (1, 3, 64, 64), torch.float32) == (3 + 8 + 4) * plane
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.parametrize("name", ["deeplab_small", "deeplab_small_bn"])
def test_it_grows_with_the_pixels(name: str) -> None:
    network = build(name, classes=19)
    small, large = (memory.pass_bytes(network, (1, 3, side, side), torch.uint8) for side in (256, 1024))
    assert 15 < large / small < 17


def test_what_does_not_fit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 8_000_000_000)
    path = write_model(tmp_path / "model.safetensors")
    said = r"an input of 16000×16000 needs about \d+\.\d GB of memory, and 8\.0 GB are free"
    with pytest.raises(UsageError, match=said):
        load(path, device="cpu", size=HUGE)
    load(path, device="cpu", size=(1024, 512), scales=(1, 2), mirror=True)
    load(path, device="cpu", size=(8000, 4000), window=(1024, 1024))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    outcome = command(capsys, "predict", path, picture, "-o", tmp_path / "out", "--size", "16000x16000")
    assert_told(outcome, 2, "size", "an input of 16000×16000 needs about", "window=(1024, 1024).")
    generator = load_generator(write_generator(tmp_path / "generator.safetensors")).network
    with pytest.raises(UsageError, match=said):
        Stylizer(generator, HUGE)


def test_something_is_free_here() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or free > 0

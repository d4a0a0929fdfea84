"""`segadapt export`: out in the published layout and in again, through the command line."""

from pathlib import Path

import pytest
import torch

from command import assert_told, command
from made_pictures import write_model
from recorded import hollow, segan_discriminators, transformer_net_start
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import IMAGENET
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.initial import load_module, load_start
from segadapt.weights.saved import GeneratorHeader, load_any, load_generator, save_generator, save_model

CapSys = pytest.CaptureFixture[str]
State = dict[str, torch.Tensor]


def same(a: State, b: State) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def exported(capsys: CapSys, model: Path, out: Path, *options: str) -> State:
    outcome = command(capsys, "export", model, "-o", out, *options)
    assert outcome.code == 0, outcome.err
    state: State = torch.load(out, weights_only=True)
    return state


def numbered(network: str) -> State:
    """A published file whose n-th tensor is full of n."""
    return {name: torch.full(like.shape, n, dtype=like.dtype) for n, (name, like) in enumerate(hollow(network).items())}


@pytest.mark.parametrize("name", ["sean", "deeplab_multi"])
def test_a_segmenter_goes_in_and_out_unchanged(
    name: str, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published file -> our stage folder -> published file: SEAN's with attention, SE-GAN's ResNet-101."""
    for draw in ("normal_", "kaiming_uniform_", "kaiming_normal_"):  # all is loaded: for speed nothing is drawn
        monkeypatch.setattr(f"torch.nn.init.{draw}", lambda tensor, *_, **__: tensor)
    published = numbered(name)
    torch.save(published, tmp_path / "published.pth")
    found = load_any(tmp_path / "published.pth")
    stage = tmp_path / "run/stage"
    save_model(stage / "model.safetensors", found.network, found.header)
    assert same(exported(capsys, stage, tmp_path / "out.pth"), published)
    if name == "sean":
        again = load_any(tmp_path / "out.pth")
        assert again.header == found.header and same(again.network.state_dict(), found.network.state_dict())
        refused = command(capsys, "export", stage, "-o", tmp_path / "start.pth", "--start-file")
        assert_told(refused, 2, str(tmp_path / "start.pth"), "no start file of DeepLab VGG-16", "out.")
        return
    start = exported(capsys, stage, tmp_path / "start.pth", "--start-file")
    assert same({name.removeprefix("Scale."): tensor for name, tensor in start.items()}, published)
    report = load_start(found.network, tmp_path / "start.pth")
    assert report.origin.kind == "resnet101_start"
    assert {name.split(".")[0] for name in report.fresh} == {"layer5"}  # as the published program reads it


def test_a_generator_and_a_discriminator(tmp_path: Path, capsys: CapSys) -> None:
    torch.save(transformer_net_start(), tmp_path / "published.pth")
    stage = tmp_path / "style"
    save_generator(stage / "model.safetensors", load_generator(tmp_path / "published.pth").network, GeneratorHeader())
    assert same(exported(capsys, stage, tmp_path / "out.pth"), transformer_net_start())
    first, second = segan_discriminators()
    modules = {"student": transformer_net_start(), "discriminator1": first, "discriminator2": second}
    checkpoint = tmp_path / "step_00000007.pt"
    torch.save({"modules": modules, "step": 7, "optimizers": {}}, checkpoint)
    assert same(exported(capsys, checkpoint, tmp_path / "d2.pth", "--discriminator", "discriminator2"), second)
    load_module(Discriminator(19), tmp_path / "d2.pth")
    wrong = command(capsys, "export", checkpoint, "-o", tmp_path / "x.pth", "--discriminator", "student")
    assert_told(wrong, 2, str(checkpoint), "without a discriminator 'student'", "discriminator1, discriminator2.")


def test_what_they_would_run_otherwise_is_refused(tmp_path: Path, capsys: CapSys) -> None:
    out, model = tmp_path / "out.pth", write_model(tmp_path / "small.safetensors")
    assert_told(
        command(capsys, "export", model, "-o", out),
        2,
        "network",
        "is not a network of the published programs",
        "Share model.safetensors.",
    )
    torch.save(hollow("vgg_base"), tmp_path / "vgg.pth")
    found = load_any(tmp_path / "vgg.pth")
    found.network.pixels = IMAGENET
    imagenet = tmp_path / "imagenet.safetensors"
    save_model(imagenet, found.network, found.header.model_copy(update={"pixels": "imagenet"}))
    refused = command(capsys, "export", imagenet, "-o", out)
    assert_told(
        refused,
        2,
        str(out),
        "need pixels: imagenet, but",
        "or share model.safetensors.",
    )
    refused = command(capsys, "export", tmp_path / "vgg.pth", "-o", tmp_path / "out.pt")
    assert_told(
        refused, 2, "--out", "ends in '.pt', but only .pth or .onnx can be written", "or give - for standard output."
    )
    residual = tmp_path / "generator.safetensors"
    save_generator(residual, StyleTransfer(residual=True), GeneratorHeader(residual=True))
    refused = command(capsys, "export", residual, "-o", out)
    assert_told(refused, 2, str(out), "without a residual sum", "or share model.safetensors.")
    assert not out.exists()

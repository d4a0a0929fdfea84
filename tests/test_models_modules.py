"""Style transfer networks and discriminators from files and into files: both directions, told apart from others."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from recorded import hollow, segan_discriminators, tgstn_discriminator, transformer_net_start
from segadapt.errors import SegadaptError, UsageError
from segadapt.models.discriminators import Discriminator
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.initial import identify, load_module
from segadapt.weights.published import export_published
from segadapt.weights.saved import GeneratorHeader, load_any, load_generator, load_model, save_generator

State = dict[str, Tensor]
Module = StyleTransfer | Discriminator


def assert_same(network: Module, state: State) -> None:
    own = network.state_dict()
    assert list(own) == list(state) and all(torch.equal(own[name], tensor) for name, tensor in state.items())


PUBLISHED: dict[str, tuple[State, Module]] = {
    "style transfer": (transformer_net_start(), StyleTransfer()),
    "of maps": (segan_discriminators()[1], Discriminator(19)),
    "of images": (tgstn_discriminator(), Discriminator(3)),
    "AdaptSegNet's": (Discriminator(19, (64, 128, 256, 512)).state_dict(), Discriminator(19, (64, 128, 256, 512))),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_go_in_and_out_unchanged(name: str, tmp_path: Path) -> None:
    state, network = PUBLISHED[name]
    torch.save(state, tmp_path / "published.pth")
    info = load_module(network, tmp_path / "published.pth")
    assert info == identify(tmp_path / "published.pth")
    assert_same(network, state)
    export_published(network, tmp_path / "out.pth")
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(exported) == list(state)
    assert all(exported[key].numpy().tobytes() == tensor.numpy().tobytes() for key, tensor in state.items())


def test_a_generator_comes_back_as_it_was(tmp_path: Path) -> None:
    network, path = StyleTransfer(), tmp_path / "model.safetensors"
    header = GeneratorHeader(size=(128, 64), stage="style", method="tgstn", step=6)
    save_generator(path, network, header)
    loaded = load_generator(path)
    assert loaded.header == header and not loaded.network.training
    assert_same(loaded.network, network.state_dict())
    assert str(identify(path)) == "a segadapt style transfer network"
    save_generator(tmp_path / "again.safetensors", network, header)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    other = StyleTransfer()
    load_module(other, path)
    assert_same(other, network.state_dict())
    for load in (load_any, load_model):
        with pytest.raises(UsageError, match="a segadapt style transfer network, which cannot be used as a model"):
            load(path)


def test_a_published_generator_is_one_too(tmp_path: Path) -> None:
    torch.save(transformer_net_start(), tmp_path / "transformer_net.pth")
    loaded = load_generator(tmp_path / "transformer_net.pth")
    assert loaded.header == GeneratorHeader() and loaded.header.size is None
    assert_same(loaded.network, transformer_net_start())


def test_training_checkpoints_have_them_by_name(tmp_path: Path) -> None:
    generator, of_images, of_maps = StyleTransfer(), Discriminator(3), Discriminator(19)
    path = tmp_path / "step_00000005.pt"
    modules = {"generator": generator.state_dict(), "discriminator": of_images.state_dict()}
    torch.save({"step": 5, "modules": modules}, path)
    for network, trained in ((StyleTransfer(), generator), (Discriminator(3), of_images)):
        assert str(load_module(network, path)) == "a segadapt training checkpoint of step 5"
        assert_same(network, trained.state_dict())
    with pytest.raises(
        UsageError, match="training checkpoint of step 5, which cannot be used as a style transfer network"
    ):
        load_generator(path)

    modules = {"discriminator1": of_maps.state_dict(), "discriminator2": of_maps.state_dict()}
    torch.save({"step": 5, "modules": modules}, path)
    with pytest.raises(UsageError, match=r"with 2 such networks \(discriminator1, discriminator2\)"):
        load_module(Discriminator(19), path)
    with pytest.raises(UsageError, match="of step 5; expected a style transfer network"):
        load_module(StyleTransfer(), path)


WRONG: dict[str, tuple[State, Module, str]] = {
    "classes": (
        segan_discriminators()[0],
        Discriminator(16),
        "a published discriminator, but its 'conv1.weight' is 32×19×4×4, expected 32×16×4×4",
    ),
    "a discriminator": (hollow("discriminator3"), StyleTransfer(), "discriminator; expected a style transfer network"),
    "style transfer": (
        hollow("transformer_net"),
        Discriminator(19),
        "(transformer_net); expected a discriminator of 19 channels",
    ),
    "a segmenter": (
        hollow("sean"),
        StyleTransfer(),
        "19 classes and attention; expected a style transfer network",
    ),
    "a part": (
        {name: t for name, t in hollow("transformer_net").items() if name != "res3.in2.shift"},
        StyleTransfer(),
        "a style transfer network has 'res3.in2.shift', which it does not have",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_files_are_refused_in_one_line(wrong: str, tmp_path: Path) -> None:
    state, network, words = WRONG[wrong]
    path = tmp_path / "other.pth"
    torch.save(state, path)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_module(network, path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and words in text and "\n" not in text and text.endswith(caught.value.remedy)
    assert_same(network, before)
    if isinstance(network, StyleTransfer):
        with pytest.raises(UsageError):
            load_generator(path)


def test_a_damaged_header_is_said_so(tmp_path: Path) -> None:
    network, path = StyleTransfer(), tmp_path / "model.safetensors"
    save_generator(path, network, GeneratorHeader(step=6))
    path.write_bytes(path.read_bytes().replace(b'\\"step\\": 6', b'\\"step\\":-6'))
    with pytest.raises(SegadaptError, match="its header is wrong") as caught:
        load_generator(path)
    assert caught.value.exit_code == 1

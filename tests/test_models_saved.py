"""Models for use: whole, self-describing, the same bytes for the same model, and refused when they are not ours."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from recorded import forward, forward_input, hollow, state
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.models import networks
from segadapt.models.segmenter import CAFFE, IMAGENET, NetworkOptions, PixelFormat, Segmenter
from segadapt.weights.initial import identify, load_start
from segadapt.weights.saved import ModelHeader, load_any, load_model, save_model


def header_of(network: Segmenter, name: str = "deeplab_small", space: str = "camvid11") -> ModelHeader:
    return ModelHeader(
        network=name,
        attention=network.attention is not None,
        pixels=network.pixels.name,
        label_space=load_label_space(space).as_dict(),
        size=(64, 32),
        stage="adapt",
        method="sean",
        step=12,
        selection="label_free",
    )


def small(attention: bool = False, **options: str) -> Segmenter:
    torch.manual_seed(1)
    return networks.build({"name": "deeplab_small", **options}, classes=11, attention=attention).eval()


def rewrite(path: Path, changes: dict[str, object]) -> None:
    """Put other values into the header of a model file."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["segadapt"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"segadapt": json.dumps({**header, **changes})})


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "attention"), [({}, False), ({}, True), ({"aspp": "published"}, False), ({"norm": "batch"}, False)]
)
def test_a_model_comes_back_as_it_was(options: dict[str, str], attention: bool, tmp_path: Path) -> None:
    network = small(attention, **options)
    header = header_of(network).model_copy(update={"options": {"aspp": "full", "norm": "group", **options}})
    save_model(tmp_path / "model.safetensors", network, header)
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    assert torch.equal(loaded.network(images).logits, network(images).logits)
    assert loaded.header == header and loaded.header.space == load_label_space("camvid11")
    assert not loaded.network.training
    assert load_any(tmp_path / "model.safetensors").header == header


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    network = small()
    save_model(tmp_path / "a.safetensors", network, header_of(network))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_model(tmp_path / "b.safetensors", network, header_of(network))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_pixel_format_travels_with_the_weights(tmp_path: Path) -> None:
    network, path = small(), tmp_path / "model.safetensors"
    assert network.pixels is IMAGENET
    network.pixels = CAFFE  # as a start may set it
    save_model(path, network, header_of(network))
    assert load_model(path).network.pixels is CAFFE
    fresh = small()
    load_start(fresh, path)
    assert fresh.pixels is CAFFE


class Tiny(Segmenter):
    """A network of one's own."""

    pixels = PixelFormat("tiny", "rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    stride = 1

    def __init__(self, classes: int, attention: bool = False, options: NetworkOptions | None = None) -> None:
        super().__init__(classes, 4, attention, options)
        self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, classes, 1)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(pixels)
        return features

    def heads(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.head(features),)


@pytest.fixture
def tiny() -> Iterator[None]:
    networks.register_network("tiny", Tiny)
    yield
    del networks.NETWORKS["tiny"]


def test_a_network_of_ones_own_needs_to_be_registered(tiny: None, tmp_path: Path) -> None:
    network, path = networks.build("tiny", classes=11, attention=True), tmp_path / "model.safetensors"
    save_model(path, network, header_of(network, "tiny"))
    assert load_model(path).network.pixels.name == "tiny"
    rewrite(path, {"pixels": "other"})
    with pytest.raises(UsageError, match="its pixel format 'other' is unknown here"):
        load_model(path)
    rewrite(path, {"network": "gone"})
    with pytest.raises(UsageError, match="'gone' with 11 classes and attention, which is unknown here") as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"format": 5}, UsageError, "written by a newer segadapt (model format 5; this one reads up to 4)"),
        ({"format": "x"}, SegadaptError, "is damaged"),
        ({"label_space": {}}, SegadaptError, "is damaged"),
        ({"label_space": {"classes": [1]}}, SegadaptError, "its header is wrong"),
        ({"size": [0, 3]}, SegadaptError, "its header is wrong"),
        ({"surprise": 1}, SegadaptError, "its header is wrong"),
        ({"attention": True}, UsageError, "it has no attention, but the network does"),
        ({"network": "deeplab_vgg16"}, SegadaptError, "its header is wrong (deeplab_vgg16 has no option `norm`)"),
        ({"network": "deeplab_vgg16", "options": {}}, UsageError, "which it does not have"),
    ],
)
def test_other_headers_are_refused(
    changes: dict[str, object], kind: type[SegadaptError], words: str, tmp_path: Path
) -> None:
    network, path = small(), tmp_path / "model.safetensors"
    save_model(path, network, header_of(network))
    rewrite(path, changes)
    with pytest.raises(SegadaptError) as caught:
        load_model(path)
    assert type(caught.value) is kind
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step_00000003.pt"
    torch.save({"format": 1, "step": 3, "modules": {"network": small().state_dict()}}, path)
    with pytest.raises(UsageError, match="a segadapt training checkpoint of step 3, which cannot be used as a model"):
        load_any(path)
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="of unknown origin"):
        load_model(path)
    for name, words in {
        "deeplab_multi": "a single-head DeepLab ResNet-101 checkpoint with 19 classes, which cannot be used as a model",
        "transformer_net": "a published style transfer network (transformer_net), which cannot be used as a model",
        "discriminator": "a published discriminator, which cannot be used as a model",
    }.items():
        other = tmp_path / f"{name}.pth"
        torch.save({key: tensor for key, tensor in hollow(name).items() if not key.startswith("layer6.")}, other)
        with pytest.raises(UsageError) as caught:
            load_any(other)
        assert str(caught.value).startswith(f"{other}: this is {words}. ") and "\n" not in str(caught.value)
    network = small()
    save_model(path, network, header_of(network))
    assert str(identify(path)) == "a segadapt model of network 'deeplab_small' with 11 classes"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SegadaptError, match="is damaged or incomplete"):
        load_any(path)


@torch.no_grad()
def test_a_published_checkpoint_runs_as_its_program_ran_it(tmp_path: Path) -> None:
    torch.save(state("sean", "S.1."), tmp_path / "sean.pth")
    model = load_any(tmp_path / "sean.pth")
    recorded = torch.from_numpy(forward()["sean.logits"])
    assert (model.network.segment(forward_input()).logits - recorded).abs().max() <= 1e-4 * recorded.std()
    assert model.header.options == {"aspp": "published"} and model.header.size == (1024, 512)
    assert model.header.space == load_label_space("cityscapes19")


def test_the_label_space_of_a_published_checkpoint(tmp_path: Path) -> None:
    torch.save(hollow("sean", 16), tmp_path / "synthia.pth")
    assert load_any(tmp_path / "synthia.pth").header.space == load_label_space("cityscapes16")
    torch.save(hollow("sean", 11), tmp_path / "camvid.pth")
    with pytest.raises(UsageError, match="with 11 classes and attention, but the file does not name them"):
        load_any(tmp_path / "camvid.pth")
    space: LabelSpace = load_label_space("camvid11")
    assert load_any(tmp_path / "camvid.pth", space).header.space == space
    with pytest.raises(UsageError, match="label space 'cityscapes19' has 19"):
        load_any(tmp_path / "camvid.pth", load_label_space("cityscapes19"))


def test_models_of_the_format_before_come_back(tmp_path: Path) -> None:
    """Format 3 named one option and one trait of single networks beside all else."""
    network, path = small(aspp="published"), tmp_path / "model.safetensors"
    save_model(path, network, header_of(network))
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["segadapt"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    old = {key: value for key, value in header.items() if key not in ("options", "traits")}
    old |= {"format": 3, "published_aspp": True, "stride_in_3x3": False}
    save_file(tensors, path, {"segadapt": json.dumps(old)})
    found = load_model(path)
    assert found.network.options.model_dump()["aspp"] == "published" and found.header.traits == {}
    images = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    assert torch.equal(found.network(images).logits, network(images).logits)
    rewrite(path, {"stride_in_3x3": True})
    assert load_model(path).header.traits == {"stride_in_3x3": True}
    save_model(path, small(), header_of(small()))
    rewrite(path, {"format": 3, "published_aspp": False, "options": {}})
    assert load_model(path).network.options.model_dump()["aspp"] == "full"

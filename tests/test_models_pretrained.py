"""Initial weights: each origin by name and shape, files told apart, and bad files refused in one line."""

import copy
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recorded import hollow, sean_start, vgg16_caffe
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import sha256
from segadapt.models import networks
from segadapt.models.heads import DeepLabOptions
from segadapt.models.segmenter import CAFFE, IMAGENET
from segadapt.models.vgg import DeepLabVGG16
from segadapt.weights import starts
from segadapt.weights.initial import identify, load_start
from segadapt.weights.published import export_published

State = dict[str, Tensor]
TORCHVISION_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def hub_vgg16() -> State:
    """VGG-16 in the layout of torchvision and timm, with the weights of `vgg16_caffe`."""
    state = {}
    for (name, tensor), i in zip(vgg16_caffe().items(), np.repeat(TORCHVISION_INDICES, 2), strict=False):
        state[f"features.{i}.{name.rpartition('.')[2]}"] = tensor
    return state | {"pre_logits.fc1.weight": torch.zeros(2, 2), "head.fc.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def network() -> DeepLabVGG16:
    """With attention, 19 classes; tests that change it take a copy."""
    return DeepLabVGG16(19, attention=True, options=DeepLabOptions(aspp="published"))


@pytest.fixture(scope="module")
def caffe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caffe") / "vgg16_caffe.pth"
    torch.save(vgg16_caffe(), path)
    return path


@pytest.fixture(scope="module")
def sean_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sean") / "sean_start.pth"
    torch.save(sean_start(), path)
    return path


def convolutions(network: DeepLabVGG16) -> list[Tensor]:
    """Weight and bias of VGG-16's thirteen convolutions, in order."""
    convs = [module for module in network.features if isinstance(module, nn.Conv2d)][:13]
    return [tensor for conv in convs for tensor in (conv.weight, conv.bias) if tensor is not None]


def assert_refused(path: Path | str, error: SegadaptError, exit_code: int, *words: str) -> None:
    """One line that begins with the path, says these words and ends with a remedy."""
    text = str(error)
    assert error.exit_code == exit_code
    assert text.startswith(f"{path}: ") and "\n" not in text and error.remedy and text.endswith(error.remedy)
    for word in words:
        assert word in text


# VGG-16 starts


def test_caffe_vgg16_loads_by_name_and_leaves_the_rest_fresh(network: DeepLabVGG16, caffe_file: Path) -> None:
    before, ours = network.state_dict(), copy.deepcopy(network)
    report = load_start(ours, caffe_file)
    expected = list(vgg16_caffe().values())[:26]
    assert all(torch.equal(a, b) for a, b in zip(convolutions(ours), expected, strict=True))
    assert len(report.loaded) == 26 and report.skipped == ("fc6.weight", "fc7.weight", "score_fr.weight")
    assert {name.rpartition(".")[0] for name in report.fresh} == {
        *("attention.conv", "features.29", "features.31"),
        *(f"classifier.convs.{i}" for i in range(4)),
    }
    assert all(torch.equal(ours.state_dict()[name], before[name]) for name in report.fresh)
    assert report.sha256 == sha256(caffe_file) and ours.pixels is CAFFE
    assert "a Caffe VGG-16 file: 26 tensors loaded; fresh: " in str(report)


def test_positional_load_goes_by_order_and_not_by_name(network: DeepLabVGG16, tmp_path: Path) -> None:
    start = vgg16_caffe()
    names = list(start)
    first, second = names.index("conv5_1.weight"), names.index("conv5_2.weight")  # of one shape
    names[first], names[second] = names[second], names[first]
    torch.save({name: start[name] for name in names}, tmp_path / "swapped.pth")
    by_name, by_position = copy.deepcopy(network), copy.deepcopy(network)
    load_start(by_name, tmp_path / "swapped.pth")
    load_start(by_position, tmp_path / "swapped.pth", positional=True)
    assert torch.equal(by_name.state_dict()["features.23.weight"], start["conv5_1.weight"])
    assert torch.equal(by_position.state_dict()["features.23.weight"], start["conv5_2.weight"])
    assert torch.equal(by_position.state_dict()["features.0.weight"], start["conv1_1.weight"])


def test_positional_load_needs_thirteen_convolutions(network: DeepLabVGG16, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"layer1.weight": torch.zeros(64, 3, 3, 3), "layer1.bias": torch.zeros(64)}, path)
    with pytest.raises(UsageError) as caught:
        load_start(network, path, positional=True)
    assert_refused(path, caught.value, 2, "needs 26 tensors in order, and it has 2")


def test_positional_load_leaves_files_with_our_names_alone(network: DeepLabVGG16, sean_file: Path) -> None:
    assert len(load_start(copy.deepcopy(network), sean_file, positional=True).loaded) == 39


def test_caffe_vgg16_by_the_name_of_the_start(
    network: DeepLabVGG16, caffe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGADAPT_WEIGHTS", str(caffe_file.parent))
    assert load_start(copy.deepcopy(network), "vgg16_caffe").path == caffe_file
    monkeypatch.setenv("SEGADAPT_WEIGHTS", str(caffe_file.parent / "nowhere"))
    with pytest.raises(UsageError) as caught:
        load_start(network, "vgg16_caffe")
    assert_refused(caffe_file.parent / "nowhere" / "vgg16_caffe.pth", caught.value, 2, "were not found")


def test_hub_vgg16_brings_its_pixel_format_and_must_be_what_was_published(
    network: DeepLabVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, asked = tmp_path / "model.safetensors", []
    save_file(hub_vgg16(), file)
    published = starts.DOWNLOADS["vgg16_hub"]

    def download(repository: str, name: str, revision: str | None) -> str:
        asked.append((repository, name, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setenv("SEGADAPT_WEIGHTS", str(tmp_path / "weights"))
    ours = copy.deepcopy(network)
    with pytest.raises(SegadaptError) as caught:
        load_start(ours, "vgg16_hub")
    assert_refused(file, caught.value, 1, "is not the known 'vgg16_hub'", f"not {published.sha256}")
    assert asked == [("timm/vgg16.tv_in1k", "model.safetensors", published.revision)]
    assert re.fullmatch("[0-9a-f]{40}", str(published.revision))

    monkeypatch.setitem(starts.DOWNLOADS, "vgg16_hub", replace(published, sha256=sha256(file)))
    report = load_start(ours, "vgg16_hub")
    assert ours.pixels is IMAGENET and report.origin.kind == "vgg16_imagenet"
    expected = list(vgg16_caffe().values())[:26]
    assert all(torch.equal(a, b) for a, b in zip(convolutions(ours), expected, strict=True))
    assert report.note == "SHA-256 as published"


def test_hub_vgg16_without_a_connection(network: DeepLabVGG16, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SegadaptError) as caught:
        load_start(network, "vgg16_hub")
    assert_refused("vgg16_hub", caught.value, 1, "no connection", "https://huggingface.co/timm/vgg16.tv_in1k")


def test_the_hub_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever its client waits for: a name server that does not answer counts in none of the client's own limits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(starts, "ASK_FOR", 0.01)
    asked, over = list[float](), threading.Event()

    def waiting(_: str, timeout: float) -> None:
        asked.append(timeout)
        over.wait()

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", waiting)
    why = starts.missing_download("vgg16_hub")
    over.set()
    assert why is not None and why.endswith("(no connection: no answer within 0.01 seconds)") and asked == [0.01]
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(starts, "ASK_FOR", 60.0)
    assert str(starts.missing_download("vgg16_hub")).endswith("(no connection: ZeroDivisionError)")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    assert starts.missing_download("vgg16_hub") is None


def test_unknown_start_names_the_nearest(network: DeepLabVGG16, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_start(network, "vgg16_caff")
    assert_refused("start", caught.value, 2, "unknown start 'vgg16_caff'", "Did you mean 'vgg16_caffe'?")
    with pytest.raises(UsageError) as caught:
        load_start(network, tmp_path / "nowhere.pth")
    assert_refused(tmp_path / "nowhere.pth", caught.value, 2, "does not exist")


# published checkpoints


def test_published_seanet_goes_in_and_out_unchanged(network: DeepLabVGG16, sean_file: Path, tmp_path: Path) -> None:
    ours = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    report = load_start(ours, sean_file)
    assert len(report.loaded) == 39 and not report.fresh and not report.skipped
    export_published(ours, tmp_path / "out.pth")
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    expected = sean_start()
    assert list(exported) == list(expected)
    for name, tensor in expected.items():
        assert exported[name].numpy().tobytes() == tensor.numpy().tobytes()
        assert exported[name].is_contiguous()


def test_only_what_published_programs_run_the_same_is_exported(tmp_path: Path) -> None:
    all_dilations = DeepLabVGG16(classes=19)
    with pytest.raises(UsageError, match="aspp: published, and it was trained with aspp: full"):
        export_published(all_dilations, tmp_path / "out.pth")
    with pytest.raises(UsageError, match="DeepLabSmall with 19 classes is not a network of the published programs"):
        export_published(networks.build("deeplab_small", classes=19), tmp_path / "out.pth")
    assert not list(tmp_path.iterdir())


OTHERS: dict[str, tuple[State, str]] = {
    "resnet101": (hollow("deeplab_multi"), "a DeepLab ResNet-101 checkpoint with 19 classes"),
    "resnet101 of 16": (hollow("deeplab_multi", classes=16), "a DeepLab ResNet-101 checkpoint with 16 classes"),
    "resnet101 start": (
        {name: t for name, t in hollow("deeplab_multi", 21, "Scale.").items() if "layer6" not in name},
        "a published DeepLab ResNet-101 start file with 21 classes",
    ),
    "style": (hollow("transformer_net"), "a published style transfer network (transformer_net)"),
    "discriminator": (hollow("discriminator"), "a published discriminator"),
    "image discriminator": (hollow("discriminator3"), "a published discriminator"),
    "anything": ({"a.weight": torch.zeros(1)}, "a state dict of unknown origin (its first tensor is 'a.weight')"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_networks_are_told_apart(other: str, network: DeepLabVGG16, tmp_path: Path) -> None:
    state, title = OTHERS[other]
    path = tmp_path / "other.pth"
    torch.save(state, path)
    assert str(identify(path)) == title
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    expected = f"this is {title}; expected DeepLab VGG-16 with 19 classes and attention"
    assert_refused(path, caught.value, 2, expected)


def test_vgg16_files_are_no_start_for_another_network(caffe_file: Path) -> None:
    small = networks.build("deeplab_small", classes=19)
    for positional in (False, True):
        with pytest.raises(UsageError) as caught:
            load_start(small, caffe_file, positional=positional)
        assert_refused(caffe_file, caught.value, 2, "a Caffe VGG-16 file; expected DeepLabSmall with 19 classes")


# heads, attention, shapes


def test_a_head_of_other_classes_is_refused_or_left_fresh(network: DeepLabVGG16, tmp_path: Path) -> None:
    path = tmp_path / "sean_16.pth"
    torch.save(hollow("sean", classes=16), path)
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    assert_refused(path, caught.value, 2, "its head has 16 classes, the network's 19", "fresh_head: true")
    ours = copy.deepcopy(network)
    report = load_start(ours, path, fresh_head=True)
    assert report.fresh == tuple(f"classifier.convs.{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias"))
    loaded, before = ours.state_dict(), network.state_dict()
    assert all(torch.equal(loaded[name], before[name]) for name in report.fresh)
    assert not loaded["features.31.weight"].any()


def test_attention_on_one_side_only_is_refused_or_left_alone(network: DeepLabVGG16, tmp_path: Path) -> None:
    path = tmp_path / "vgg_base.pth"
    torch.save(hollow("vgg_base"), path)
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    assert_refused(path, caught.value, 2, "it has no attention, but the network does")
    report = load_start(copy.deepcopy(network), path, fresh_head=True)
    assert report.fresh == ("attention.conv.weight",)

    path = tmp_path / "sean.pth"
    torch.save(hollow("sean"), path)
    plain = DeepLabVGG16(classes=19)
    with pytest.raises(UsageError) as caught:
        load_start(plain, path)
    assert_refused(path, caught.value, 2, "it has attention, but the network does not")
    report = load_start(plain, path, fresh_head=True)
    assert not report.fresh and report.skipped == ("attention.conv.weight",)


DAMAGE: dict[str, tuple[Callable[[State], object], str]] = {
    "shape": (
        lambda state: state.update({"features.10.weight": torch.zeros(256, 64, 3, 3)}),
        "its 'features.10.weight' is 256×64×3×3, expected 256×128×3×3",
    ),
    "no dimension": (lambda state: state.update({"features.31.bias": torch.zeros(())}), "is one number, expected 1024"),
    "missing": (
        lambda state: state.pop("features.29.bias"),
        "DeepLab VGG-16 with 19 classes and attention has 'features.29.bias', which it does not have",
    ),
    "unknown": (lambda state: state.update({"features.33.bias": torch.zeros(1)}), "it has 'features.33.bias'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_name_and_shape_is_checked_before_anything_is_loaded(
    damage: str, network: DeepLabVGG16, tmp_path: Path
) -> None:
    change, words = DAMAGE[damage]
    state, path = hollow("sean"), tmp_path / "changed.pth"
    change(state)
    torch.save(state, path)
    ours = copy.deepcopy(network)
    with pytest.raises(UsageError) as caught:
        load_start(ours, path, fresh_head=True)
    assert_refused(path, caught.value, 2, words)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), network.parameters(), strict=True))


def test_every_name_of_a_vgg16_file_is_checked(network: DeepLabVGG16, tmp_path: Path) -> None:
    path = tmp_path / "changed.pth"
    for file, missing in ((vgg16_caffe(), "conv4_2.bias"), (hub_vgg16(), "features.24.weight")):
        torch.save({name: tensor for name, tensor in file.items() if name != missing}, path)
        with pytest.raises(UsageError) as caught:
            load_start(network, path)
        assert_refused(path, caught.value, 2, f"it lacks '{missing}'")
    torch.save({**vgg16_caffe(), "conv6_1.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    assert_refused(path, caught.value, 2, "it has 'conv6_1.weight', which such a file does not have")


# files of our own


def test_own_networks_start_from_training_checkpoints_and_state_dicts(tmp_path: Path) -> None:
    trained, fresh = (networks.build("deeplab_small", classes=5, attention=True) for _ in range(2))
    trained.pixels = CAFFE
    modules = {"student": fresh.state_dict(), "teacher": trained.state_dict()}
    torch.save(
        {"format": 1, "step": 7, "modules": modules, "optimizers": {}, "about": {"pixels": "caffe"}},
        tmp_path / "step_00000007.pt",
    )
    torch.save(trained.state_dict(), tmp_path / "plain.pt")
    report = load_start(fresh, tmp_path / "step_00000007.pt")
    assert str(report.origin) == "a segadapt training checkpoint of step 7" and not report.fresh
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))
    assert fresh.pixels is CAFFE

    other = networks.build("deeplab_small", classes=4, attention=True)
    with pytest.raises(UsageError, match="its head has 5 classes, the network's 4"):
        load_start(other, tmp_path / "plain.pt")
    report = load_start(other, tmp_path / "plain.pt", fresh_head=True)
    assert report.fresh and all(name.startswith("head.") for name in report.fresh)

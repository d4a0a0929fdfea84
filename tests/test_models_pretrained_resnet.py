"""Initial weights of DeepLab ResNet-101: each origin by name and shape, the stride that it wants, both directions."""

import copy
import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from torch import Tensor

from recorded import deeplab_multi_start, forward, forward_input, hollow, parameters
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.models.deeplab_v2 import Bottleneck, DeepLabResNet101
from segadapt.models.heads import DeepLabOptions
from segadapt.models.segmenter import CAFFE, IMAGENET
from segadapt.weights import starts
from segadapt.weights.initial import StartReport, identify, load_start
from segadapt.weights.key_map import own_name
from segadapt.weights.published import export_published, published_state
from segadapt.weights.resnet101 import PUBLISHED_RESNET101
from segadapt.weights.saved import ModelHeader, load_any, load_model, save_model

State = dict[str, Tensor]
BODY = [name for name in parameters("deeplab_multi") if not name.startswith(("layer5.", "layer6."))]
HEADS = {f"layer{head}.convs.{i}" for head in (5, 6) for i in range(4)}


def numbered(names: list[str], prefix: str = "") -> State:
    """A file of ResNet-101: each tensor one number of its own, so that it is small on disk."""
    shapes = parameters("deeplab_multi")
    return {
        prefix + name: torch.tensor(i).expand(()) if shapes[name] == () else torch.tensor(0.5 + i).expand(shapes[name])
        for i, name in enumerate(names)
    }


def imagenet_file(path: Path) -> Path:
    """ResNet-101 in the layout of torchvision and timm."""
    torch.save(numbered(BODY) | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    return path


def start_file(path: Path) -> Path:
    """The layout of the published start: `Scale.`, one head of 21 classes, no counters (it is older than they are)."""
    body = numbered([name for name in BODY if not name.endswith("num_batches_tracked")], "Scale.")
    head = {f"Scale.layer5.conv2d_list.{i}.weight": torch.zeros(()).expand(21, 2048, 3, 3) for i in range(4)}
    torch.save(body | head | {f"Scale.layer5.conv2d_list.{i}.bias": torch.zeros(21) for i in range(4)}, path)
    return path


@pytest.fixture(scope="module")
def fresh() -> DeepLabResNet101:
    return DeepLabResNet101(19, options=DeepLabOptions(aspp="published"))


@pytest.fixture
def network(fresh: DeepLabResNet101) -> DeepLabResNet101:
    return copy.deepcopy(fresh)


def assert_body_loaded(network: DeepLabResNet101, file: State) -> None:
    state = network.state_dict()
    for name, tensor in file.items():
        assert torch.equal(state[name], tensor), name


def assert_refused(path: Path | str, error: SegadaptError, exit_code: int, *words: str) -> None:
    """One line that begins with the path, says these words and ends with a remedy."""
    text = str(error)
    assert error.exit_code == exit_code
    assert text.startswith(f"{path}: ") and "\n" not in text and error.remedy and text.endswith(error.remedy)
    for word in words:
        assert word in text


def fresh_modules(report: StartReport) -> set[str]:
    return {name.rpartition(".")[0] for name in report.fresh}


def stride_of(network: DeepLabResNet101) -> tuple[tuple[int, ...], tuple[int, ...]]:
    block = network.layer2[0]
    assert isinstance(block, Bottleneck)
    return block.conv1.stride, block.conv2.stride


def test_imagenet_weights_bring_their_stride_and_their_pixels(network: DeepLabResNet101, tmp_path: Path) -> None:
    report = load_start(network, imagenet_file(tmp_path / "resnet101.pth"))
    assert_body_loaded(network, numbered(BODY))
    assert fresh_modules(report) == HEADS and report.skipped == ("fc.weight", "fc.bias")
    assert network.pixels is IMAGENET and network.stride_in_3x3
    assert stride_of(network) == ((1, 1), (2, 2))
    assert all(not p.requires_grad for n, p in network.named_parameters() if ".bn" in n)
    with pytest.raises(
        UsageError,
        match="need pixels: imagenet, stride_in_3x3: true, but the published",
    ):
        export_published(network, tmp_path / "out.pth")


def test_the_published_start_file_leaves_both_heads_fresh(network: DeepLabResNet101, tmp_path: Path) -> None:
    network.place_stride(True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_start(network, start_file(tmp_path / "start.pth"))
    assert str(report.origin) == "a published DeepLab ResNet-101 start file with 21 classes"
    assert_body_loaded(network, numbered([name for name in BODY if not name.endswith("num_batches_tracked")]))
    assert fresh_modules(report) == HEADS and len(report.skipped) == 8
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in report.fresh)
    assert network.pixels is CAFFE and stride_of(network) == ((2, 2), (1, 1))


def test_a_second_head_in_a_start_file_is_loaded_as_the_published_program_does(
    network: DeepLabResNet101, tmp_path: Path
) -> None:
    path = tmp_path / "start.pth"
    torch.save(numbered(list(parameters("deeplab_multi")), "Scale."), path)
    report = load_start(network, path)
    assert fresh_modules(report) == {name for name in HEADS if name.startswith("layer5.")}
    torch.save(hollow("deeplab_multi", 21, "Scale."), path)
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    assert_refused(path, caught.value, 2, "its head has 21 classes, the network's 19", "fresh_head: true")


def test_starts_by_name(network: DeepLabResNet101, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGADAPT_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        load_start(network, "resnet101_caffe")
    path = tmp_path / "resnet101_caffe.pth"
    assert_refused(path, caught.value, 2, "the published start weights of DeepLab ResNet-101 were not found")
    start_file(path)
    assert load_start(network, "resnet101_caffe").path == path

    asked = []

    def download(repository: str, name: str, revision: str | None) -> str:
        asked.append((repository, name))
        return str(imagenet_file(tmp_path / "downloaded"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    report = load_start(network, "resnet101_hub")
    assert asked == [("timm/resnet101.tv_in1k", "model.safetensors")]
    assert report.origin.kind == "resnet101"
    assert "recorded at first use" in report.note and report.sha256 in report.note
    assert starts.find_start("resnet101_hub").note == "SHA-256 as at first use"

    (tmp_path / "sha256.json").write_text(json.dumps({"resnet101_hub": 64 * "0"}))
    with pytest.raises(SegadaptError, match="is not the known 'resnet101_hub'"):
        load_start(network, "resnet101_hub")
    (tmp_path / "sha256.json").write_text("[" * 5000)
    with pytest.raises(SegadaptError, match="hashes are then recorded anew"):
        load_start(network, "resnet101_hub")


def test_the_hub_without_a_connection(
    network: DeepLabResNet101, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SegadaptError) as caught:
        load_start(network, "resnet101_hub")
    expected = "https://huggingface.co/timm/resnet101.tv_in1k (no connection, and not in the hub's cache)"
    assert_refused("resnet101_hub", caught.value, 1, expected)


@torch.no_grad()
def test_a_published_checkpoint_goes_in_runs_and_comes_out_unchanged(tmp_path: Path) -> None:
    expected = deeplab_multi_start()
    torch.save(expected, tmp_path / "published.pth")
    model = load_any(tmp_path / "published.pth")
    assert isinstance(model.network, DeepLabResNet101)
    recorded = torch.from_numpy(forward()["deeplab_multi.main"])
    assert (model.network.segment(forward_input()).logits - recorded).abs().max() <= 1e-4 * recorded.std()
    assert model.network.align_corners and model.header.align_corners and model.header.options == {"aspp": "published"}
    assert model.header.size == (1024, 512) and model.header.space == load_label_space("cityscapes19")

    model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    export_published(model.network, tmp_path / "out.pth")
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(exported) == list(expected)
    for name, tensor in expected.items():
        assert exported[name].numpy().tobytes() == tensor.numpy().tobytes() and exported[name].is_contiguous()


def test_published_checkpoints_of_16_classes(network: DeepLabResNet101, tmp_path: Path) -> None:
    path, state = tmp_path / "synthia.pth", hollow("deeplab_multi", classes=16)
    torch.save({name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}, path)  # old PyTorch
    assert load_any(path).header.space == load_label_space("cityscapes16")
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    words = "a DeepLab ResNet-101 checkpoint with 16 classes: its head has 16 classes, the network's 19"
    assert_refused(path, caught.value, 2, words, "fresh_head: true")
    assert fresh_modules(load_start(network, path, fresh_head=True)) == HEADS


def test_own_models_keep_stride_pixels_and_corner_rule(network: DeepLabResNet101, tmp_path: Path) -> None:
    load_start(network, imagenet_file(tmp_path / "resnet101.pth"))
    network.align_corners = False
    header = ModelHeader(
        network="deeplab_resnet101",
        attention=False,
        pixels="imagenet",
        label_space=load_label_space("cityscapes19").as_dict(),
        size=(64, 32),
    )
    path = tmp_path / "model.safetensors"
    save_model(path, network, header)
    model = load_model(path)
    assert isinstance(model.network, DeepLabResNet101)
    assert stride_of(model.network) == ((1, 1), (2, 2)) and not model.network.align_corners
    assert model.network.pixels is IMAGENET and all(
        torch.equal(a, b)
        for a, b in zip(model.network.state_dict().values(), network.state_dict().values(), strict=True)
    )
    network.place_stride(False)
    assert not load_start(network, path).fresh
    assert network.stride_in_3x3 and not network.align_corners  # the rule is the recipe's, not the start's


def test_own_training_checkpoints_and_state_dicts(network: DeepLabResNet101, tmp_path: Path) -> None:
    modules = {str(own_name(name, PUBLISHED_RESNET101)): tensor for name, tensor in hollow("deeplab_multi").items()}
    about = {"pixels": "imagenet", "stride_in_3x3": True}
    torch.save({"step": 3, "modules": {"student": {}, "teacher": modules}, "about": about}, tmp_path / "step.pt")
    assert not load_start(network, tmp_path / "step.pt").fresh and network.stride_in_3x3
    assert not network.conv1.weight.any() and network.pixels is IMAGENET
    torch.save(modules, tmp_path / "plain.pt")
    assert str(identify(tmp_path / "plain.pt")) == "a state dict of segadapt's DeepLab ResNet-101 with 19 classes"
    assert not load_start(network, tmp_path / "plain.pt").fresh and not network.stride_in_3x3


WRONG: dict[str, tuple[State, tuple[str, ...]]] = {
    "one head": (
        {name: t for name, t in hollow("deeplab_multi").items() if not name.startswith("layer6.")},
        ("a single-head DeepLab ResNet-101 checkpoint with 19 classes; expected two-head DeepLab ResNet-101",),
    ),
    "another network": (hollow("vgg_base"), ("DeepLab VGG-16 checkpoint with 19 classes; expected two-head DeepLab",)),
    "a discriminator": (hollow("discriminator"), ("a published discriminator; expected two-head",)),
    "another ResNet": (
        {**numbered(BODY), "layer1.0.conv2.weight": torch.zeros(128, 4, 3, 3)},
        ("its 'layer1.0.conv2.weight' is 128×4×3×3, expected 64×64×3×3",),
    ),
    "a part": (
        {name: t for name, t in numbered(BODY).items() if name != "layer2.0.downsample.1.running_var"},
        ("it lacks 'layer2.0.downsample.1.running_var'",),
    ),
    "more": (
        {**numbered(BODY), "layer7.weight": torch.zeros(1)},
        ("it has 'layer7.weight', which such a file does not have",),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_are_refused(wrong: str, network: DeepLabResNet101, tmp_path: Path) -> None:
    state, words = WRONG[wrong]
    path = tmp_path / "wrong.pth"
    torch.save(state, path)
    before = network.conv1.weight.clone()
    with pytest.raises(UsageError) as caught:
        load_start(network, path)
    assert_refused(path, caught.value, 2, *words)
    assert torch.equal(network.conv1.weight, before)


def test_attention_is_no_part_of_the_published_network(tmp_path: Path) -> None:
    with_attention = DeepLabResNet101(19, attention=True, options=DeepLabOptions(aspp="published"))
    with pytest.raises(UsageError, match="and attention is not a network of the published programs"):
        published_state(with_attention)
    path = tmp_path / "published.pth"
    torch.save(hollow("deeplab_multi"), path)
    with pytest.raises(UsageError, match="it has no attention, but the network does"):
        load_start(with_attention, path)
    assert load_start(with_attention, path, fresh_head=True).fresh == ("attention.conv.weight",)

"""EfficientNet-Lite0: its encoder against one written from the published names, and what a segmenter must do."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.errors import SegadaptError, UsageError
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.models.efficientnet_lite import SHALLOW, EfficientNetLite0, SameConv2d
from segadapt.models.networks import build
from segadapt.weights.efficientnet_lite0 import EFFICIENTNET_LITE0
from segadapt.weights.initial import load_start
from segadapt.weights.key_map import published_name
from segadapt.weights.starts import LITE_FILE, LITE_PACKAGE, find_start

BLOCKS = [  # (kernel, stride, dilation) of the sixteen, from the table of EfficientNet-B0
    *[(3, 1, 1)],
    *[(3, 2, 1), (3, 1, 1)],
    *[(5, 2, 1), (5, 1, 1)],
    *[(3, 2, 1), (3, 1, 1), (3, 1, 1)],
    *[(5, 1, 1)] * 3,
    *[(5, 1, 2)] * 4,
    *[(3, 1, 2)],
]
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    torch.manual_seed(0)
    made = EfficientNetLite0(5, attention=True)
    for name, values in made.named_buffers():  # else every norm would be the identity
        if name.endswith("running_mean"):
            values.normal_(std=0.1)
        if name.endswith("running_var"):
            values.uniform_(0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def published(network: EfficientNetLite0) -> Tensors:
    """The encoder's weights as the package's file names them, with a classifier."""
    modules = set(EFFICIENTNET_LITE0.values())
    own = {name: values for name, values in network.state_dict().items() if name.rpartition(".")[0] in modules}
    classifier = {
        "_conv_head.weight": torch.ones(4, 320, 1, 1),
        "_bn1.weight": torch.ones(4),
        "_fc.bias": torch.ones(3),
    }
    return {published_name(name, EFFICIENTNET_LITE0): values.clone() for name, values in own.items()} | classifier


def padded(features: Tensor, kernel: int, stride: int, dilation: int) -> Tensor:
    """TensorFlow's "same": the odd pixel at the right and at the bottom."""
    sides: list[int] = []
    for size in (features.shape[-1], features.shape[-2]):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        sides += [total // 2, total - total // 2]
    return F.pad(features, sides)


def normed(features: Tensor, weights: Tensors, name: str) -> Tensor:
    mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return F.batch_norm(features, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3)


def encoded(images: Tensor, weights: Tensors) -> list[Tensor]:
    """The features after each block, by the published names alone."""
    x = (images - 127) / 128
    x = F.relu6(normed(F.conv2d(padded(x, 3, 2, 1), weights["_conv_stem.weight"], stride=2), weights, "_bn0"))
    found = []
    for i, (kernel, stride, dilation) in enumerate(BLOCKS):
        at, before = f"_blocks.{i}.", x
        if f"{at}_expand_conv.weight" in weights:
            x = F.relu6(normed(F.conv2d(x, weights[f"{at}_expand_conv.weight"]), weights, f"{at}_bn0"))
        depthwise = weights[f"{at}_depthwise_conv.weight"]
        x = F.conv2d(padded(x, kernel, stride, dilation), depthwise, None, stride, 0, dilation, len(depthwise))
        x = F.relu6(normed(x, weights, f"{at}_bn1"))
        x = normed(F.conv2d(x, weights[f"{at}_project_conv.weight"]), weights, f"{at}_bn2")
        x = x + before if x.shape == before.shape else x
        found.append(x)
    return found


@pytest.mark.parametrize("size", [(64, 96), (57, 83)])
def test_the_encoder_is_the_published_one(
    network: EfficientNetLite0, published: Tensors, size: tuple[int, int]
) -> None:
    images = (torch.rand(2, 3, *size) * 255).double()
    expected = encoded(images, {name: values.double() for name, values in published.items()})
    twin = EfficientNetLite0(5, attention=True).double().eval()
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        x = F.relu6(twin.stem["norm"](twin.stem["conv"](twin.pixels(images).double())))
        for block, wanted in zip(twin.blocks, expected, strict=True):
            x = block(x)
            torch.testing.assert_close(x, wanted, rtol=1e-6, atol=1e-5)  # the pixels are float32
    assert expected[SHALLOW - 1].shape[1:] == (40, -(-size[0] // 8), -(-size[1] // 8))


def test_a_file_of_the_package_goes_in(published: Tensors, tmp_path: Path) -> None:
    torch.save(published, tmp_path / "lite.pth")
    fresh = build("efficientnet_lite0", classes=7)
    report = load_start(fresh, tmp_path / "lite.pth")
    assert report.skipped == ("_conv_head.weight", "_bn1.weight", "_fc.bias")
    assert all(name.startswith(("decoder.", "head.")) for name in report.fresh)
    own = fresh.state_dict()
    assert torch.equal(own["blocks.15.project.0.weight"], published["_blocks.15._project_conv.weight"])
    assert torch.equal(own["stem.norm.running_var"], published["_bn0.running_var"])
    del published["_blocks.3._bn2.bias"]
    torch.save(published, tmp_path / "lacks.pth")
    with pytest.raises(UsageError, match=r"lacks '_blocks\.3\._bn2\.bias'"):
        load_start(fresh, tmp_path / "lacks.pth")


def test_shapes_attention_and_any_size(network: EfficientNetLite0) -> None:
    with torch.no_grad():
        output = network(torch.randint(0, 256, (2, 3, 57, 83), dtype=torch.uint8))
    assert output.logits.shape == (2, 5, 8, 11) and output.features.shape == (2, 128, 8, 11)
    assert output.attention is not None and output.attention.shape == (2, 1, 8, 11)
    assert 3.0e6 < sum(parameter.numel() for parameter in network.parameters()) < 4.0e6


def test_the_folded_copy_says_the_same(network: EfficientNetLite0) -> None:
    images = torch.rand(1, 3, 48, 64) * 255
    folded = network.for_inference()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, found = network(images).logits, folded(images).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.std()) + 1e-6)


@pytest.mark.parametrize(("size", "stride", "given"), [(8, 2, 4), (9, 2, 5), (8, 1, 8)])
def test_same_padding(size: int, stride: int, given: int) -> None:
    conv = SameConv2d(1, 1, 3, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, size, size)).detach()
    assert out.shape[-2:] == (given, given)
    # An even side of stride 2 lacks one pixel, at its end alone; others lack one on both sides.
    corners = (4.0, 4.0) if (size, stride) != (8, 2) else (9.0, 4.0)
    assert (float(out[0, 0, 0, 0]), float(out[0, 0, -1, -1])) == corners


def test_the_quirk_of_another_head_is_refused() -> None:
    given = {"network": "efficientnet_lite0", "steps": 3, "quirks": {"aspp": True}}
    with pytest.raises(ValueError, match="quirk aspp is of DeepLab's head, which efficientnet_lite0 lacks"):
        SourceOnlySettings.model_validate(given)
    with pytest.raises(UsageError, match="efficientnet_lite0 has no option `aspp`"):
        build({"name": "efficientnet_lite0", "aspp": "published"}, classes=5)


def test_without_the_package_and_with_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'segadapt\[lite\]'"):
        find_start("efficientnet_lite0")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / LITE_FILE).write_bytes(b"another")
    spec = ModuleSpec(LITE_PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(SegadaptError, match="is not the published file"):
        find_start("efficientnet_lite0")

"""DeepLab ResNet-101: the published network's numbers and names, batch norm, its stride, and gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recorded import deeplab_multi_start, forward, forward_input, parameters
from segadapt.models import networks
from segadapt.models.deeplab_v2 import Bottleneck, DeepLabResNet101
from segadapt.models.heads import DeepLabOptions
from segadapt.models.segmenter import CAFFE
from segadapt.weights.key_map import own_name
from segadapt.weights.resnet101 import PUBLISHED_RESNET101

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def published() -> DeepLabResNet101:
    """Our network with the weights that the numbers were recorded with; tests that change it take a copy."""
    network = DeepLabResNet101(19, options=DeepLabOptions(aspp="published"))
    network.load_state_dict(
        {str(own_name(name, PUBLISHED_RESNET101)): values for name, values in deeplab_multi_start().items()}
    )
    return network.eval()


def assert_as_recorded(output: Tensor, name: str) -> None:
    recorded = torch.from_numpy(forward()[name])
    assert output.shape == recorded.shape
    assert (output - recorded).abs().max() <= 1e-4 * recorded.std()


@torch.no_grad()
def test_it_computes_what_the_published_network_does(published: DeepLabResNet101) -> None:
    output = published.segment(forward_input())
    assert len(output.heads) == published.number_of_heads == 2 and output.attention is None
    assert_as_recorded(output.heads[0], "deeplab_multi.auxiliary")
    assert_as_recorded(output.heads[1], "deeplab_multi.main")
    assert output.logits is output.heads[1] and output.features.shape == (2, 2048, 9, 17)
    assert torch.equal(published.heads(published.encode_scales(forward_input())[-1])[0], output.logits)


@torch.no_grad()
def test_channels_last_gives_the_same_numbers(published: DeepLabResNet101) -> None:
    network = copy.deepcopy(published).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_as_recorded(network.segment(forward_input()).logits, "deeplab_multi.main")


def test_names_shapes_and_order_are_the_published_ones(published: DeepLabResNet101) -> None:
    ours = [(name, tuple(values.shape)) for name, values in published.state_dict().items()]
    expected = parameters("deeplab_multi").items()
    assert ours == [(own_name(name, PUBLISHED_RESNET101), shape) for name, shape in expected]


@torch.no_grad()
def test_takes_rgb_of_any_size_and_aligns_corners(published: DeepLabResNet101) -> None:
    images = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    output = published(images)
    assert output.logits.shape == (1, 19, 7, 9)
    assert torch.equal(output.logits, published.segment(CAFFE(images)).logits)
    up = published.upsample(output.logits, (50, 70))
    assert torch.equal(up, F.interpolate(output.logits, size=(50, 70), mode="bilinear", align_corners=True))


def test_only_convolutions_are_trained_and_heads_are_told_apart(published: DeepLabResNet101) -> None:
    frozen = {name for name, parameter in published.named_parameters() if not parameter.requires_grad}
    norms = {name for name, module in published.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert len(norms) == 104 and frozen == {f"{norm}.{leaf}" for norm in norms for leaf in ("weight", "bias")}
    names = {id(parameter): name for name, parameter in published.named_parameters()}
    assert [names[id(parameter)] for parameter in published.head_parameters()] == [
        f"layer{head}.convs.{i}.{leaf}" for head in (5, 6) for i in range(4) for leaf in ("weight", "bias")
    ]


def test_batch_norm_has_a_mode_of_its_own() -> None:
    block = nn.Sequential(DeepLabResNet101(classes=2).layer1[0])
    network = networks.build("deeplab_small", classes=2)
    network.body = block
    for batch_norm in (True, False):
        network.set_mode(batch_norm)
        assert network.training and block[0].training
        before = {name: values.clone() for name, values in block.state_dict().items() if "running" in name}
        block(torch.randn(2, 64, 8, 8))
        moved = [not torch.equal(block.state_dict()[name], values) for name, values in before.items()]
        assert moved and all(moved) == any(moved) == batch_norm


def test_the_stride_sits_in_the_first_1x1_or_in_the_3x3(published: DeepLabResNet101) -> None:
    network = DeepLabResNet101(classes=2).eval()
    block = network.layer2[0]
    assert isinstance(block, Bottleneck)
    maps = torch.randn(1, 256, 9, 11)
    for in_3x3 in (True, False):
        network.place_stride(in_3x3)
        assert (block.conv1.stride, block.conv2.stride) == (((1, 1), (2, 2)) if in_3x3 else ((2, 2), (1, 1)))
        first, second = (1, 2) if in_3x3 else (2, 1)
        inner = F.relu(block.bn1(F.conv2d(maps, block.conv1.weight, stride=first)))
        inner = F.relu(block.bn2(F.conv2d(inner, block.conv2.weight, stride=second, padding=1)))
        assert block.downsample is not None
        expected = F.relu(block.bn3(block.conv3(inner)) + block.downsample(maps))
        torch.testing.assert_close(block(maps), expected)
    assert {tuple(m.stride) for m in network.layer3.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_attention_is_for_the_main_head() -> None:
    torch.manual_seed(0)
    network = DeepLabResNet101(classes=3, attention=True).eval()
    output = network(torch.rand(1, 3, 32, 32) * 255)
    assert output.attention is not None and output.attention.shape == (1, 1, 5, 5)
    torch.testing.assert_close(output.logits, network.layer6((1 + output.attention) * output.features))


def test_gradients_are_those_of_operations_that_are_not_in_place(published: DeepLabResNet101) -> None:
    """One block against the same arithmetic out of place, with batch norm in either mode."""
    for batch_norm in (False, True):
        block = copy.deepcopy(published.layer1[1]).train(batch_norm)
        assert isinstance(block, Bottleneck)
        gradients = []
        for careful in (False, True):
            maps = torch.randn(2, 256, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
            if careful:
                inner = torch.relu(block.bn1(block.conv1(maps)))
                inner = torch.relu(block.bn2(block.conv2(inner)))
                output = torch.relu(block.bn3(block.conv3(inner)) + maps)
            else:
                output = block(maps)
            inputs = [maps, block.conv1.weight, block.conv2.weight, block.conv3.weight]
            gradients.append(torch.autograd.grad(output.square().mean(), inputs))
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_fresh_weights_give_finite_logits() -> None:
    torch.manual_seed(0)
    logits = DeepLabResNet101(classes=4).eval()(torch.rand(1, 3, 32, 32) * 255).logits
    assert logits.isfinite().all() and logits.abs().max() < 10

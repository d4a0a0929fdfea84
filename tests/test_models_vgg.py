"""DeepLab VGG-16: the published network's numbers, names and shapes, and what our own code path must not change."""

import copy

import pytest
import torch
from torch import Tensor, nn

from recorded import forward, forward_input, parameters, state
from segadapt.models.heads import DILATIONS, Aspp, AtrousHead, DeepLabOptions
from segadapt.models.segmenter import CAFFE
from segadapt.models.vgg import DeepLabVGG16
from segadapt.weights.key_map import own_name
from segadapt.weights.published import published_state
from segadapt.weights.vgg16 import PUBLISHED_VGG

pytestmark = pytest.mark.numeric


def published_network(name: str, prefix: str = "") -> DeepLabVGG16:
    """Our network with the weights that the numbers were recorded with."""
    network = DeepLabVGG16(19, name == "sean", DeepLabOptions(aspp="published"))
    network.load_state_dict({str(own_name(key, PUBLISHED_VGG)): value for key, value in state(name, prefix).items()})
    return network.eval()


@pytest.fixture(scope="module")
def sean() -> DeepLabVGG16:
    return published_network("sean", "S.1.")


def assert_as_recorded(output: Tensor, name: str) -> None:
    recorded = torch.from_numpy(forward()[name])
    assert output.shape == recorded.shape
    assert (output - recorded).abs().max() <= 1e-4 * recorded.std()


@torch.no_grad()
def test_sean_computes_what_the_published_network_does(sean: DeepLabVGG16) -> None:
    output = sean.segment(forward_input())
    assert output.attention is not None
    assert_as_recorded(output.attention, "sean.attention")
    assert_as_recorded(output.logits, "sean.logits")


@torch.no_grad()
def test_vgg_base_computes_what_the_published_network_does() -> None:
    output = published_network("vgg_base").segment(forward_input())
    assert output.attention is None
    assert_as_recorded(output.logits, "vgg_base.logits")


@torch.no_grad()
def test_channels_last_gives_the_same_numbers(sean: DeepLabVGG16) -> None:
    network = copy.deepcopy(sean).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_as_recorded(network.segment(forward_input()).logits, "sean.logits")


@pytest.mark.parametrize("name", ["sean", "vgg_base"])
def test_names_shapes_and_order_are_the_published_ones(name: str) -> None:
    network = DeepLabVGG16(classes=19, attention=name == "sean")
    ours = {key: tuple(tensor.shape) for key, tensor in published_state(network).items()}
    assert list(ours.items()) == list(parameters(name).items())


@torch.no_grad()
def test_takes_rgb_of_any_size_and_has_stride_8(sean: DeepLabVGG16) -> None:
    images = torch.randint(0, 256, (1, 3, 67, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    output = sean(images)
    assert output.logits.shape == (1, 19, 67 // 8, 90 // 8)
    assert output.features.shape == (1, 1024, 67 // 8, 90 // 8)
    assert torch.equal(output.logits, sean.segment(CAFFE(images)).logits)
    assert sean.upsample(output.logits, (67, 90)).shape == (1, 19, 67, 90)


def test_gradients_are_those_of_a_network_without_in_place_operations(sean: DeepLabVGG16) -> None:
    careful = copy.deepcopy(sean)
    for module in careful.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    gradients = []
    for network in (sean, careful):
        loss = network.segment(forward_input()[:1]).logits.square().mean()
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        gradients.append([gradient for gradient in found if gradient is not None])
    assert len(gradients[0]) == len(gradients[1]) == 39 - 4  # none for the two dilations that quirk aspp leaves out
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("aspp", "used"), [("published", 2), ("full", 4)])
def test_head_sums_its_dilations(aspp: Aspp, used: int) -> None:
    torch.manual_seed(0)
    head = AtrousHead(8, 5, aspp)
    features = torch.randn(2, 8, 30, 40)
    expected = torch.zeros(2, 5, 30, 40)
    for conv, dilation in list(zip(head.convs, DILATIONS, strict=True))[:used]:
        assert isinstance(conv, nn.Conv2d) and conv.dilation == (dilation, dilation)
        expected += conv(features)
    assert torch.allclose(head(features), expected, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [(30, 40), (5, 60), (3, 2)])  # from wider than the widest dilation to smaller than all
def test_one_product_gives_the_convolutions_their_sums_and_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = AtrousHead(8, 5)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        features = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
        features.requires_grad_()
        plain = torch.stack([conv(features) for conv in head.convs]).sum(0)
        for logits in (head(features), plain):
            gradients = torch.autograd.grad(logits.square().sum(), [features, *head.parameters()])
            found.append([logits.detach(), *gradients])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_under_autocast_the_head_is_as_near_as_convolutions_are() -> None:
    torch.manual_seed(0)
    head, features = AtrousHead(256, 19), torch.randn(1, 256, 20, 30).relu()
    with torch.no_grad():
        exact = head(features)
        with torch.autocast("cpu", torch.bfloat16):
            quick, plain = head(features), torch.stack([conv(features) for conv in head.convs]).sum(0)
    assert quick.dtype == torch.float32
    assert float((quick - exact).norm()) < 1.1 * float((plain - exact).norm()) < 0.01 * float(exact.norm())


def test_fresh_head_is_small_and_unbiased() -> None:
    torch.manual_seed(0)
    for conv in AtrousHead(512, 19).convs:
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert not conv.bias.any()


def test_the_head_is_what_may_learn_at_another_rate(sean: DeepLabVGG16) -> None:
    names = {id(parameter): name for name, parameter in sean.named_parameters()}
    assert [names[id(parameter)] for parameter in sean.head_parameters()] == [
        f"classifier.convs.{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias")
    ]

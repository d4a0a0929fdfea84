"""The small DeepLab: shapes, attention, the head's dilations, and that it can learn."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segadapt.models.networks import build
from segadapt.models.small import HEAD_DILATIONS, DeepLabSmall, SmallOptions

pytestmark = pytest.mark.numeric


def test_logits_are_at_an_eighth_of_the_size() -> None:
    network = DeepLabSmall(19)
    output = network(torch.randint(0, 256, (2, 3, 120, 240), dtype=torch.uint8))
    assert output.logits.shape == (2, 19, 15, 30) and len(output.heads) == 1
    assert output.features.shape == (2, 96, 15, 30) and output.attention is None
    assert network.upsample(output.logits, (120, 240)).shape == (2, 19, 120, 240)
    assert network(torch.zeros(1, 3, 81, 100)).logits.shape == (1, 19, 11, 13)  # any size, rounded up


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(120, 240), (240, 480), (77, 31)])
def test_upsampling_is_bilinear(size: tuple[int, int], align_corners: bool) -> None:
    network, maps = DeepLabSmall(5), torch.randn(2, 5, 15, 30)
    network.align_corners = align_corners
    expected = F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(network.upsample(maps, size), expected, rtol=1e-5, atol=1e-5)


def test_the_head_is_what_may_learn_at_another_rate() -> None:
    network = DeepLabSmall(5, attention=True)
    head = {name for name, parameter in network.named_parameters() if name.startswith("head.")}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in network.head_parameters()} == head and head


def test_it_is_small() -> None:
    assert 0.5e6 < sum(parameter.numel() for parameter in DeepLabSmall(19).parameters()) < 1.5e6


def test_attention_multiplies_the_features_before_the_head() -> None:
    torch.manual_seed(0)
    network = build("deeplab_small", classes=5, attention=True)
    output = network(torch.rand(1, 3, 64, 64) * 255)
    assert output.attention is not None and output.attention.shape == (1, 1, 8, 8)
    assert output.attention.min() > 0 and output.attention.max() < 1
    torch.testing.assert_close(output.logits, network.heads((1 + output.attention) * output.features)[0])


def test_published_aspp_has_the_first_two_dilations_only() -> None:
    def dilations(network: nn.Module) -> list[int]:
        return [m.dilation[0] for n, m in network.named_modules() if n.startswith("head.") and isinstance(m, nn.Conv2d)]

    assert dilations(DeepLabSmall(5)) == list(HEAD_DILATIONS)
    assert dilations(DeepLabSmall(5, options=SmallOptions(aspp="published"))) == list(HEAD_DILATIONS[:2])


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    network, images = DeepLabSmall(4).train(), torch.rand(2, 3, 48, 64) * 255
    together = network(images).logits[0]
    torch.testing.assert_close(together, network(images[:1]).logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_it_learns_two_colours(attention: bool) -> None:
    torch.manual_seed(0)
    network = DeepLabSmall(2, attention=attention)
    labels = torch.zeros(1, 32, 64, dtype=torch.long)
    labels[..., 32:] = 1
    images = torch.where(labels[:, None] == 1, 200.0, 60.0).expand(1, 3, 32, 64)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(15):
        loss = F.cross_entropy(network.upsample(network(images).logits, (32, 64)), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    predicted = network.upsample(network(images).logits, (32, 64)).argmax(1)
    assert (predicted == labels).float().mean() > 0.9

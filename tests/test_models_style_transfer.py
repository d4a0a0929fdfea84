"""The style transfer network and the discriminators: the published networks' numbers, names and shapes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from recorded import forward, forward_input, parameters, state, tensor
from segadapt.errors import UsageError
from segadapt.models.discriminators import Discriminator
from segadapt.models.style_transfer import InstanceNorm, StyleTransfer
from segadapt.weights.initial import load_module
from segadapt.weights.saved import GeneratorHeader, load_generator, save_generator

pytestmark = pytest.mark.numeric


def assert_as_recorded(output: Tensor, name: str) -> None:
    recorded = torch.from_numpy(forward()[name])
    assert output.shape == recorded.shape
    assert (output - recorded).abs().max() <= 1e-4 * recorded.std()


@torch.no_grad()
def test_the_style_transfer_network_computes_what_the_published_one_does() -> None:
    network = StyleTransfer()
    network.load_state_dict(state("transformer_net"))
    assert_as_recorded(network(forward_input()), "transformer_net.pixels")


@torch.no_grad()
def test_the_discriminator_computes_what_the_published_one_does() -> None:
    network = Discriminator(19)
    network.load_state_dict(state("discriminator", "D.1."))
    maps = tensor("input.logits", (2, 19, 64, 128)).softmax(1)
    assert_as_recorded(network(maps), "discriminator.map")


def test_names_shapes_and_order_are_the_published_ones() -> None:
    ours = {"transformer_net": StyleTransfer(), "discriminator": Discriminator(19), "discriminator3": Discriminator(3)}
    for name, network in ours.items():
        shapes = [(key, tuple(values.shape)) for key, values in network.state_dict().items()]
        assert shapes == list(parameters(name).items())


@torch.no_grad()
def test_instance_norm_has_a_biased_variance_and_hardly_any_epsilon() -> None:
    maps = 1e-3 * torch.randn(2, 3, 5, 4, dtype=torch.float64)
    norm = InstanceNorm(3).double()
    variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
    expected = (maps - mean) / (variance + 1e-9).sqrt() * norm.scale.view(1, 3, 1, 1)
    torch.testing.assert_close(norm(maps), expected)
    assert norm.scale.min() >= 0 and norm.scale.max() <= 1 and not norm.shift.any()


@torch.no_grad()
def test_pictures_keep_their_size_and_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    network = StyleTransfer()
    for height, width in ((8, 8), (17, 30), (64, 47)):
        assert network(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)
    pictures = 50 * torch.randn(2, 3, 20, 24)
    torch.testing.assert_close(network(pictures)[1:], network(pictures[1:]), rtol=1e-4, atol=1e-4)


def test_the_discriminators_widths_can_be_adaptsegnets() -> None:
    network = Discriminator(19, widths=(64, 128, 256, 512))
    assert [len(p) for n, p in network.named_parameters() if n.endswith("weight")] == [64, 128, 256, 512, 1]
    assert network(torch.zeros(1, 19, 32, 64)).shape == (1, 1, 1, 2)


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    generator, discriminator = StyleTransfer(), Discriminator(3)
    discriminator(generator(50 * torch.randn(1, 3, 32, 32))).mean().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_residual_network_begins_as_the_identity_and_learns() -> None:
    torch.manual_seed(0)
    network = StyleTransfer(residual=True)
    pixels = 100 * torch.randn(1, 3, 32, 48)
    assert torch.equal(network(pixels), pixels)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(3):
        adam.zero_grad()
        (network(pixels) - pixels - 20).square().mean().backward()
        adam.step()
    assert float((network(pixels) - pixels).mean().detach()) > 1


def test_a_file_says_whether_its_network_is_residual(tmp_path: Path) -> None:
    network = StyleTransfer(residual=True)
    path = tmp_path / "generator.safetensors"
    save_generator(path, network, GeneratorHeader(residual=True, size=(64, 32)))
    assert load_generator(path).network.residual
    with pytest.raises(UsageError, match="with the residual sum"):
        load_module(StyleTransfer(), path)

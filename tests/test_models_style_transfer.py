"""The style transfer network and the discriminators: the published networks' numbers, names and shapes."""

import torch
from torch import Tensor

from recorded import forward, forward_input, parameters, state, tensor
from segadapt.models.discriminators import Discriminator
from segadapt.models.style_transfer import InstanceNorm, StyleTransfer


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

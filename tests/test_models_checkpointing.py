"""Activation checkpointing: the same losses, gradients and batch statistics, in less memory."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segadapt.models import networks
from segadapt.models.segmenter import Segmenter, SegOutput

pytestmark = pytest.mark.numeric


def fresh(name: str, batch_norm: bool = False) -> Segmenter:
    torch.manual_seed(0)
    network = networks.build(name, classes=5, attention=True)
    network.set_mode(batch_norm=batch_norm)
    return network


def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def loss_of(output: SegOutput) -> Tensor:
    assert output.attention is not None
    return sum((head.square().mean() for head in output.heads), output.attention.mean())


def step(network: Segmenter) -> tuple[Tensor, dict[str, Tensor]]:
    """Two passes before one backward pass, as the methods have it: the loss, and all gradients."""
    loss = loss_of(network(images())) + loss_of(network(255 - images()))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "batch_norm", "bf16"),
    [
        ("deeplab_resnet101", False, False),
        ("deeplab_resnet101", True, False),
        ("deeplab_vgg16", False, False),
        ("deeplab_small", False, False),
        ("deeplab_small", False, True),
    ],
)
def test_nothing_changes(name: str, batch_norm: bool, bf16: bool) -> None:
    plain = fresh(name, batch_norm)
    saving = copy.deepcopy(plain)
    saving.checkpointing = True
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        (loss, gradients), (same_loss, same_gradients) = step(plain), step(saving)
    assert torch.equal(loss, same_loss) and list(gradients) == list(same_gradients) and len(gradients) > 10
    for key, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[key], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))
    for (key, values), same in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(values, same), key
    moved = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d) and m.num_batches_tracked == 2]
    assert len(moved) == (104 if batch_norm else 0)


# ResNet's frozen batch norms keep no activations anyhow, so that less is left to save.
@pytest.mark.parametrize(
    ("name", "share"), [("deeplab_resnet101", 0.75), ("deeplab_vgg16", 0.6), ("deeplab_small", 0.6)]
)
def test_less_is_kept_for_the_way_back(name: str, share: float) -> None:
    kept: list[int] = []
    for checkpointing in (False, True):
        network = fresh(name)
        network.checkpointing = checkpointing
        weights = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *network.buffers()]}
        storages: dict[int, int] = {}

        def keep(values: Tensor, weights: set[int] = weights, storages: dict[int, int] = storages) -> Tensor:
            if values.untyped_storage().data_ptr() not in weights:
                storages[values.untyped_storage().data_ptr()] = values.untyped_storage().nbytes()
            return values

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
            output = network(images())
        assert output.logits.requires_grad
        kept.append(sum(storages.values()))
    assert kept[1] < share * kept[0]


def test_several_ways_back_through_one_pass() -> None:
    """As accumulation has them: a gradient of its own for each loss."""
    found = []
    for checkpointing in (False, True):
        network = fresh("deeplab_small_bn", batch_norm=True)
        network.checkpointing = checkpointing
        logits = network(images()).logits
        weights = list(network.parameters())
        ways = [
            torch.autograd.grad(loss, weights, retain_graph=True) for loss in (logits.mean(), logits.square().mean())
        ]
        found.append([*ways[0], *ways[1], *network.buffers()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("accumulated", [False, True])
def test_dropout_is_drawn_alike_both_times(accumulated: bool) -> None:
    """What it drew again would be another gradient, with nothing said."""
    found = []
    for checkpointing in (False, True):
        network = fresh("deeplab_small")
        network.body = nn.Sequential(*(nn.Sequential(block, nn.Dropout(0.5)) for block in network.body))  # type: ignore[union-attr]
        network.checkpointing = checkpointing
        torch.manual_seed(5)
        logits, weights = network(images()).logits, list(network.parameters())
        losses = [logits.mean(), logits.square().mean()] if accumulated else [logits.square().mean()]
        ways = [torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True) for loss in losses]
        found.append([gradient for way in ways for gradient in way if gradient is not None])
        found[-1].append(torch.rand(1))  # what is drawn afterwards is the same, too
    assert len(found[0]) == len(found[1]) > 10
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6 * float(plain.abs().max()))


def test_without_gradients_nothing_is_kept_or_computed_twice() -> None:
    network = fresh("deeplab_small")
    network.checkpointing = True
    with torch.no_grad():
        assert torch.equal(network(images()).logits, fresh("deeplab_small")(images()).logits)
    calls: list[int] = []
    network.head.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    network.body[4].register_forward_hook(lambda *_: calls.append(2))  # type: ignore[index, union-attr]
    with torch.no_grad():
        network(images())
    assert calls == [2, 1]

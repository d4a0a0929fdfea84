"""One pass of a network over source and target: the same outputs and gradients as two passes."""

import copy

import pytest
import torch
from torch import Tensor

from segadapt.models import networks
from segadapt.models.segmenter import Segmenter, SegOutput


def fresh(name: str) -> Segmenter:
    torch.manual_seed(0)
    network = networks.build(name, classes=5, attention=name != "deeplab_resnet101").double()
    network.set_mode(batch_norm=False)
    return network


def images(count: int, width: int = 48) -> Tensor:
    return torch.randint(0, 256, (count, 3, 40, width), generator=torch.Generator().manual_seed(width)).double()


def loss_of(first: SegOutput, second: SegOutput) -> Tensor:
    """Something that every map of both has a part in, each its own."""
    parts = []
    for number, output in enumerate((first, second), start=1):
        maps = [*output.heads, output.features, *([] if output.attention is None else [output.attention])]
        parts += [number * one.square().mean() for one in maps]
    return torch.stack(parts).sum()


def passes(network: Segmenter) -> list[int]:
    """Filled with the batch size of every pass from now on."""
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("name", ["deeplab_vgg16", "deeplab_resnet101", "deeplab_small"])
def test_one_pass_is_two(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segadapt.models.segmenter.precise", lambda maps: maps)  # float64 all the way
    joint = fresh(name)
    two = copy.deepcopy(joint)
    sizes = passes(joint)
    first, second = images(1), 255 - images(2)
    both = joint.of_both(first, second)
    plain = two.of_both(first, second, plain=True)
    assert sizes == [3]
    for ours, theirs in zip(both, plain, strict=True):
        assert [head.shape for head in ours.heads] == [head.shape for head in theirs.heads]
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-9, atol=1e-12)
    loss_of(*both).backward()  # type: ignore[no-untyped-call]
    loss_of(*plain).backward()  # type: ignore[no-untyped-call]
    for (key, mine), its in zip(joint.named_parameters(), two.parameters(), strict=True):
        if mine.grad is not None:
            assert its.grad is not None
            torch.testing.assert_close(mine.grad, its.grad, rtol=1e-8, atol=1e-8 * float(its.grad.abs().max()), msg=key)


def test_two_passes_where_one_would_be_another_thing() -> None:
    network = fresh("deeplab_small_bn").float()
    sizes = passes(network)
    network.of_both(images(1), images(1))
    network.of_both(images(1), images(1, width=56))  # of another size
    network.of_both(images(1), images(1), plain=True)  # as published
    network.set_mode(batch_norm=True)
    network.of_both(images(1), images(1))  # a batch norm that learns would mix the domains
    assert sizes == [2] + [1] * 6

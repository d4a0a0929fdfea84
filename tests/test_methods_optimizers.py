"""Optimizers from settings: groups by head, depth and norm, and quirk `repeated_updates` against a walk by hand."""

import copy
import io
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from by_hand import Toy
from segadapt.engine.updater import parameters_of
from segadapt.errors import UsageError
from segadapt.methods.optimizers import make_optimizer, segmenter_optimizer
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.models.deeplab_v2 import DeepLabResNet101, collected_by_module

LR, DECAY = 0.1, 0.05


def settings(**changes: object) -> SourceOnlySettings:
    given: dict[str, Any] = {"network": "deeplab_small", "steps": 3, "optimizer": "sgd", "lr": LR}
    return SourceOnlySettings.model_validate(given | {"weight_decay": DECAY, "optimizer_path": "single"} | changes)


class Nested(nn.Module):
    """As ResNet-101 in small: a stage of blocks, one with a shortcut, beside a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2, bias=False)
        block, plain = nn.Module(), nn.Module()
        block.conv, block.shortcut = nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2, bias=False))
        block.norm = nn.BatchNorm1d(2).requires_grad_(False)
        plain.conv = nn.Linear(2, 2, bias=False)
        self.stage = nn.Sequential(block, plain)
        self.head = nn.Linear(2, 2)


def collected_body(network: Nested) -> list[nn.Parameter]:
    of_head = {id(p) for p in network.head.parameters()}
    return [p for p in collected_by_module(network) if p.requires_grad and id(p) not in of_head]


def test_the_body_of_resnet101_is_named_as_often_as_published() -> None:
    with torch.device("meta"):
        network = DeepLabResNet101(19)
    heads = {id(p) for p in network.head_parameters()}
    times = Counter(id(p) for p in network.published_body() if p.requires_grad)
    named = {name: times[id(p)] for name, p in network.named_parameters()}
    assert named["conv1.weight"] == 1
    assert Counter(named.values()) == {
        0: sum(1 for name in named if "bn" in name or "layer5" in name or "layer6" in name or "downsample.1" in name),
        1: 1,
        3: 99,
        4: 4,
    }
    optimizer = segmenter_optimizer(network, settings(network="deeplab_resnet101", head_lr=10, official=True))
    body, of_heads = optimizer.param_groups
    assert len(body["params"]) == 1 + 3 * 99 + 4 * 4 and len(of_heads["params"]) == len(heads)
    assert len(parameters_of(optimizer)) == 104 + len(heads)
    assert (body["lr"], of_heads["lr"], body["foreach"], body["fused"]) == (LR, 10 * LR, False, False)
    once = segmenter_optimizer(network, settings(network="deeplab_resnet101", head_lr=10))
    assert [len(group["params"]) for group in once.param_groups] == [104, len(heads)]


@pytest.mark.numeric
def test_repeated_updates_are_a_walk_entry_by_entry_that_outlives_a_checkpoint() -> None:
    torch.manual_seed(0)
    network = Nested()
    by_hand = copy.deepcopy(network)
    body = collected_body(network)
    assert len(body) == 1 + 3 + 4 + 3
    optimizer = make_optimizer(body, settings(official=True))

    walk = collected_body(by_hand)
    buffers: dict[int, torch.Tensor] = {}
    for step in range(4):
        gradients: dict[int, torch.Tensor] = {}
        for mine, theirs in zip(network.parameters(), by_hand.parameters(), strict=True):
            gradients[id(theirs)] = torch.randn_like(theirs)
            mine.grad = gradients[id(theirs)].clone()
        optimizer.step()
        before, buffers = buffers, dict(buffers)
        with torch.no_grad():
            for p in walk:
                pull = gradients[id(p)] + DECAY * p
                # In the first step each entry begins anew, and the last one is kept; then one buffer goes through all.
                buffers[id(p)] = pull if id(p) not in before else 0.9 * buffers[id(p)] + pull
                p.sub_(LR * buffers[id(p)])
        if step == 1:  # as a checkpoint does it, into a fresh optimizer
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer = make_optimizer(body, settings(official=True))
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        for (name, mine), theirs in zip(network.named_parameters(), by_hand.parameters(), strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6), (step, name)


def test_heads_learn_at_their_own_rate() -> None:
    network = Toy(2)
    body, heads = segmenter_optimizer(network, settings(head_lr=10)).param_groups
    assert (body["lr"], heads["lr"]) == (LR, 10 * LR)
    assert {id(p) for p in heads["params"]} == {id(p) for p in network.head_parameters()}
    norms = {id(p) for p in network.norm.parameters()}
    assert not norms & {id(p) for p in body["params"]} and len(body["params"]) == 4


def test_a_network_that_names_no_heads_has_no_rate_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Toy(1)
    monkeypatch.setattr(network, "head_parameters", list)
    assert len(segmenter_optimizer(network, settings()).param_groups) == 1
    with pytest.raises(UsageError, match="head_lr: is 10, but network 'deeplab_small'"):
        segmenter_optimizer(network, settings(head_lr=10))


class Layered(Toy):
    """A toy that says how deep its parameters lie."""

    @property
    def number_of_depths(self) -> int:
        return 3

    def depth_of(self, name: str) -> int:
        return {"first": 0, "norm": 1, "second": 2}[name.partition(".")[0]] if not name.startswith(HEADS) else 2


HEADS = ("auxiliary", "main")


def test_each_parameter_has_the_rate_of_its_depth_and_the_decay_of_its_kind() -> None:
    network = Layered(2)
    network.norm.requires_grad_(True)
    optimizer = segmenter_optimizer(
        network, settings(optimizer="adamw", head_lr=10, layer_decay=0.5, no_norm_decay=True, betas=[0.8, 0.99])
    )
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert {name: found[id(p)] for name, p in network.named_parameters()} == {
        "first.weight": (LR / 8, DECAY),
        "first.bias": (LR / 8, 0.0),
        "norm.weight": (LR / 4, 0.0),
        "norm.bias": (LR / 4, 0.0),
        "second.weight": (LR / 2, DECAY),
        "second.bias": (LR / 2, 0.0),
        "auxiliary.0.weight": (10 * LR, DECAY),
        "auxiliary.0.bias": (10 * LR, 0.0),
        "main.weight": (10 * LR, DECAY),
        "main.bias": (10 * LR, 0.0),
    }
    assert type(optimizer).__name__ == "AdamW" and optimizer.defaults["betas"] == (0.8, 0.99)


def test_layer_decay_is_refused_by_a_network_that_names_no_depths() -> None:
    with pytest.raises(UsageError, match=r"layer_decay: is 0\.9, but network 'deeplab_small'"):
        segmenter_optimizer(Toy(1), settings(layer_decay=0.9))


def test_adamw_decays_beside_the_gradient_and_momentum_is_sgds() -> None:
    weights = [nn.Parameter(torch.tensor([2.0])) for _ in range(3)]
    for p in weights:
        p.grad = torch.zeros(1)
    kinds: list[dict[str, object]] = [
        {"optimizer": "adamw"},
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.5},
    ]
    made = [make_optimizer([p], settings(**kind)) for p, kind in zip(weights, kinds, strict=True)]
    for _ in range(2):
        for optimizer in made:
            optimizer.step()
    by_adamw, by_adam, by_sgd = (p.item() for p in weights)
    assert by_adamw == pytest.approx(2 * (1 - LR * DECAY) ** 2)
    assert by_adam == pytest.approx(2 - 2 * LR, rel=1e-3)  # the decay is a gradient, and Adam divides by its size
    first = 2 - LR * DECAY * 2
    assert by_sgd == pytest.approx(first - LR * (0.5 * DECAY * 2 + DECAY * first))


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "sgd", "betas": [0.9, 0.99]},
        {"optimizer": "adam", "momentum": 0.9},
        {"schedule": "cosine", "power": 1.0},
        {"warmup_ratio": 0.1},
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="applies only with"):
        settings(**wrong)

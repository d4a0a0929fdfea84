"""A self-training step against its formula, written by hand in float64."""

import copy
from typing import Any

import pytest
import torch

from by_hand import (
    BY_SGD,
    CPU,
    EQUAL,
    RunningWeights,
    Sgd,
    Toy,
    batch,
    caffe,
    check_weights,
    cross_entropy,
    stretched,
)
from segadapt.engine.updater import Updater
from segadapt.methods.class_balance import ClassBalance, class_counts
from segadapt.methods.self_training import SelfTraining, SelfTrainingSettings

pytestmark = pytest.mark.numeric

SETTINGS: dict[str, Any] = {
    **BY_SGD,
    "labels": "pseudo",
    "auxiliary": 0.3,
}
PIXELS = 2 * 32 * 32


def self_training(heads: int = 2, **changes: object) -> SelfTraining:
    torch.manual_seed(0)
    return SelfTraining(Toy(heads), SelfTrainingSettings.model_validate(SETTINGS | changes))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("heads", "changes", "few"),
    [
        (2, {}, 0.0044 * PIXELS),
        (2, {"rare_share": 0.05}, 0.05 * PIXELS),
        (2, {"rare_pixels": 40}, 2 * 40),
        (2, {"balance": False}, None),
        (1, {"rare_pixels": 40}, 2 * 40),
        (2, {"quirks": {"train_bn": True}}, 0.0044 * PIXELS),
    ],
)
def test_three_steps_equal_the_hand_written_ones(heads: int, changes: dict[str, Any], few: float | None) -> None:
    method = self_training(heads, **changes)
    network, balance = copy.deepcopy(method.network), RunningWeights()
    network.norm.train(method.settings.quirk("train_bn"))  # type: ignore[union-attr]
    learned = [p for p in network.parameters() if p.requires_grad]
    of_heads = {id(p) for p in network.head_parameters()}
    sgd = Sgd([(p.data, 1e-1 if id(p) in of_heads else 1e-2) for p in learned], 1e-2)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        given = batch(step, target_labels=True)
        assert given.target is not None and given.target.labels is not None
        labels = given.target.labels
        weights = torch.ones(5) if few is None else balance.of(labels, few)
        logits = [stretched(h, labels) for h in network.segment(caffe(given.target.images)).heads]
        loss = cross_entropy(logits[-1], labels, weights)
        if heads == 2:
            loss = loss + 0.3 * cross_entropy(logits[0], labels, weights)
        sgd.step(torch.autograd.grad(loss, learned))
        values, expected = update.run(method, given), float(loss.detach())
        assert float(values["total"]) == pytest.approx(expected, rel=EQUAL)
        assert float(values["seg"]) == pytest.approx(expected, rel=EQUAL)
    check_weights(method, {"network": dict(network.named_parameters())})
    for key, value in method.network.named_buffers():
        assert torch.allclose(value, dict(network.named_buffers())[key], rtol=EQUAL), key


def test_batch_norm_learns_until_the_first_evaluation() -> None:
    """Quirk `bn_until_first_eval`: the first evaluation comes after `evaluate_every` updates."""
    quirks = {"train_bn": True, "bn_until_first_eval": True}
    both = self_training(quirks=quirks, evaluate_every=2)
    assert [both.learning_statistics(step) for step in range(4)] == [True, True, False, False]
    never = self_training(quirks=quirks, evaluate_every=0)
    assert never.learning_statistics(10**6)
    assert not self_training().learning_statistics(0)
    update = Updater(both.optimizers, CPU)
    modes = []
    for step in range(4):
        update.run(both, batch(step, target_labels=True))
        modes.append(both.network.norm.training)  # type: ignore[union-attr]
    assert modes == [True, True, False, False]


def test_class_counts_and_the_running_weight() -> None:
    labels = torch.tensor([[[0, 0, 0, 255], [1, 0, 0, 3]]], dtype=torch.uint8)
    counts = class_counts(labels)
    assert counts[:5].tolist() == [5, 1, 0, 1, 0] and int(counts[255]) == 1 and int(counts.sum()) == 8
    balance = ClassBalance(5, self_training(rare_pixels=1).settings)
    # One pixel is as many as are wanted: not rare. Absent classes are rare too.
    assert balance.weights(counts, 1).tolist() == pytest.approx([1, 1, 7 * 1.6, 1, 7 * 1.6])
    assert balance.weights(counts, 2).tolist() == pytest.approx([1, 7, 7 * 2.14, 7, 7 * 2.14])

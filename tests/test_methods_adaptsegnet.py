"""An AdaptSegNet step against the paper's formulas, written by hand in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from by_hand import (
    BY_SGD,
    CPU,
    EQUAL,
    Adam,
    Sgd,
    Toy,
    batch,
    bce,
    caffe,
    check_weights,
    copied,
    cross_entropy,
    discriminator,
    stretched,
)
from segadapt.batch import Batch
from segadapt.engine.updater import Updater
from segadapt.methods.adaptsegnet import AdaptSegNet, AdaptSegNetSettings

pytestmark = pytest.mark.numeric

SETTINGS: dict[str, Any] = {
    **BY_SGD,
    "lr_discriminator": 1e-3,
    "auxiliary": 0.3,
    "adversarial": 0.5,
    "auxiliary_adversarial": 0.2,
}
LEAST_SQUARES: dict[str, Any] = {"least_squares": True, "auxiliary": 0, "adversarial": 0.7, "auxiliary_adversarial": 0}


def adaptsegnet(heads: int = 2, **changes: object) -> AdaptSegNet:
    torch.manual_seed(0)
    return AdaptSegNet(Toy(heads), AdaptSegNetSettings.model_validate(SETTINGS | changes))


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discriminators that are quick in float64."""
    monkeypatch.setattr("segadapt.methods.adaptsegnet.WIDTHS", (8, 16, 16, 32))


def squares(answers: Tensor, wanted: float) -> Tensor:
    return ((answers - wanted) ** 2).mean()


class HandWritten:
    """The algorithm box in float64; `levels`: the heads that have a discriminator, 0 the auxiliary one."""

    def __init__(self, method: AdaptSegNet, levels: tuple[int, ...]) -> None:
        self.settings = s = method.settings
        self.network = copy.deepcopy(method.network)
        heads = {id(p) for p in self.network.head_parameters()}
        # A head that is in no loss is not updated: not by weight decay either.
        unused = {id(p) for name, p in self.network.named_parameters() if name.startswith("auxiliary.")}
        unused = unused if s.auxiliary == 0 and levels == (1,) else set()
        self.learned = [p for p in self.network.parameters() if p.requires_grad and id(p) not in unused]
        self.sgd = Sgd([(p.data, s.lr * (10 if id(p) in heads else 1)) for p in self.learned], s.weight_decay)
        names = [f"discriminator{level + 1}" for level in levels]
        self.discriminators = {name: copied(method.modules[name]) for name in names}
        self.levels = levels
        self.adams = {
            name: Adam((p.data for p in d.values()), s.lr_discriminator, (0.9, 0.99))
            for name, d in self.discriminators.items()
        }

    def step(self, given: Batch) -> dict[str, float]:
        assert given.source is not None and given.target is not None and given.source.labels is not None
        s, labels, says = self.settings, given.source.labels, squares if self.settings.least_squares else bce
        on_source = [stretched(h, labels) for h in self.network.segment(caffe(given.source.images)).heads]
        on_target = [stretched(h, given.target.images) for h in self.network.segment(caffe(given.target.images)).heads]
        seg = cross_entropy(on_source[-1], labels, torch.ones(5))
        for auxiliary in on_source[:-1]:
            seg = seg + s.auxiliary * cross_entropy(auxiliary, labels, torch.ones(5))
        found, total, updates = {"seg": seg}, seg, []
        for level, (name, d) in zip(self.levels, self.discriminators.items(), strict=True):
            head = level if len(on_source) > 1 else 0
            source, target = on_source[head].softmax(1), on_target[head].softmax(1)
            adversarial = says(discriminator(d, target), 0)
            total = total + (s.adversarial if level == max(self.levels) else s.auxiliary_adversarial) * adversarial
            of_source, of_target = (discriminator(d, maps.detach()) for maps in (source, target))
            loss = 0.5 * says(of_source, 0) + 0.5 * says(of_target, 1)
            found |= {f"adversarial{level + 1}": adversarial, name: loss}
            updates.append((self.adams[name], torch.autograd.grad(loss, list(d.values()))))
        self.sgd.step(torch.autograd.grad(total, self.learned))
        for adam, gradients in updates:
            adam.step(gradients)
        return {name: float(value.detach()) for name, value in (found | {"total": total}).items()}


@pytest.mark.usefixtures("float64", "few_channels")
@pytest.mark.parametrize(
    ("heads", "changes", "levels"),
    [
        (2, {}, (0, 1)),
        (2, {"quirks": {"train_bn": True}}, (0, 1)),  # in the order source, target
        (2, LEAST_SQUARES, (1,)),
        (3, {}, (0, 1, 2)),
        (1, {}, (1,)),
    ],
)
def test_three_steps_equal_the_hand_written_ones(heads: int, changes: dict[str, Any], levels: tuple[int, ...]) -> None:
    method = adaptsegnet(heads, **changes)
    by_hand = HandWritten(method, levels)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        expected = by_hand.step(batch(step))
        values = {name: float(value) for name, value in update.run(method, batch(step)).items()}
        assert values == pytest.approx(expected, rel=EQUAL)
    check_weights(method, {"network": dict(by_hand.network.named_parameters()), **by_hand.discriminators})
    for key, value in method.network.named_buffers():
        assert torch.allclose(value, dict(by_hand.network.named_buffers())[key], rtol=EQUAL), key


def test_a_single_level_has_no_first_discriminator() -> None:
    assert set(adaptsegnet(**LEAST_SQUARES).modules) == {"network", "discriminator2"}
    assert set(adaptsegnet(1).modules) == {"network", "discriminator2"}
    assert set(adaptsegnet().modules) == {"network", "discriminator1", "discriminator2"}
    widths = [conv.out_channels for conv in adaptsegnet().discriminators[2].children()]
    assert widths == [64, 128, 256, 512, 1]


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"optimizer": "adam", "adversarial": 1e-3}, True),
        ({"optimizer": "adam", "adversarial": 1e-5}, False),
        ({"optimizer": "sgd", "adversarial": 1e-3}, False),
    ],
)
def test_a_strong_game_under_adam_is_warned_of(changes: dict[str, Any], warns: bool) -> None:
    assert bool(AdaptSegNetSettings.model_validate(SETTINGS | changes).cautions()) == warns

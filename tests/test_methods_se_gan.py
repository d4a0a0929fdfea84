"""A SE-GAN step against the paper's formulas, written by hand in float64."""

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
    RunningWeights,
    Sgd,
    Toy,
    batch,
    bce,
    caffe,
    check_weights,
    copied,
    cross_entropy,
    discriminator,
    noises,
    stretched,
)
from segadapt.batch import Batch
from segadapt.engine.updater import Updater
from segadapt.methods.method import Method
from segadapt.methods.se_gan import SeGan, SeGanSettings

pytestmark = pytest.mark.numeric

LENGTH = 10
SETTINGS: dict[str, Any] = {
    **BY_SGD,
    "lr_discriminator": 1e-3,
    "ema": 0.9,
    "ema_warmup": False,
    "rare_share": 0.028,  # of all pixels, ignored ones too; most rare classes have 0.025
    "auxiliary": 0.3,
    "consistency": 3.0,
    "adversarial": 0.5,
}


def se_gan(heads: int, **changes: object) -> SeGan:
    torch.manual_seed(0)
    return SeGan(Toy(heads), SeGanSettings.model_validate(SETTINGS | changes), LENGTH)


class HandWritten:
    """The algorithm box in float64."""

    def __init__(self, method: SeGan) -> None:
        self.settings = s = method.settings
        self.student = copy.deepcopy(method.student).eval()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        heads = {id(p) for p in self.student.head_parameters()}
        self.learned = [p for p in self.student.parameters() if p.requires_grad]
        rates = [(p.data, s.lr * (10 if id(p) in heads else 1)) for p in self.learned]
        self.sgd = Sgd(rates, s.weight_decay)
        self.discriminators = [copied(d) for d in method.discriminators.values()]
        self.adams = [Adam((p.data for p in d.values()), s.lr_discriminator, (0.9, 0.99)) for d in self.discriminators]
        self.balance = RunningWeights()

    def step(self, given: Batch, few: float) -> dict[str, float]:
        """`few`: the number of pixels below which a class is rare; 0: no class balance."""
        assert given.source is not None and given.target is not None and given.source.labels is not None
        s, labels = self.settings, given.source.labels
        theirs, ours = (given.target.images + s.noise * n for n in noises(given))
        q = [stretched(h, ours).softmax(1) for h in self.teacher.segment(caffe(theirs)).heads]
        p = [stretched(h, ours).softmax(1) for h in self.student.segment(caffe(ours)).heads]
        logits = [stretched(h, labels) for h in self.student.segment(caffe(given.source.images)).heads]
        weights = self.balance.of(labels, few) if s.balance else torch.ones(5)

        seg = cross_entropy(logits[-1], labels, weights)
        consistency = (p[-1] - q[-1]).square().mean()
        adversarial = bce(discriminator(self.discriminators[-1], p[-1]), 0)
        for i in range(len(p) - 1):
            seg = seg + s.auxiliary * cross_entropy(logits[i], labels, weights)
            consistency = consistency + s.auxiliary_consistency * (p[i] - q[i]).square().mean()
            adversarial = adversarial + s.auxiliary * bce(discriminator(self.discriminators[i], p[i]), 0)
        total = seg + s.consistency * consistency + s.adversarial * (1 - given.step / LENGTH) * adversarial
        learns = torch.autograd.grad(total, self.learned)

        found = {"total": total, "seg": seg, "consistency": consistency, "adversarial": adversarial}
        updates: list[tuple[Adam, tuple[Tensor, ...]]] = []
        for i, (d, adam) in enumerate(zip(self.discriminators, self.adams, strict=True)):
            example = p[0] if s.quirk("d2_head1") else p[i]
            of_source = bce(discriminator(d, logits[i].softmax(1).detach()), 0)
            loss = 0.5 * of_source + 0.5 * bce(discriminator(d, example.detach()), 1)
            found[f"discriminator{i + 1 if len(p) > 1 else 2}"] = loss
            updates.append((adam, torch.autograd.grad(loss, list(d.values()))))
        self.sgd.step(learns)
        for adam, gradients in updates:
            adam.step(gradients)
        with torch.no_grad():
            decay = min(s.ema, 1 - 1 / (given.step + 1)) if s.ema_warmup else s.ema
            for t, w in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                t.copy_(decay * t + (1 - decay) * w)
        return {name: float(value.detach()) for name, value in found.items()}

    def weights(self, method: Method) -> dict[str, dict[str, Tensor]]:
        names = [name for name in method.modules if name.startswith("discriminator")]
        return {
            "student": dict(self.student.named_parameters()),
            "teacher": dict(self.teacher.named_parameters()),
            **dict(zip(names, self.discriminators, strict=True)),
        }


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("heads", "changes", "few"),
    [
        (2, {}, 0.028 * 2 * 32 * 64),
        (2, {"noise": 1.0, "auxiliary_consistency": 0.1}, 0.028 * 2 * 32 * 64),
        (2, {"quirks": {"d2_head1": True}, "rare_pixels": 100}, 2 * 100),  # per image
        (2, {"balance": False, "ema_warmup": True, "ema": 0.6}, 0),
        (3, {"auxiliary_consistency": 0.1}, 0.028 * 2 * 32 * 64),
        (1, {"noise": 1.0}, 0.028 * 2 * 32 * 64),
        (1, {"balance": False}, 0),
    ],
)
def test_three_steps_equal_the_hand_written_ones(heads: int, changes: dict[str, Any], few: float) -> None:
    method = se_gan(heads, **changes)
    by_hand = HandWritten(method)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        expected = by_hand.step(batch(step), few)
        values = {name: float(value) for name, value in update.run(method, batch(step)).items()}
        assert set(values) == set(expected)
        assert values == pytest.approx(expected, rel=EQUAL, abs=0 if step else 1e-20)  # T = S at first
    check_weights(method, by_hand.weights(method))


@pytest.mark.usefixtures("float64")
def test_the_quirk_d2_head1_makes_a_difference_to_its_own_update_alone() -> None:
    plain, quirky = se_gan(2), se_gan(2, quirks={"d2_head1": True})
    one = Updater(plain.optimizers, CPU).run(plain, batch(0))
    other = Updater(quirky.optimizers, CPU).run(quirky, batch(0))
    assert one.pop("discriminator2") != other.pop("discriminator2")
    assert {name: float(v) for name, v in one.items()} == {name: float(v) for name, v in other.items()}


def test_batch_norm_and_its_statistics_stay_as_they_were() -> None:
    method = se_gan(2)
    before = {name: copy.deepcopy(dict(method.modules[name].named_buffers())) for name in ("student", "teacher")}
    Updater(method.optimizers, CPU).run(method, batch(0))
    for name, buffers in before.items():
        for key, value in method.modules[name].named_buffers():
            assert torch.equal(value, buffers[key]), key


def test_discriminators_of_another_width() -> None:
    published, narrow = (se_gan(2, discriminator_width=width) for width in (None, 4))
    channels = [[p.shape[0] for p in m.discriminators["discriminator1"].parameters()][::2] for m in (published, narrow)]
    assert channels == [[32, 64, 128, 256, 1], [4, 8, 16, 32, 1]]
    values = Updater(narrow.optimizers, CPU).run(narrow, batch(0))
    assert torch.isfinite(torch.stack(list(values.values()))).all()

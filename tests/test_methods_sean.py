"""A SEAN step against the paper's formulas, written by hand in float64."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from by_hand import EQUAL, check_weights
from segadapt.batch import Batch, Images
from segadapt.engine.runtime import Runtime
from segadapt.engine.updater import Updater
from segadapt.losses import cross_entropy, masked_squared_error
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.models.small import DeepLabSmall
from segadapt.noise import SampleNoise

pytestmark = pytest.mark.numeric

CPU = Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0)


def batch(step: int, size: int = 2) -> Batch:
    """Random images; a third of the labels is ignored."""
    generator = torch.Generator().manual_seed(step)
    source, target = (torch.randint(0, 256, (size, 3, 32, 48), generator=generator).byte() for _ in range(2))
    labels = torch.randint(0, 7, (size, 32, 48), generator=generator).byte()
    labels[labels > 4] = 255
    names = tuple(f"{step}-{i}" for i in range(size))
    seeds = tuple(range(10 * step, 10 * step + size))
    return Batch(step, seeds, Images(source, labels, names), Images(target, None, names))


class HandWritten:
    """The algorithm box in float64, without anything of the engine."""

    def __init__(self, network: DeepLabSmall, lr: float, decay: float, weight: float, alpha: float) -> None:
        self.student = copy.deepcopy(network).double()
        self.teacher = copy.deepcopy(self.student)
        self.adam = torch.optim.Adam(self.student.parameters(), lr=lr, weight_decay=decay, foreach=False)
        self.weight, self.alpha = weight, alpha

    def pixels(self, images: Tensor) -> Tensor:
        form = self.student.pixels
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (form.mean, form.std))
        return (images.double() - mean) / std

    def step(self, given: Batch, sigma: float, threshold: float) -> dict[str, float]:
        assert given.source is not None and given.target is not None and given.source.labels is not None
        generators = [torch.Generator().manual_seed(seed) for seed in given.seeds]
        noises = [torch.stack([torch.randn(3, 32, 48, generator=g) for g in generators]) for _ in range(2)]
        with torch.no_grad():
            theirs = self.teacher.segment(self.pixels(given.target.images + sigma * noises[0]))
        ours = self.student.segment(self.pixels(given.target.images + sigma * noises[1]))
        assert theirs.attention is not None
        chosen = (theirs.attention > threshold).expand_as(ours.logits)
        p, q = ours.logits.softmax(1)[chosen], theirs.logits.softmax(1)[chosen]
        consistency = F.mse_loss(p, q) if chosen.any() else ours.logits.sum() * 0
        logits = self.student.segment(self.pixels(given.source.images)).logits
        up = F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False)
        seg = F.cross_entropy(up, given.source.labels.long(), ignore_index=255)
        self.adam.zero_grad()
        (seg + self.weight * consistency).backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        with torch.no_grad():
            for t, s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                t.copy_(self.alpha * t + (1 - self.alpha) * s)
        return {"seg": float(seg.detach()), "consistency": float(consistency.detach())}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("threshold", [0.1, 0.43, 0.99])  # all pixels pass, some, none
def test_a_step_equals_the_hand_written_one(threshold: float) -> None:
    torch.manual_seed(0)
    network = DeepLabSmall(5, attention=True)
    by_hand = HandWritten(network, lr=1e-3, decay=5e-5, weight=0.3, alpha=0.9)
    settings = SeanSettings(
        steps=3, lr=1e-3, noise=2.0, ema=0.9, ema_warmup=False, attention_threshold=threshold, network="deeplab_small"
    )
    method = Sean(network, settings)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        values = update.run(method, batch(step))
        expected = by_hand.step(batch(step), 2.0, threshold)
        expected["total"] = expected["seg"] + 0.3 * expected["consistency"]
        assert {name: float(value) for name, value in values.items()} == pytest.approx(expected, rel=EQUAL)
        assert (expected["consistency"] > 0) == (threshold < 0.9)
    networks = {"student": by_hand.student, "teacher": by_hand.teacher}
    check_weights(method, {name: dict(network.named_parameters()) for name, network in networks.items()})


def test_consistency_counts_masked_pixels_and_all_channels() -> None:
    maps, wanted = torch.rand(2, 5, 4, 6), torch.rand(2, 5, 4, 6)
    mask = torch.rand(2, 1, 4, 6) > 0.5
    loss = masked_squared_error(maps, wanted, mask)
    expected = F.mse_loss(maps[mask.expand_as(maps)], wanted[mask.expand_as(maps)])
    assert float(loss.sum / loss.count) == pytest.approx(float(expected), rel=1e-5)
    nothing = masked_squared_error(maps, wanted, torch.zeros_like(mask))
    assert float(nothing.sum) == 0 and float(nothing.count) == 0


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits, labels = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6))
    labels[0, :2] = 255
    loss = cross_entropy(logits, labels.byte())
    assert float(loss.sum / loss.count) == pytest.approx(
        float(F.cross_entropy(logits, labels, ignore_index=255)), rel=1e-5
    )


def test_noise_depends_on_the_sample_alone() -> None:
    images = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    both = SampleNoise(Batch(0, (5, 9)), torch.device("cpu"))
    first, second = both.add(images, 1.0), both.add(images, 1.0)
    alone = SampleNoise(Batch(0, (9,)), torch.device("cpu"))
    assert torch.equal(alone.add(images[:1], 1.0), first[1:]) and torch.equal(alone.add(images[:1], 1.0), second[1:])
    assert not torch.equal(first, second)
    assert 0.7 < float((first - 100).std()) < 1.3

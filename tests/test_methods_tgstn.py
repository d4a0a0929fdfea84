"""A TGSTN step against the paper's formulas, written by hand in float64."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from by_hand import (
    CPU,
    EQUAL,
    Adam,
    Toy,
    batch,
    bce,
    caffe,
    check_weights,
    copied,
    cross_entropy,
    discriminator,
)
from segadapt.batch import Batch
from segadapt.engine.updater import Updater
from segadapt.losses import Loss
from segadapt.methods.tgstn import Tgstn, TgstnSettings
from segadapt.models.segmenter import Segmenter
from segadapt.models.small import DeepLabSmall
from segadapt.models.style_transfer import InstanceNorm, StyleTransfer

pytestmark = pytest.mark.numeric

CAFFE_MEAN = torch.tensor([104.00698793, 116.66876762, 122.67891434], dtype=torch.float64).view(1, 3, 1, 1)
MEAN = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64).view(1, 3, 1, 1)


def small() -> Segmenter:
    """A segmenter that wants ImageNet pixels, with no corners aligned, and with features that are not all alike."""
    network = DeepLabSmall(5)
    for parameter in network.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return network


def tgstn(segmenter: Segmenter, **changes: object) -> Tgstn:
    torch.manual_seed(0)
    generator = StyleTransfer()
    generator.deconv3.conv2d.weight.data *= 300  # pixels beyond 0..255 too
    given = {"steps": 3, "segmenter": "@none", "lr": 1e-3, "weight_decay": 1e-2, "lr_discriminator": 1e-3}
    weights = {"semantic": 3.0, "perceptual": 0.5, "adversarial": 0.7}
    return Tgstn(generator, segmenter, TgstnSettings.model_validate(given | weights | changes))


WITHOUT_EFFECT = tuple(f"res{i}.in2.shift" for i in range(1, 6))
"""The next norm takes these away again: their gradient is rounding, which Adam makes into steps."""


class HandWritten:
    """The algorithm box in float64."""

    def __init__(self, method: Tgstn) -> None:
        self.generator, self.segmenter = copy.deepcopy(method.generator), copy.deepcopy(method.segmenter)
        self.imagenet = isinstance(method.segmenter, DeepLabSmall)
        self.learned = list(self.generator.parameters())
        self.adam = Adam([p.data for p in self.learned], 1e-3, (0.9, 0.999), 1e-2)
        self.d = copied(method.discriminator)
        self.d_adam = Adam([p.data for p in self.d.values()], 1e-3, (0.9, 0.999), 1e-2)

    def seen(self, pixels: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Caffe pixels -> the segmenter's features, and logits of the size of the labels."""
        if self.imagenet:
            pixels = ((pixels + CAFFE_MEAN).flip(1) - MEAN) / STD
        output = self.segmenter.segment(pixels)
        logits = F.interpolate(output.heads[-1], size=size, mode="bilinear", align_corners=not self.imagenet)
        return output.features, logits

    def step(self, given: Batch) -> dict[str, float]:
        assert given.source is not None and given.target is not None and given.source.labels is not None
        source, target, labels = caffe(given.source.images), caffe(given.target.images), given.source.labels
        stylized = self.generator(source)
        features, logits = self.seen(stylized, labels.shape[-2:])
        semantic = cross_entropy(logits, labels, torch.ones(5))
        perceptual = (features - self.seen(source, labels.shape[-2:])[0].detach()).square().mean()
        adversarial = bce(discriminator(self.d, stylized), 1)
        total = 3 * semantic + 0.5 * perceptual + 0.7 * adversarial
        self.adam.step(torch.autograd.grad(total, self.learned))

        stylized = self.generator(source).detach()  # of the updated generator
        fake, real = bce(discriminator(self.d, stylized), 0), bce(discriminator(self.d, source), 0)
        loss = 0.5 * (fake + real) + bce(discriminator(self.d, target), 1)
        self.d_adam.step(torch.autograd.grad(loss, list(self.d.values())))
        found = {"total": total, "semantic": semantic, "perceptual": perceptual, "adversarial": adversarial}
        return {name: float(value.detach()) for name, value in (found | {"discriminator": loss}).items()}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pixels", ["caffe", "imagenet"])
def test_three_steps_equal_the_hand_written_ones(pixels: str) -> None:
    torch.manual_seed(1)
    method = tgstn(Toy(2) if pixels == "caffe" else small())
    assert method.segmenter.pixels.name == pixels
    before = copy.deepcopy(method.segmenter.state_dict())
    by_hand = HandWritten(method)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        expected = by_hand.step(batch(step, 1))
        values = {name: float(value) for name, value in update.run(method, batch(step, 1)).items()}
        assert values == pytest.approx(expected, rel=EQUAL)
    check_weights(method, {"generator": dict(by_hand.generator.named_parameters())}, WITHOUT_EFFECT)
    check_weights(method, {"discriminator": by_hand.d})
    assert all(torch.equal(value, before[key]) for key, value in method.segmenter.state_dict().items())


class Sums:
    """An `Update` that knows sums alone: no counts, no optimizers."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def backward(self, **terms: Loss) -> None:
        torch.stack([term.weight * term.sum for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        self.found |= {name: term.sum.detach() for name, term in terms.items()}


def test_the_fast_generator_gives_the_published_steps_losses_and_gradients() -> None:
    """In float32: PyTorch's norm, and a copy made for inference where the generator only makes a picture."""
    torch.manual_seed(1)
    segmenter = small()
    fast, plain = tgstn(copy.deepcopy(segmenter)), tgstn(segmenter, official=True)
    assert {norm.fused for norm in fast.generator.modules() if isinstance(norm, InstanceNorm)} == {True}
    assert {norm.fused for norm in plain.generator.modules() if isinstance(norm, InstanceNorm)} == {False}
    ours, published = Sums(), Sums()
    for method, sums in ((fast, ours), (plain, published)):
        method.generator_backward(batch(0, 1), sums)  # type: ignore[arg-type]
        method.discriminator_backward(batch(0, 1), sums)  # type: ignore[arg-type]
    assert set(ours.found) == {"semantic", "perceptual", "adversarial", "discriminator"}
    for name, found in ours.found.items():
        torch.testing.assert_close(found, published.found[name], rtol=1e-5, atol=0)
    for name, module in fast.modules.items():
        for (key, mine), its in zip(module.named_parameters(), plain.modules[name].parameters(), strict=True):
            if key not in WITHOUT_EFFECT and not key.endswith("conv2d.bias"):  # a norm takes these away, too
                assert mine.grad is not None and its.grad is not None
                assert float((mine.grad - its.grad).norm()) < 1e-4 * float(its.grad.norm()), key


def test_a_discriminator_of_another_width() -> None:
    first = [tgstn(small(), discriminator_width=width).discriminator.conv1.weight.shape[0] for width in (None, 4)]
    assert first == [32, 4]

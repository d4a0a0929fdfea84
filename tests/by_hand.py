"""The papers' formulas in float64, written without anything of the engine; toy networks and random batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.batch import Batch, Images
from segadapt.engine.runtime import Runtime
from segadapt.methods.method import Method
from segadapt.models.segmenter import CAFFE, Segmenter, SegOutput

CPU = Runtime(torch.device("cpu"), "fp32", 0, 1, 1, 0)
CLASSES = 5
EQUAL = 1e-8
"""Relative: what float64 leaves of two ways to compute one thing."""
BY_SGD: dict[str, Any] = {
    "network": "deeplab_small",
    "steps": 3,
    "batch": 2,
    "optimizer": "sgd",
    "lr": 1e-2,
    "head_lr": 10,
    "weight_decay": 1e-2,
}
"""Three updates by stochastic gradient descent, as `Sgd` does them."""


class Toy(Segmenter):
    """Stride 4, align corners, a frozen batch norm as ResNet-101's; one head, or others on its middle."""

    pixels = CAFFE
    stride = 4
    align_corners = True

    def __init__(self, heads: int = 2) -> None:
        super().__init__(CLASSES, feature_channels=8)
        self.number_of_heads = heads
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6).requires_grad_(False)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.auxiliary = nn.ModuleList(nn.Conv2d(6, CLASSES, 3, stride=2, padding=1) for _ in range(heads - 1))
        self.main = nn.Conv2d(8, CLASSES, 3, padding=1)
        nn.init.normal_(self.first.weight, std=0.01)
        self.norm.running_mean.normal_()  # type: ignore[union-attr]
        self.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.auxiliary.parameters(), *self.main.parameters()]

    def segment(self, pixels: Tensor) -> SegOutput:
        middle = F.relu(self.norm(self.first(pixels)))
        features = F.relu(self.second(middle))
        return SegOutput((*(head(middle) for head in self.auxiliary), self.main(features)), None, features)


def batch(step: int, size: int = 2, target_labels: bool = False) -> Batch:
    """Random images, 64×32 of the source and 32×32 of the target; rare, absent and ignored pixels among the labels."""
    generator = torch.Generator().manual_seed(step)
    source = torch.randint(0, 256, (size, 3, 32, 64), generator=generator).byte()
    target = torch.randint(0, 256, (size, 3, 32, 32), generator=generator).byte()
    labels, others = (
        torch.randint(0, 40, shape, generator=generator).byte() for shape in ((size, 32, 64), (size, 32, 32))
    )
    for maps in (labels, others):
        ignored = maps >= 24
        maps[maps > CLASSES - 1] = step % 2  # frequent; the other classes are rare
        maps[maps == 2 + step % 3] = 0  # absent
        maps[ignored] = 255
    names = tuple(f"{step}-{i}" for i in range(size))
    seeds = tuple(range(10 * step, 10 * step + size))
    return Batch(step, seeds, Images(source, labels, names), Images(target, others if target_labels else None, names))


def caffe(images: Tensor) -> Tensor:
    """RGB 0..255 -> BGR minus mean."""
    return images.double().flip(1) - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)


def noises(given: Batch) -> tuple[Tensor, Tensor]:
    """Two draws of unit noise for the target images, each sample from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in given.seeds]
    first, second = (torch.stack([torch.randn(3, 32, 32, generator=g) for g in generators]) for _ in range(2))
    return first, second


def stretched(maps: Tensor, like: Tensor) -> Tensor:
    """Bilinear, align corners, to the height and width of `like`."""
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=True)


def bce(answers: Tensor, wanted: float) -> Tensor:
    """-(t log σ(a) + (1 - t) log(1 - σ(a))), mean."""
    probability = torch.sigmoid(answers)
    return -(wanted * probability.log() + (1 - wanted) * (1 - probability).log()).mean()


def discriminator(weights: Mapping[str, Tensor], maps: Tensor) -> Tensor:
    """Four 4×4 convolutions of stride 2 with leaky ReLU 0.2 after each, and a fifth."""
    for name in ("conv1", "conv2", "conv3", "conv4"):
        maps = F.leaky_relu(F.conv2d(maps, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1), 0.2)
    return F.conv2d(maps, weights["classifier.weight"], weights["classifier.bias"], 2, 1)


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Weights by name, to learn with by hand."""
    return {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in module.named_parameters()}


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Σ w_y · (-log p_y) / Σ w_y over the pixels that are not ignored."""
    known = labels != 255
    truth = labels.long()[known]
    p = logits.softmax(1).permute(0, 2, 3, 1)[known]  # (pixels, C)
    w = weights[truth]
    return (w * -p[torch.arange(len(truth)), truth].log()).sum() / w.sum()


class RunningWeights:
    """The class-balanced loss's weights: 7 for rare classes, times a running weight of absence."""

    def __init__(self) -> None:
        self.running = [1.0] * CLASSES

    def of(self, labels: Tensor, fewest: float) -> Tensor:
        """`fewest`: the number of pixels below which a class is rare."""
        weights = []
        for c in range(CLASSES):
            pixels = int((labels == c).sum())
            self.running[c] = 0.9 * self.running[c] + 0.1 * (7.0 if pixels == 0 else 1.0)
            weights.append((7.0 if pixels < fewest else 1.0) * self.running[c])
        return torch.tensor(weights)


class Sgd:
    """buf ← 0.9 buf + (grad + wd p), p ← p - lr buf."""

    def __init__(self, rates: Iterable[tuple[Tensor, float]], decay: float) -> None:
        self.rates, self.decay = list(rates), decay
        self.buffers = [torch.zeros_like(p) for p, _ in self.rates]

    def step(self, gradients: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for (p, rate), gradient, buffer in zip(self.rates, gradients, self.buffers, strict=True):
                buffer.mul_(0.9).add_(gradient + self.decay * p)
                p.sub_(rate * buffer)


class Adam:
    """m ← β1 m + (1-β1) g, v ← β2 v + (1-β2) g², p ← p - lr · m̂ / (√v̂ + 1e-8), L2 in the gradient."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], decay: float = 0.0) -> None:
        self.parameters, self.lr, self.betas, self.decay = list(parameters), lr, betas, decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    def step(self, gradients: Iterable[Tensor]) -> None:
        self.steps += 1
        b1, b2 = self.betas
        with torch.no_grad():
            for p, gradient, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                g = gradient + self.decay * p
                m.copy_(b1 * m + (1 - b1) * g)
                v.copy_(b2 * v + (1 - b2) * g * g)
                p.sub_(self.lr * (m / (1 - b1**self.steps)) / ((v / (1 - b2**self.steps)).sqrt() + 1e-8))


def check_weights(method: Method, by_hand: Mapping[str, Mapping[str, Tensor]], without: tuple[str, ...] = ()) -> None:
    """Every weight of every module as by hand: 1e-8 of the norm of its tensor."""
    for name, weights in by_hand.items():
        own = dict(method.modules[name].named_parameters())
        assert set(own) == set(weights), name
        for key, expected in weights.items():
            if key in without:
                continue
            distance = float((own[key] - expected).detach().norm())
            assert distance <= EQUAL * float(expected.detach().norm()), (name, key)

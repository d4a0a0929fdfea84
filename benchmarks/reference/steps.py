"""One training step of each method, as published: `reference_of(method)` has the same weights and settings.

A step takes what the published readers give: float32 images (B, 3, H, W), BGR minus mean, and int64 labels (B, H, W).
It returns the losses as Python numbers, as the published programs note them after every step, and the batch's mIoU.
Quirks are off: the same computation as segadapt's default, done the published way.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from reference.losses import (
    SOURCE,
    TARGET,
    BalancedWeights,
    batch_miou,
    cross_entropy_2d,
    domain_bce,
    move_teacher,
    pixel_rows,
    upsampled,
)
from reference.networks import published_segmenter, published_style_transfer
from segadapt.batch import Batch, Images
from segadapt.methods.adaptsegnet import AdaptSegNet
from segadapt.methods.method import Method
from segadapt.methods.se_gan import SeGan
from segadapt.methods.sean import Sean
from segadapt.methods.self_training import SelfTraining
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.methods.supervised import SourceOnly
from segadapt.methods.tgstn import Tgstn
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import CAFFE, Segmenter

Losses = dict[str, float]


@dataclass(frozen=True)
class Examples:
    """One domain's part of a batch."""

    images: Tensor  # (B, 3, H, W) float32, BGR minus mean
    labels: Tensor  # (B, H, W) int64

    def to(self, device: torch.device) -> "Examples":
        """The same on `device`, copied the default way."""
        return Examples(self.images.to(device), self.labels.to(device))


def examples_of(images: Images | None) -> Examples:
    """What a published reader gives for the same images."""
    assert images is not None and images.labels is not None
    return Examples(CAFFE(images.images), images.labels.long())


class ReferenceStep(ABC):
    """A training with its networks and optimizers."""

    modules: dict[str, nn.Module]

    def prepared(self, batch: Batch) -> tuple[Examples, Examples]:
        """(source, target) of a batch of segadapt's."""
        source, target = batch.source or batch.target, batch.target or batch.source
        return examples_of(source), examples_of(target)

    @abstractmethod
    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        """Step `number` (from 0)."""


class ReferenceSegmentation(ReferenceStep):
    """Plain or class-balanced cross-entropy on one domain: source-only and self-training."""

    def __init__(self, method: SourceOnly | SelfTraining, settings: TrainingSettings, auxiliary: float) -> None:
        self.network = published_segmenter(method.network)
        self.network.set_mode(batch_norm=False)
        self.modules = {"network": self.network}
        self.optimizer = segmenter_optimizer(self.network, settings)
        self.auxiliary, self.on_target = auxiliary, isinstance(method, SelfTraining)
        self.balance = BalancedWeights(method.network.classes) if self.on_target else None

    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        given = target if self.on_target else source
        weights = None if self.balance is None else self.balance(given.labels)
        self.optimizer.zero_grad()
        logits = heads_at(self.network, given.images, given.labels.shape[1:])
        seg = joint([cross_entropy_2d(one, given.labels, weights) for one in logits], self.auxiliary)
        seg.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"seg": seg.item(), "total": seg.item(), "miou": batch_miou(logits[-1], given.labels)}


class ReferenceSean(ReferenceStep):
    """Teacher on the target, student on the target, student on the source: three passes."""

    def __init__(self, method: Sean) -> None:
        self.settings = method.settings
        self.student, self.teacher = published_segmenter(method.student), published_segmenter(method.teacher)
        self.modules = {"student": self.student, "teacher": self.teacher}
        self.optimizer = segmenter_optimizer(self.student, method.settings)

    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        s = self.settings
        self.optimizer.zero_grad()
        with torch.no_grad():
            theirs = self.teacher.segment(noisy(target.images, s.noise))
        ours = self.student.segment(noisy(target.images, s.noise))
        assert theirs.attention is not None
        sure = theirs.attention[:, 0] > s.attention_threshold
        consistency = torch.zeros((), device=target.images.device)
        if sure.any():
            p, q = (pixel_rows(F.softmax(output.logits, dim=1), sure) for output in (ours, theirs))
            consistency = F.mse_loss(p, q)
        logits = heads_at(self.student, source.images, source.labels.shape[1:])[-1]
        seg = cross_entropy_2d(logits, source.labels)
        total = seg + s.consistency * consistency
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        move_teacher(self.teacher, self.student, decay_at(number, s.ema, s.ema_warmup))
        numbers = {"seg": seg.item(), "consistency": consistency.item(), "total": total.item()}
        return numbers | {"miou": batch_miou(logits, source.labels)}


class ReferenceSeGan(ReferenceStep):
    """Student, teacher and a discriminator per head; full-size softmax maps of everything."""

    def __init__(self, method: SeGan) -> None:
        self.settings, self.length = method.settings, method.length
        self.student, self.teacher = published_segmenter(method.student), published_segmenter(method.teacher)
        self.players = copy.deepcopy(method.discriminators)
        self.modules = {"student": self.student, "teacher": self.teacher, **self.players}
        self.balance = BalancedWeights(method.student.classes)
        self.optimizer = segmenter_optimizer(self.student, method.settings)
        rate = method.settings.lr_discriminator
        self.optimizers = [Adam(d.parameters(), lr=rate, betas=(0.9, 0.99)) for d in self.players.values()]

    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        s, size = self.settings, target.images.shape[2:]
        for optimizer in (self.optimizer, *self.optimizers):
            optimizer.zero_grad()
        weights = self.balance(source.labels)
        compared = slice(None) if s.auxiliary_consistency else slice(-1, None)
        with torch.no_grad():
            theirs = softmax_maps(heads_at(self.teacher, noisy(target.images, s.noise), size)[compared])
        on_target = softmax_maps(heads_at(self.student, noisy(target.images, s.noise), size))
        on_source = heads_at(self.student, source.images, source.labels.shape[1:])

        seg = joint([cross_entropy_2d(logits, source.labels, weights) for logits in on_source], s.auxiliary)
        disagreements = [F.mse_loss(p, q) for p, q in zip(on_target[compared], theirs, strict=True)]
        consistency = joint(disagreements, s.auxiliary_consistency)
        discriminators = list(self.players.values())
        learning(discriminators, False)
        fooled = [domain_bce(d(p), SOURCE) for d, p in zip(discriminators, on_target, strict=True)]
        adversarial = joint(fooled, s.auxiliary)
        total = seg + s.consistency * consistency + s.adversarial * (1 - number / self.length) * adversarial
        total.backward()  # type: ignore[no-untyped-call]

        learning(discriminators, True)
        of_source = softmax_maps([logits.detach() for logits in on_source])
        numbers = {"seg": seg.item(), "consistency": consistency.item(), "adversarial": adversarial.item()}
        for (name, d), p_source, p_target in zip(self.players.items(), of_source, on_target, strict=True):
            numbers[name] = discriminator_backward(d, p_source, p_target.detach())
        for optimizer in (self.optimizer, *self.optimizers):
            optimizer.step()
        move_teacher(self.teacher, self.student, decay_at(number, s.ema, s.ema_warmup))
        return numbers | {"total": total.item(), "miou": batch_miou(on_source[-1], source.labels)}


class ReferenceAdaptSegNet(ReferenceStep):
    """Source and target one after another, each with a backward of its own, then the discriminators."""

    def __init__(self, method: AdaptSegNet) -> None:
        self.settings, self.weights = method.settings, list(method.levels.values())
        self.network, self.players = published_segmenter(method.network), copy.deepcopy(method.discriminators)
        self.modules = {"network": self.network, **{f"discriminator{i}": d for i, d in self.players.items()}}
        self.optimizer = segmenter_optimizer(self.network, method.settings)
        rate = method.settings.lr_discriminator
        self.optimizers = [Adam(d.parameters(), lr=rate, betas=(0.9, 0.99)) for d in self.players.values()]

    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        discriminators = list(self.players.values())
        for optimizer in (self.optimizer, *self.optimizers):
            optimizer.zero_grad()
        learning(discriminators, False)
        on_source = heads_at(self.network, source.images, source.labels.shape[1:])
        seg = joint([cross_entropy_2d(logits, source.labels) for logits in on_source], self.settings.auxiliary)
        seg.backward()  # type: ignore[no-untyped-call]
        on_target = softmax_maps(heads_at(self.network, target.images, target.images.shape[2:]))
        on_target = on_target[-len(discriminators) :]
        fooled = [domain_bce(d(p), SOURCE) for d, p in zip(discriminators, on_target, strict=True)]
        adversarial = torch.stack([weight * loss for weight, loss in zip(self.weights, fooled, strict=True)]).sum()
        adversarial.backward()  # type: ignore[no-untyped-call]

        learning(discriminators, True)
        of_source = softmax_maps([logits.detach() for logits in on_source[-len(discriminators) :]])
        numbers = {"seg": seg.item(), "total": seg.item() + adversarial.item()}
        for (i, d), loss, p_source, p_target in zip(self.players.items(), fooled, of_source, on_target, strict=True):
            numbers[f"adversarial{i}"] = loss.item()
            numbers[f"discriminator{i}"] = discriminator_backward(d, p_source, p_target.detach())
        for optimizer in (self.optimizer, *self.optimizers):
            optimizer.step()
        return numbers | {"miou": batch_miou(on_source[-1], source.labels)}


class ReferenceTgstn(ReferenceStep):
    """The generator against segmenter and discriminator, then the discriminator on the updated generator."""

    def __init__(self, method: Tgstn) -> None:
        self.settings = s = method.settings
        self.generator = published_style_transfer(method.generator)
        self.segmenter, self.discriminator = published_segmenter(method.segmenter), copy.deepcopy(method.discriminator)
        self.modules = {"generator": self.generator, "discriminator": self.discriminator, "segmenter": self.segmenter}
        self.of_generator = Adam(self.generator.parameters(), lr=s.lr, weight_decay=s.weight_decay)
        self.of_discriminator = Adam(
            self.discriminator.parameters(), lr=s.lr_discriminator, weight_decay=s.weight_decay
        )

    def step(self, number: int, source: Examples, target: Examples) -> Losses:
        s = self.settings
        self.of_generator.zero_grad()
        stylized = self.generator(source.images)
        seen = self.segmenter.segment(stylized)
        before = self.segmenter.segment(source.images)
        size = source.labels.shape[1:]
        logits = upsampled(seen.logits, size, self.segmenter.align_corners)
        semantic = cross_entropy_2d(logits, source.labels)
        perceptual = F.mse_loss(seen.features, before.features.detach())
        adversarial = domain_bce(self.discriminator(stylized), TARGET)
        total = s.semantic * semantic + s.perceptual * perceptual + s.adversarial * adversarial
        total.backward()  # type: ignore[no-untyped-call]
        self.of_generator.step()

        self.of_discriminator.zero_grad()
        stylized = self.generator(source.images).detach()
        fake, real = (domain_bce(self.discriminator(images), SOURCE) for images in (stylized, source.images))
        loss = 0.5 * (fake + real) + domain_bce(self.discriminator(target.images), TARGET)
        loss.backward()  # type: ignore[no-untyped-call]
        self.of_discriminator.step()
        numbers = {"semantic": semantic.item(), "perceptual": perceptual.item(), "adversarial": adversarial.item()}
        numbers |= {"total": total.item(), "discriminator": loss.item()}
        return numbers | {"miou": batch_miou(logits, source.labels)}


def reference_of(method: Method, settings: TrainingSettings) -> ReferenceStep:
    """The reference of a method with these settings, with copies of its networks as they are now."""
    match method:
        case SeGan():
            return ReferenceSeGan(method)
        case Sean():
            return ReferenceSean(method)
        case Tgstn():
            return ReferenceTgstn(method)
        case AdaptSegNet():
            return ReferenceAdaptSegNet(method)
        case SelfTraining():
            return ReferenceSegmentation(method, settings, method.settings.auxiliary)
        case SourceOnly():
            return ReferenceSegmentation(method, settings, method.auxiliary)
    raise AssertionError(type(method))


def segmenter_optimizer(network: Segmenter, settings: TrainingSettings) -> Optimizer:
    """Adam, or SGD with momentum 0.9; the heads may learn faster than the body. PyTorch's default path."""
    assert isinstance(settings, SegmenterSettings)
    heads = network.head_parameters()
    of_heads = {id(parameter) for parameter in heads}
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in of_heads]
    groups: list[dict[str, Any]] = [{"params": body}, {"params": heads, "lr": settings.head_lr * settings.lr}]
    if settings.optimizer == "adam":
        return Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return SGD(groups, lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay)


def heads_at(network: Segmenter, pixels: Tensor, size: torch.Size) -> list[Tensor]:
    """Pixels (B, 3, H, W) -> logits of each head (B, C, *size), the main one last."""
    return [upsampled(head, size, network.align_corners) for head in network.segment(pixels).heads]


def softmax_maps(logits: list[Tensor]) -> list[Tensor]:
    """The probabilities of each head."""
    return [F.softmax(one, dim=1) for one in logits]


def joint(losses: list[Tensor], auxiliary: float) -> Tensor:
    """The main head's loss (the last) plus `auxiliary` times the other one's, where there is one."""
    return losses[-1] if len(losses) == 1 else losses[-1] + auxiliary * losses[0]


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Images plus Gaussian noise, drawn where they are."""
    return images + sigma * torch.randn(images.shape, device=images.device) if sigma else images


def learning(discriminators: list[Discriminator], on: bool) -> None:
    """Whether their parameters get gradients."""
    for d in discriminators:
        for parameter in d.parameters():
            parameter.requires_grad = on


def discriminator_backward(d: Discriminator, source: Tensor, target: Tensor) -> float:
    """Both halves of a discriminator's loss, each with a backward of its own."""
    halves = [0.5 * domain_bce(d(maps), domain) for maps, domain in ((source, SOURCE), (target, TARGET))]
    for half in halves:
        half.backward()  # type: ignore[no-untyped-call]
    return sum(half.item() for half in halves)


def decay_at(number: int, decay: float, warmup: bool) -> float:
    """The decay of the teacher's moving average after step `number`."""
    return min(decay, 1 - 1 / (number + 1)) if warmup else decay

"""What travels from the data to a method's step: images, labels, and what makes each sample's randomness."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images of one domain in one batch."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    labels: Tensor | None  # (B, H, W) uint8 train ids, 255 = ignored; None for an unlabelled domain
    names: tuple[str, ...]
    valid: Tensor | None = None  # (B, H, W) bool, of unlabelled images: where labels may be predicted; None: everywhere

    def to(self, device: torch.device) -> "Images":
        """The same on `device`; copies from pinned memory do not block."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Images":
        """The same in page-locked memory (called by the loader when a GPU is used)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def part(self, start: int, stop: int) -> "Images":
        """Samples start..stop-1."""
        return replace(self._each(lambda tensor: tensor[start:stop]), names=self.names[start:stop])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Images":
        """With each tensor changed."""
        labels, valid = (None if one is None else change(one) for one in (self.labels, self.valid))
        return replace(self, images=change(self.images), labels=labels, valid=valid)


@dataclass(frozen=True)
class Batch:
    """One step's samples of this rank. Sample i of the source stands beside sample i of the target."""

    step: int  # from 0
    seeds: tuple[int, ...]  # one per sample: its noise is a pure function of it, whatever rank draws it
    source: Images | None = None
    target: Images | None = None
    # For what is drawn once for the whole step: the same on every rank and in every micro-batch.
    step_seed: int = field(default=0, kw_only=True)
    # Both kinds of seeds (2, B) int64 on a device that the host runs ahead of: the samples', and the step's repeated.
    words: Tensor | None = field(default=None, kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images, for messages."""
        return tuple(name for images in (self.source, self.target) if images is not None for name in images.names)

    def of(self, domain: Literal["source", "target"]) -> Images:
        """The images of a domain that the method has asked for."""
        images = self.source if domain == "source" else self.target
        assert images is not None, f"the batch holds no {domain} images"
        return images

    def images(self, domain: Literal["source", "target"]) -> Tensor:
        """The images (B, 3, H, W) of a domain."""
        return self.of(domain).images

    def labels(self, domain: Literal["source", "target"]) -> Tensor:
        """The labels (B, H, W) of a domain that has some."""
        labels = self.of(domain).labels
        assert labels is not None, f"the {domain} images have no labels"
        return labels

    def seeds_on(self, device: torch.device) -> Tensor:
        """The samples' seeds (B,) int64, on the device of the images."""
        return torch.tensor(self.seeds, device=device) if self.words is None else self.words[0]

    def step_seeds_on(self, device: torch.device) -> Tensor:
        """The step's seed (B,) int64, the same for each sample, on the device of the images."""
        if self.words is None:
            return torch.full((len(self.seeds),), self.step_seed, dtype=torch.int64, device=device)
        return self.words[1]

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        source = None if self.source is None else self.source.to(device)
        return replace(self, source=source, target=None if self.target is None else self.target.to(device))

    def ahead_on(self, device: torch.device) -> "Batch":
        """The same on `device`, its seeds too, so that nothing in its step must wait for them to get there."""
        words = torch.tensor([self.seeds, [self.step_seed] * len(self.seeds)], pin_memory=device.type == "cuda")
        return replace(self.to(device), words=words.to(device, non_blocking=True))

    def tensors(self) -> list[Tensor]:
        """All that is on the device, in an order that its kind of batch always has."""
        found = [self.words]
        for images in (self.source, self.target):
            found += [] if images is None else [images.images, images.labels, images.valid]
        return [tensor for tensor in found if tensor is not None]

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory."""
        source = None if self.source is None else self.source.pin_memory()
        return replace(self, source=source, target=None if self.target is None else self.target.pin_memory())

    def split(self, parts: int) -> list["Batch"]:
        """`parts` equal micro-batches, for gradient accumulation; `parts` divides the number of samples."""
        size = len(self.seeds) // parts
        assert size * parts == len(self.seeds), (parts, len(self.seeds))
        micro_batches = []
        for start in range(0, len(self.seeds), size):
            stop = start + size
            source = None if self.source is None else self.source.part(start, stop)
            target = None if self.target is None else self.target.part(start, stop)
            words = None if self.words is None else self.words[:, start:stop]
            part = replace(self, seeds=self.seeds[start:stop], source=source, target=target, words=words)
            micro_batches.append(part)
        return micro_batches

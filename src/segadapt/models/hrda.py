"""HRDA (Hoyer et al., ECCV 2022, arXiv 2204.13132): one network sees the whole image small, and crops of it in full.

    context  C = f(whole image at half its size)              logits at stride 8 of the image
    detail   D = f(a crop, or overlapping windows)            logits at stride 4, zero where nothing was seen
    scale attention  a = σ(g(context features))               per class, zero outside the crop
    fused    up((1 - a) · C) + up(a) · D                       logits at stride 4

Around any segmenter that has an encoder and a decoder. In train mode a pass sees one crop of each image, drawn anew at
each pass from the samples' seeds, whose logits are also a `Detail` with a loss of their own: 0.9 · CE(fused) +
0.1 · CE(detail). In eval mode (a mean teacher, inference) the detail is overlapping windows in one batch, whose logits
are averaged. Sides that are no multiples of 8 are stretched to the next one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.losses import precise
from segadapt.models import bilinear
from segadapt.models.choice import build, chosen, name_of, plain
from segadapt.models.daformer import DaformerHead, fold_norms
from segadapt.models.segmenter import IMAGENET, Box, Detail, NetworkOptions, Segmenter, SegOutput
from segadapt.sample_randomness import numbers

WIDTH, DROPOUT = 256, 0.1  # of the scale attention; the network's, where it has them
PREFIX = "network."
"""What the names of the inner network's parameters begin with."""


class HrdaOptions(NetworkOptions):
    """What a recipe may choose about `hrda`."""

    of: str | dict[str, Any] = Field("segformer", description="the network that sees both views, with its options")
    context: float = Field(0.5, gt=0, lt=1, description="scale of the whole image: 1/2, 1/3, 1/4, …")
    detail: float | tuple[int, int] = Field(
        0.5, description="size of the crop: a share of the image's sides, or width and height in pixels"
    )
    detail_weight: float = Field(0.1, ge=0, lt=1, description="weight of the crop's own loss")
    boxes: Literal["image", "batch"] = Field(
        "image",
        description="image: each image has its own crop; batch: one crop for all images of a step, as published",
    )
    reach_border: bool = Field(
        True, description="whether crops reach the right and the lower border; the published ones never do"
    )

    def inner_networks(self) -> Sequence[str | dict[str, Any]]:
        return (self.of,)

    @field_validator("of")
    @classmethod
    def _plain(cls, of: str | dict[str, Any]) -> str | dict[str, Any]:
        if name_of(of) == "hrda":
            raise ValueError("it cannot be hrda itself")
        return plain(of)

    @field_validator("context")
    @classmethod
    def _whole(cls, context: float) -> float:
        if abs(1 / context - round(1 / context)) > 1e-6:
            raise ValueError("it must be 1/2, 1/3, 1/4, …")
        return context

    @field_validator("detail")
    @classmethod
    def _positive(cls, detail: float | tuple[int, int]) -> float | tuple[int, int]:
        if isinstance(detail, tuple):
            if min(detail) < 1:
                raise ValueError("it must be positive")
        elif not 0 < detail <= 1:
            raise ValueError("a share must be above 0, and at most 1")
        return detail


class Hrda(Segmenter):
    """HRDA around `options.of`; see the top of this file.

    Its scales and features are the context's, and so is attention, where a method has it. Of a network with several
    heads it has the main one.
    """

    Options = HrdaOptions
    title = "HRDA"
    pixels = IMAGENET  # an instance has those of its network, and its stride
    stride = 4

    def __init__(self, classes: int, attention: bool = False, options: HrdaOptions | None = None) -> None:
        options = HrdaOptions() if options is None else options
        kind: Any = chosen(options.of)[0]  # mypy does not know that classes are hashable
        scales, features = channels(json.dumps(options.of, sort_keys=True), kind, classes)
        super().__init__(classes, features, attention, options)
        self.chosen = options
        self.network = build(options.of, classes=classes)
        inner = self.network.options
        width, dropout = getattr(inner, "width", WIDTH), getattr(inner, "dropout", DROPOUT)
        self.scale_attention = DaformerHead(scales, classes, width, dropout, context=False)
        self.pixels, self.stride = self.network.pixels, self.network.stride
        self.unit = round(self.stride / options.context)  # pixels of a cell of the context's logits
        self._given: list[tuple[Box, ...]] = []

    # --- a pass ---

    def segment(self, pixels: Tensor) -> SegOutput:
        if torch.compiler.is_exporting():  # of one size, with windows alone: an exporter refuses the exemption below
            return self._seen_twice(pixels)
        output: SegOutput = self._seen_twice_eagerly(pixels)
        return output

    def _seen_twice(self, pixels: Tensor) -> SegOutput:
        original, pixels = pixels.shape[-2:], self._stretched(pixels)
        size = pixels.shape[-2:]
        each = self.training or bool(self._given)  # a crop of each image; else windows over all images
        boxes = self.draw_boxes(len(pixels), size) if each else self.windows(size)
        small = self._small(pixels)
        detailed = cropped(pixels, boxes, each)
        scales, detail_scales = self.network.encode_scales(small), self.network.encode_scales(detailed)
        features, attention, context = self._decoded(scales, small.shape[-2:])
        detail = self._decoded(detail_scales, detailed.shape[-2:])[2]
        trust = torch.sigmoid(self._on_cells(self.scale_attention(scales), small.shape[-2:]))
        if each:
            trust = trust * self._mask(trust, boxes)
        whole = self._placed(detail, boxes, size) if each else self._averaged(detail, boxes, size)
        fused = self.fused(context, trust, whole)
        if attention is not None:
            attention = self.upsample(attention, fused.shape[-2:])
        details = (Detail(detail, tuple(scaled(boxes, size, original)), self.chosen.detail_weight),) if each else ()
        return SegOutput((fused,), attention, features, scales, details)

    # Not compiled as a whole: code would be made for each box. What it calls is compiled, but for what handles boxes.
    _seen_twice_eagerly = torch.compiler.disable(recursive=False)(_seen_twice)  # type: ignore[no-untyped-call]

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) -> the encoder's features of the context, as `SegOutput.scales` has them."""
        return self.network.encode_scales(self._small(self._stretched(pixels)))

    def fused(self, context: Tensor, trust: Tensor, detail: Tensor) -> Tensor:
        """up((1 - a) · C) + up(a) · D: context, scale attention (B, C, h, w), detail (B, C, h', w') -> its shape."""
        size = detail.shape[-2:]
        return self.upsample((1 - trust) * context, size) + self.upsample(trust, size) * detail

    def _decoded(self, scales: tuple[Tensor, ...], size: tuple[int, ...]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features, attention and logits, these on cells, of a view of `size` pixels."""
        features = self.network.decode(scales)
        attention = None if self.attention is None else self.attention(features)
        logits = self.network.heads(features if attention is None else (1 + attention) * features)[-1]
        return features, attention, self._on_cells(logits, size)

    def _on_cells(self, logits: Tensor, size: tuple[int, ...]) -> Tensor:
        """Logits of a view of `size` pixels -> (B, C, h / stride, w / stride), each the mean of its pixels.

        They are as they come, but for a network that aligns corners, or rounds the sides of its logits otherwise.
        """
        logits, corners = precise(logits), self.network.align_corners
        if not corners and all(have * self.stride == side for have, side in zip(logits.shape[-2:], size, strict=True)):
            return logits
        rows, columns = (
            bilinear.matrix(have, side, corners, logits).view(side // self.stride, self.stride, have).mean(1)
            for have, side in zip(logits.shape[-2:], size, strict=True)
        )
        return rows @ (logits @ columns.T)

    def _stretched(self, pixels: Tensor) -> Tensor:
        """Pixels at the next multiples of `unit`."""
        size = [-(-side // self.unit) * self.unit for side in pixels.shape[-2:]]
        return pixels if list(pixels.shape[-2:]) == size else resized(pixels, size)

    def _small(self, pixels: Tensor) -> Tensor:
        """The whole image at the context's scale."""
        return resized(pixels, [side * self.stride // self.unit for side in pixels.shape[-2:]])

    def _cells(self, box: Box, pixels: int) -> tuple[slice, slice]:
        """The rows and columns of a box in a tensor whose cells have so many pixels."""
        top, bottom, left, right = (side // pixels for side in box)
        return slice(top, bottom), slice(left, right)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _mask(self, like: Tensor, boxes: Sequence[Box]) -> Tensor:
        """(B, 1, h, w) at the context's cells: 1 in each image's box, 0 elsewhere."""
        mask = torch.zeros_like(like[:, :1])
        for one, box in zip(mask, boxes, strict=True):
            one[(..., *self._cells(box, self.unit))] = 1
        return mask

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _placed(self, detail: Tensor, boxes: Sequence[Box], size: Sequence[int]) -> Tensor:
        """Logits of a crop of each image at its place in zeros: (B, C, H / stride, W / stride)."""
        whole = detail.new_zeros(*detail.shape[:2], *(side // self.stride for side in size))
        for i, box in enumerate(boxes):
            whole[(i, ..., *self._cells(box, self.stride))] = detail[i]
        return whole

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _averaged(self, detail: Tensor, boxes: Sequence[Box], size: Sequence[int]) -> Tensor:
        """Logits of windows over all images, window by window: their mean (B, C, H / stride, W / stride)."""
        parts = detail.view(len(boxes), -1, *detail.shape[1:])
        whole = detail.new_zeros(*parts.shape[1:3], *(side // self.stride for side in size))
        count = detail.new_zeros(whole.shape[-2:])
        for part, box in zip(parts, boxes, strict=True):
            here = self._cells(box, self.stride)
            whole[(..., *here)] += part
            count[here] += 1
        return whole / count

    # --- crops ---

    def crop_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of crops of an image of this height and width: multiples of `unit`, at most the image."""
        detail, least = self.chosen.detail, self.network.smallest_input
        wanted = [side * detail for side in size] if isinstance(detail, float) else [*reversed(detail)]
        height, width = (
            min(side, max(round(want / self.unit), -(-least // self.unit)) * self.unit)
            for side, want in zip(size, wanted, strict=True)
        )
        return height, width

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw_boxes(self, images: int, size: Sequence[int]) -> tuple[Box, ...]:
        """A crop for each image, drawn on the host, or what `boxes` has said."""
        if self._given:
            given = self._given.pop(0)
            return given if len(given) == images else given * images
        crop, found = self.crop_size(size), []
        for number in numbers(images, shared=self.chosen.boxes == "batch"):
            top, left = (
                self._offset(word, side - part)
                for word, side, part in zip((number >> 32, number & 0xFFFFFFFF), size, crop, strict=True)
            )
            found.append((top, top + crop[0], left, left + crop[1]))
        return tuple(found)

    def _offset(self, word: int, spare: int) -> int:
        """A multiple of `unit` from 32 random bits, 0 … `spare`."""
        places = spare // self.unit + 1 if self.chosen.reach_border else max(1, (spare + 1) // self.unit)
        return self.unit * (word * places >> 32)

    @contextmanager
    def boxes(self, *passes: Sequence[Box]) -> Iterator[None]:
        """Context in which the next passes have these crops, in train mode or not: of each pass one, or one per image.

        Their sides are multiples of `unit`.
        """
        self._given = [tuple(one) for one in passes]
        try:
            yield
        finally:
            self._given = []

    def windows(self, size: Sequence[int]) -> tuple[Box, ...]:
        """Crops that cover an image, row by row, each half a crop from the next; the last ones end at its borders."""
        height, width = crop = self.crop_size(size)
        tops, lefts = (starts(side, part, self.unit) for side, part in zip(size, crop, strict=True))
        return tuple((top, top + height, left, left + width) for top in tops for left in lefts)

    # --- what it says about itself ---

    @property
    def smallest_input(self) -> int:
        return -(-self.network.smallest_input * self.unit // self.stride)

    @property
    def checkpointing(self) -> bool:
        return self.network.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        self.network.checkpointing = value

    def traits(self) -> dict[str, bool]:
        return self.network.traits()

    def take_traits(self, traits: Mapping[str, bool]) -> None:
        self.network.take_traits(traits)

    def for_inference(self) -> Self:
        """See `Segmenter.for_inference`: as the inner network has it, and the scale attention's batch norm folded."""
        network = super().for_inference()
        network.network = self.network.for_inference()
        fold_norms(network.scale_attention)
        return network

    def head_parameters(self) -> list[nn.Parameter]:
        """The inner network's, and the scale attention."""
        return [*self.network.head_parameters(), *self.scale_attention.parameters()]

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """The inner network's, as published: all of the scale attention decays."""
        return self.network.no_decay_parameters()

    @property
    def number_of_depths(self) -> int:
        return self.network.number_of_depths

    def depth_of(self, name: str) -> int:
        inner = name.removeprefix(PREFIX)
        return self.number_of_depths if inner == name else self.network.depth_of(inner)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def cropped(pixels: Tensor, boxes: Sequence[Box], each: bool) -> Tensor:
    """A crop of each of the images (B, 3, H, W), or crops of all of them, box by box."""
    if each:
        return torch.stack([one[:, t:b, left:r] for one, (t, b, left, r) in zip(pixels, boxes, strict=True)])
    return torch.cat([pixels[..., t:b, left:r] for t, b, left, r in boxes])


def resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, without antialiasing, as published."""
    return F.interpolate(pixels, size=list(size), mode="bilinear", align_corners=False)


def starts(side: int, part: int, unit: int) -> list[int]:
    """Where windows of `part` pixels begin along a side: half a window apart in whole units, the last at the end."""
    step = max(1, part // 2 // unit) * unit
    return [*range(0, side - part, step), side - part]


def scaled(boxes: Sequence[Box], size: Sequence[int], wanted: Sequence[int]) -> Iterator[Box]:
    """Boxes of an image of `size` in the pixels of the same at size `wanted`, rounded; they stay of one size."""
    rows, columns = (new / old for new, old in zip(wanted, size, strict=True))
    for top, bottom, left, right in boxes:
        height, width = round((bottom - top) * rows), round((right - left) * columns)
        top, left = min(round(top * rows), wanted[0] - height), min(round(left * columns), wanted[1] - width)
        yield top, top + height, left, left + width


@cache
@torch.no_grad()
def channels(choice: str, kind: type[Segmenter], classes: int) -> tuple[tuple[int, ...], int]:
    """The channels of the encoder's scales and of the features of a network, a choice as JSON.

    Asked of one on the meta device, which takes about a second: once for each choice, and for what `kind` of network
    its name stands for, since a plug-in may be loaded anew.
    """
    with torch.device("meta"):
        network = build(json.loads(choice), classes=classes)
    side = network.smallest_input
    scales = network.eval().encode_scales(torch.empty(1, 3, side, side, device="meta"))
    return tuple(scale.shape[1] for scale in scales), network.decode(scales).shape[1]

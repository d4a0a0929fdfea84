"""From one image to its labels: whole, mirrored, at several scales, or through a sliding window.

The published evaluation (SEAN, SE-GAN) is the default: the image is resized to the network's input size with Pillow's
bicubic filter, the logits are upsampled to the output size by the network's own corner rule, and each pixel takes the
class of its largest logit. With several views (scales, mirror images) the upsampled softmax outputs are averaged; the
published programs have their own rules for this (`ViewRules`).

Images are processed one at a time, or in small batches. By default this takes shortcuts that give the same numbers up
to rounding: batch norm is folded into the convolutions, an image and its mirror image share a call of the network, and
on a CPU full-size logits are computed a few rows at a time. `plain=True` does everything step by step, as the published
programs do.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segadapt.inference.memory import images_within, need_memory
from segadapt.inference.networks import Precision, ready
from segadapt.inference.replay import Replayed
from segadapt.inference.row_blocks import row_blocks
from segadapt.inference.transfers import pixels_on
from segadapt.inference.windows import blended
from segadapt.losses import precise
from segadapt.models.segmenter import Segmenter
from segadapt.quirks import QuirkySettings

QUADRANTS_FROM = 1.5  # the scale from which `ViewRules.quadrants` cuts the input


@dataclass(frozen=True)
class ViewRules:
    """How several views are combined into one softmax output, and several windows into one view.

    All off: each view is upsampled to the output size, then softmax, then the mean. The published SE-GAN program has
    the first three on; one view alone is always treated as its evaluation does. HRDA's and MIC's has the last one on.
    """

    quadrants: bool = False  # scales from 1.5 run as four quadrants; of a mirror image, the whole is mirrored, then cut
    softmax_order: bool = False  # all views but the plain one: softmax first, then upsampled
    sum_at_input: bool = False  # views are summed at the network's input size, the sum is upsampled to the output size
    half_windows: bool = False  # windows begin half a window apart, and the mean of their logits is taken

    @classmethod
    def of(cls, settings: QuirkySettings) -> "ViewRules":
        """From the quirks of a stage; those that its method does not have are off."""
        return cls(**{rule.name: settings.quirk(rule.name) for rule in fields(cls)})

    @property
    def names(self) -> list[str]:
        """The rules that are on."""
        return [name for name, on in vars(self).items() if on]


PUBLISHED_RULES = ViewRules(quadrants=True, softmax_order=True, sum_at_input=True)

Pixels = NDArray[np.uint8]
"""An image, RGB (H, W, 3)."""
OutputSizes = Sequence[tuple[int, int] | None]
"""(W', H') of the result for each image; None: its own."""
View = tuple[float, bool]
"""Scale, and whether mirrored."""
ViewLogits = tuple[View, Tensor]
"""A view and its logits, at native stride or (sliding windows) at the size of the input."""
PLAIN_VIEW: View = (1.0, False)
Scores = Iterator[tuple[slice, Tensor]]
"""Rows of the output, and their values (1, C, n, W')."""


class Predictor:
    """A network together with how it processes images.

    `size` (W, H) is the network's input size; `scales` multiply it; `mirror` adds the mirror image of every scale;
    `window` (w, h) cuts each scaled input into overlapping windows, for inputs larger than the network should see at
    once. `device` moves the network (None: where it is); with `precision="bf16"` it runs under autocast, and its logits
    become float32 before anything else happens to them. `rules` say how several views are put together. `batch` is how
    many images go through at once where there are many, None: as many as pay (see `at_once`).

    Unless `plain`, an inference copy of the network in its current state runs. The network itself, including its train
    or eval mode, is unchanged after each call.

    Raises ValueError for a size, scale or window that is not positive, UsageError for an input that is too large for
    the memory that is free.
    """

    def __init__(
        self,
        network: Segmenter,
        size: tuple[int, int],
        *,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        window: tuple[int, int] | None = None,
        rules: ViewRules = ViewRules(),
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        plain: bool = False,
        batch: int | None = None,
    ) -> None:
        if batch is not None and batch < 1:
            raise ValueError(f"{batch} is not a batch size")
        if min(size) < 1 or not scales or min(scales) <= 0 or (window is not None and min(window) < 1):
            raise ValueError(f"size {size}, scales {scales} and window {window} must be positive")
        network.need_size(*size, where="size")
        if window is not None:
            network.need_size(*window, where="window")
        self.network = network if device is None else network.to(device)
        self.size, self.scales, self.mirror, self.window, self.rules = size, tuple(scales), mirror, window, rules
        self.device = next(network.parameters()).device
        self.precision, self.plain = precision, plain
        self._running_network = network if plain else ready(network.for_inference(), precision)
        # Not a bound method: a predictor in a reference cycle would keep its network until the garbage collector runs.
        native = partial(_native_logits, self._running_network, precision)
        self._pass = native if plain or self.device.type != "cuda" else Replayed(native)
        self.views = [
            (scale, mirrored) for scale in self.scales for mirrored in ((False, True) if mirror else (False,))
        ]
        self._wanted = batch
        remedy = "Give a smaller size or batch, or slide a window over it: --window 1024x1024, window=(1024, 1024)."
        need_memory(self._running_network, *self._largest_pass(self.at_once(batch or 1)), self.device, remedy)

    @property
    def applied_rules(self) -> list[str]:
        """The rules that matter here: those about views where there are several, about windows where one slides."""
        several, slides = len(self.views) > 1, self.window is not None
        return [name for name in self.rules.names if (slides if name == "half_windows" else several)]

    @cached_property
    def batch(self) -> int:
        """How many images go through the network at once where there are several, see `at_once`."""
        return self.at_once(self._wanted)

    def at_once(self, wanted: int | None) -> int:
        """How many images go through the network at once: `wanted`, or as many as pay.

        None means one on a CPU, which is no faster with several, and if `plain`; on a GPU up to four, by the sizes of
        network and input alone. It is one in any case for several views through windows: their logits are as large as
        the input, and summed one view after another.
        """
        if self.window is not None and len(self.views) > 1:
            return 1
        if wanted is not None or self.plain or self.device.type == "cpu":
            return wanted or 1
        return images_within(self._running_network, *self._largest_pass(1))

    def _largest_pass(self, images: int) -> tuple[tuple[int, int, int, int], torch.dtype, int]:
        """Shape and dtype of the largest input of the network for so many images, and the bytes that lie beside it."""
        width, height = (max(self.network.smallest_input, round(side * max(self.scales))) for side in self.size)
        whole = images * width * height * (12 + 4 * self.network.classes * (self.window is not None))  # input, scores
        if self.window is not None:
            width, height = min(width, self.window[0]), min(height, self.window[1])
        passed = images * (2 if self.mirror and not self.plain else 1)
        return (passed, 3, height, width), torch.uint8, whole

    def labels(self, image: Pixels, output_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """uint8 RGB (H, W, 3) -> train ids uint8 (H', W'); `output_size` (W', H') is the image's own by default."""
        return self.label_map(image, output_size).cpu().numpy()

    def label_map(self, image: Pixels, output_size: tuple[int, int] | None = None) -> Tensor:
        """As `labels`, on the device, for which the host does not wait."""
        return self.label_maps([image], [output_size])[0]

    def label_maps(self, images: Sequence[Pixels], output_sizes: OutputSizes) -> list[Tensor]:
        """As `label_map`, of images that the network sees in one batch."""
        with self._running():
            return [self._most_likely(scores, size) for scores, size in self._each(images, output_sizes)]

    def rated_label_maps(
        self, images: Sequence[Pixels], output_sizes: OutputSizes, every: int
    ) -> list[tuple[Tensor, Tensor]]:
        """As `label_maps`, and the probability of the class at every `every`-th pixel of every `every`-th row.

        float32 (⌈H' / every⌉, ⌈W' / every⌉) in 0 … 1, on the device: of all pixels it would take as long as the labels.
        """
        found = []
        with self._running():
            for scores, size in self._each(images, output_sizes):
                sampled = torch.empty((self.network.classes, *(-(-side // every) for side in size)), device=self.device)
                labels = self._most_likely(_sampled(scores, sampled, every), size)
                several = len(self.views) > 1  # whose scores are the sum of softmax maps
                rated = sampled / len(self.views) if several else sampled.softmax(dim=0)
                found.append((labels, rated.amax(dim=0)))
        return found

    def probabilities(self, image: Pixels, output_size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """uint8 RGB (H, W, 3) -> float32 (C, H', W') that sums to 1 over the classes."""
        return self.batch_probabilities([image], [output_size])[0]

    def batch_probabilities(
        self, images: Sequence[Pixels], output_sizes: OutputSizes | None = None
    ) -> list[NDArray[np.float32]]:
        """As `probabilities`, of images that the network sees in one batch."""
        found = []
        with self._running():
            for scores, size in self._each(images, output_sizes or [None] * len(images)):
                whole = torch.empty((self.network.classes, *size), dtype=torch.float32, device=self.device)
                for rows, probabilities in self._probabilities(scores):
                    whole[:, rows] = probabilities[0]
                found.append(whole.cpu().numpy())
        return found

    def confident_labels(
        self, image: Pixels, output_size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """uint8 RGB (H, W, 3) -> train ids uint8 (H', W') and the probability of each, float32 (H', W') in 0..1."""
        labels, confidence = self.confident_label_maps([image], [output_size])[0]
        return labels.cpu().numpy(), confidence.cpu().numpy()

    def confident_label_maps(self, images: Sequence[Pixels], output_sizes: OutputSizes) -> list[tuple[Tensor, Tensor]]:
        """As `confident_labels`, on the device, of images that the network sees in one batch."""
        found = []
        with self._running():
            for scores, size in self._each(images, output_sizes):
                confidence = torch.empty(size, dtype=torch.float32, device=self.device)
                labels = torch.empty(size, dtype=torch.uint8, device=self.device)
                for rows, probabilities in self._probabilities(scores):
                    highest = probabilities[0].max(dim=0)
                    confidence[rows], labels[rows] = highest.values, highest.indices
                found.append((labels, confidence))
        return found

    def attention(self, image: Pixels, output_size: tuple[int, int] | None = None) -> NDArray[np.float32] | None:
        """uint8 RGB (H, W, 3) -> attention float32 (H', W') in (0, 1), whole image; None if the network has none."""
        with self._running():
            with _autocast(self.device, self.precision):
                attention = self._running_network(self._pixels([image])).attention
            if attention is None:
                return None
            attention = self.network.upsample(attention.float(), _height_width(image, output_size))
            return attention[0, 0].cpu().numpy()

    def logits(self, image: Pixels) -> Tensor:
        """uint8 RGB (H, W, 3) -> float32 logits (1, C, h, w) at native stride on the device: one view, whole."""
        return self.batch_logits([image])

    def batch_logits(self, images: Sequence[Pixels]) -> Tensor:
        """As `logits`, of images that the network sees in one batch: (B, C, h, w)."""
        with self._running():
            return self._pass(self._pixels(images))

    def label_map_from(self, logits: Tensor, output_size: tuple[int, int]) -> Tensor:
        """Native logits (1, C, h, w) -> train ids uint8 (H', W') on the device, as `labels` for one whole view."""
        with self._running():
            size = (output_size[1], output_size[0])
            return self._most_likely(self._upsampled([logits], size, several=False), size)

    def resized(self, image: Pixels) -> NDArray[np.uint8]:
        """uint8 RGB (H, W, 3) at the network's input size, bicubic: what every method here does first.

        A thread that reads images may do it, then give the `output_size`. Raises ValueError for what is no such image.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}")
        if (image.shape[1], image.shape[0]) == self.size:
            return image
        return np.asarray(Image.fromarray(image).resize(self.size, Image.Resampling.BICUBIC))

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Eval mode without gradients, on the device; afterwards every module is in the mode it was in."""
        training = [module for module in self._running_network.modules() if module.training]
        self._running_network.eval()
        try:
            # Recording happens on the current GPU, which need not be the network's.
            on_gpu = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
            with torch.inference_mode(), on_gpu:
                yield
        finally:
            for module in training:
                module.training = True

    def _pixels(self, images: Sequence[Pixels]) -> Tensor:
        """uint8 RGB (H, W, 3), B of them -> uint8 (B, 3, *size) on the device."""
        return pixels_on([self.resized(image) for image in images], self.device)

    def _each(self, images: Sequence[Pixels], output_sizes: OutputSizes) -> Iterator[tuple[Scores, tuple[int, int]]]:
        """The scores of each image, from passes of all of them, and the size (H', W') that they have."""
        views: Iterable[ViewLogits] = self._views(self._pixels(images))
        if len(images) > 1:
            views = list(views)  # of one image, each view's are summed before the next one is seen
        for number, (image, output_size) in enumerate(zip(images, output_sizes, strict=True)):
            size = _height_width(image, output_size)
            own = ((view, logits[number : number + 1]) for view, logits in views)
            yield self._scores(own, size), size

    def _probabilities(self, scores: Scores) -> Scores:
        """Rows with probabilities (1, C, n, W') that sum to 1 over the classes: the mean over all views."""
        for rows, block in scores:
            yield rows, block.softmax(dim=1) if len(self.views) == 1 else block.div_(len(self.views))

    def _scores(self, views: Iterable[ViewLogits], size: tuple[int, int]) -> Scores:
        """Rows with scores (1, C, n, W'): upsampled logits of the only view, or the sum of all views' softmax."""
        rules = self.rules
        if len(self.views) == 1 or not (rules.softmax_order or rules.sum_at_input):
            yield from self._upsampled((logits for _, logits in views), size, several=len(self.views) > 1)
            return
        summed = (self.size[1], self.size[0]) if rules.sum_at_input else size
        total = torch.zeros((1, self.network.classes, *summed), device=self.device)
        for view, logits in views:
            if rules.softmax_order and view != PLAIN_VIEW:
                total += self.network.upsample(logits.softmax(dim=1), summed)
            else:
                total += self.network.upsample(logits, summed).softmax(dim=1)
        yield slice(None), total if summed == size else self.network.upsample(total, size)

    def _upsampled(self, views: Iterable[Tensor], size: tuple[int, int], several: bool) -> Scores:
        """The scores of `_scores` from the logits (1, C, h, w) of each view."""
        # Logits from a sliding window are as large as the input: they are summed view by view, not kept.
        if not self.plain and self.device.type == "cpu" and not (several and self.window):
            yield from row_blocks(list(views), size, self.network.align_corners)
            return
        total: Tensor | None = None
        for logits in views:
            scores = self.network.upsample(logits, size)
            if several:
                scores = scores.softmax(dim=1)
            total = scores if total is None else total.add_(scores)
        assert total is not None
        yield slice(None), total

    def _most_likely(self, scores: Scores, size: tuple[int, int]) -> Tensor:
        """Train ids uint8 (H', W'). `max` gives the same indices as `argmax`, four times faster on a CPU."""
        labels = torch.empty(size, dtype=torch.uint8, device=self.device)
        for rows, block in scores:
            labels[rows] = block[0].max(dim=0).indices
        return labels

    def _views(self, pixels: Tensor) -> Iterator[ViewLogits]:
        """Pixels (B, 3, H, W) -> each view with its logits (B, C, h, w), mirrored back."""
        for scale in self.scales:
            scaled = self._scaled(pixels, scale)
            quadrants = self.rules.quadrants and len(self.views) > 1 and scale >= QUADRANTS_FROM
            logits_of = self._quadrants if quadrants else self._slide
            if not self.mirror:
                yield (scale, False), logits_of(scaled)
            elif self.plain:
                yield (scale, False), logits_of(scaled)
                yield (scale, True), logits_of(scaled.flip(-1)).flip(-1)
            else:
                both = logits_of(torch.cat((scaled, scaled.flip(-1))))
                yield (scale, False), both[: len(pixels)]
                yield (scale, True), both[len(pixels) :].flip(-1)

    def _scaled(self, pixels: Tensor, scale: float) -> Tensor:
        """Pixels (B, 3, H, W) -> (B, 3, scale · H, scale · W), rounded."""
        if scale == 1.0:
            return pixels
        height, width = (max(self.network.smallest_input, round(side * scale)) for side in pixels.shape[-2:])
        return self.network.upsample(pixels.float(), (height, width))

    def _quadrants(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> logits of the four quadrants, computed separately, side by side: (B, C, 2h, 2w)."""
        halves = (half for row in pixels.tensor_split(2, dim=2) for half in row.tensor_split(2, dim=3))
        top_left, top_right, bottom_left, bottom_right = (self._slide(half) for half in halves)
        return torch.cat(
            (torch.cat((top_left, top_right), dim=3), torch.cat((bottom_left, bottom_right), dim=3)), dim=2
        )

    def _slide(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> logits (B, C, h, w); blended (B, C, H, W) where the window is smaller."""
        height, width = pixels.shape[-2:]
        window = self.window or (width, height)
        if window[0] >= width and window[1] >= height:
            return self._pass(pixels)
        return blended(self.network, self._pass, pixels, window, self.rules.half_windows)


def _native_logits(network: Segmenter, precision: Precision, pixels: Tensor) -> Tensor:
    """Pixels uint8 or float (B, 3, H, W) -> the main head's logits (B, C, h, w) at native stride, float32."""
    with _autocast(pixels.device, precision):
        logits: Tensor = network(pixels).logits
    return precise(logits).contiguous()


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _height_width(image: Pixels, output_size: tuple[int, int] | None) -> tuple[int, int]:
    width, height = output_size or (image.shape[1], image.shape[0])
    return height, width


def _sampled(scores: Scores, into: Tensor, every: int) -> Scores:
    """The same scores; those of every `every`-th pixel of every `every`-th row are also copied into (C, h, w)."""
    for rows, block in scores:
        top = rows.start or 0
        some = block[0, :, -top % every :: every, ::every]
        first = -(-top // every)
        into[:, first : first + some.shape[1]] = some
        yield rows, block

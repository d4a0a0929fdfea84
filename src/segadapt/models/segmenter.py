"""The contract of every segmentation network.

    network(images)   images (B, 3, H, W), RGB, uint8 or float in 0..255 (noise may leave that range)
      -> SegOutput    logits: one (B, C, h, w) per head, the last is the main head; h, w at the native stride
                      attention: (B, 1, h, w) in (0, 1), or None when the network has none
                      features: (B, F, h, w), the heads' input before attention
                      scales: the encoder's features from fine to coarse, the last the deepest
                      details: in training, logits of crops that have their own loss (HRDA); otherwise empty
    network.upsample(logits, (H, W))   the network's own bilinear rule (align corners or not)

With a 1024×512 input, DeepLab VGG-16 gives logits (B, 19, 64, 128).

A network owns its pixel format: data sets yield uint8 RGB, and the conversion (Caffe: BGR minus mean; ImageNet:
(x/255 - mean)/std) is the network's first operation, so that an exported model carries it. Losses never resize.

To add your own network: subclass `Segmenter`, set `pixels` and `stride`, implement `encode` and `heads`, and
register it with `segadapt.register_network`. It then supports attention (SEAN, AAAI 2019) without further code. A
network may also define the following members; each has a default that suits a simple network:

    Options, options           its options in recipes: `network: {name: my_net, width: 64}`
    encode_scales, decode      instead of `encode`: an encoder with several scales, and the heads' features from them
    smallest_input             by default the stride
    head_parameters            the parameters to which `head_lr` applies
    no_decay_parameters        the parameters that a recipe may exempt from weight decay
    number_of_depths, depth_of the depth of each parameter, for layer-wise learning rates
    published_body             how a published program passes the body's parameters to its optimizer
    traits, take_traits        properties that depend on its weights but are not tensors
    token_grid                 if it can process an image with some of its patches hidden

A network whose heads see different features also overrides `segment`. For activation checkpointing, `encode` passes
its activations through `through`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segadapt.batch_norm import batch_norms, set_learning
from segadapt.errors import UsageError
from segadapt.losses import precise
from segadapt.models import bilinear
from segadapt.models.folding import fold_sequences
from segadapt.sample_randomness import DrawnAgain, draws
from segadapt.settings import Settings


@dataclass(frozen=True)
class PixelFormat:
    """A network's input pixels: channel order, and (x - mean) / std per channel, in units of 0..255."""

    name: str
    order: str  # "rgb" or "bgr"
    mean: tuple[float, float, float]  # in the network's own channel order
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) in 0..255, uint8 or float -> the network's pixels, float32, same shape."""
        # Contiguous, whatever the strides of the images: convolutions choose their kernels by memory layout, and other
        # kernels round differently (enough to flip a ReLU and to change a recorded loss by 3e-4).
        pixels = precise(images).contiguous()
        return self._of_each_channel(pixels, lambda x, mean, std: x - mean if std == 1.0 else (x - mean) / std)

    def inverse(self, pixels: Tensor) -> Tensor:
        """The network's pixels (B, 3, H, W) -> RGB float in about 0..255, not clipped."""
        return self._of_each_channel(pixels, lambda x, mean, std: x * std + mean, inverse=True)

    def _of_each_channel(
        self, pixels: Tensor, change: Callable[[Tensor, float, float], Tensor], inverse: bool = False
    ) -> Tensor:
        """`change(channel, mean, std)` of each, in the order of the result.

        The numbers are arguments of operations, not tensors, which a GPU would have to be given and waited for.
        """
        channels = pixels.chunk(3, dim=1)
        statistics = list(zip(self.mean, self.std, strict=True))
        if self.order == "bgr":
            channels = channels[::-1]
            statistics = statistics[::-1] if inverse else statistics
        changed = [change(x, mean, std) for x, (mean, std) in zip(channels, statistics, strict=True)]
        return torch.cat(changed, dim=1)


CAFFE = PixelFormat("caffe", "bgr", (104.00698793, 116.66876762, 122.67891434))
IMAGENET = PixelFormat("imagenet", "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
TENSORFLOW = PixelFormat("tensorflow", "rgb", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
PIXEL_FORMATS: dict[str, PixelFormat] = {form.name: form for form in (CAFFE, IMAGENET, TENSORFLOW)}


Box = tuple[int, int, int, int]
"""Top, bottom, left and right of a crop, in pixels; bottom and right are exclusive."""


@dataclass(frozen=True)
class Detail:
    """Logits of one crop per image, which the loss compares with the labels of that crop."""

    logits: Tensor  # (B, C, h, w) at the network's stride
    boxes: tuple[Box, ...]  # of each image, in its pixels; all of one size
    weight: float  # of its loss: see `SegOutput.weight`

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops in pixels."""
        top, bottom, left, right = self.boxes[0]
        return bottom - top, right - left

    def cut(self, values: Tensor) -> Tensor:
        """Labels, weights or masks (B, …, H, W) of the images -> those of their crops (B, …, h', w')."""
        crops = [
            one[..., top:bottom, left:right] for one, (top, bottom, left, right) in zip(values, self.boxes, strict=True)
        ]
        return torch.stack(crops)


@dataclass
class SegOutput:
    """The output of a segmenter; see the contract at the top of this file."""

    heads: tuple[Tensor, ...]  # each (B, C, h, w)
    attention: Tensor | None  # (B, 1, h, w) in (0, 1)
    features: Tensor  # (B, F, h, w)
    scales: tuple[Tensor, ...] = ()  # each (B, F_i, h_i, w_i), fine to coarse; by default the features alone
    details: tuple[Detail, ...] = ()  # in training, of networks that look at crops too

    def __post_init__(self) -> None:
        if not self.scales:
            self.scales = (self.features,)

    @property
    def logits(self) -> Tensor:
        """The main head's logits (B, C, h, w): the ones for inference and evaluation."""
        return self.heads[-1]

    @property
    def weight(self) -> float:
        """The weight of the heads' loss: 1 minus the weights of the details."""
        return 1.0 - sum(detail.weight for detail in self.details)


class SpatialAttention(nn.Module):
    """SEAN's attention A in (0, 1), computed from the features (SEAN, section "Attention").

    Average pool 3×3, stride 2, padding 1 (zeros counted), ceil mode; bilinear up (align corners); 1×1 convolution
    without bias; sigmoid. Features (B, F, h, w) -> (B, 1, h, w).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # The same with its zeros written out: for the other form PyTorch's compiler (2.13) has a wrong gradient.
            padded = F.pad(features, (1, 1, 1, 1))
            pooled = F.avg_pool2d(padded, 3, stride=2, ceil_mode=True, count_include_pad=False)
        else:
            pooled = F.avg_pool2d(features, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=True)
        pooled = F.interpolate(pooled, size=features.shape[-2:], mode="bilinear", align_corners=True)
        return torch.sigmoid(self.conv(pooled))


class NetworkOptions(Settings):
    """A network's options in recipes, each with a description and a default; this base class has none."""

    def inner_networks(self) -> Sequence[str | dict[str, Any]]:
        """The other networks that this one is made of, as recipes choose them."""
        return ()


class Segmenter(nn.Module):
    """Base of all segmentation networks; see the contract at the top of this file.

    A subclass is made as `Network(classes, attention, options)`, with `options` of its class `Options`.
    """

    Options: ClassVar[type[NetworkOptions]] = NetworkOptions
    channels_last: ClassVar[bool] = False  # whether that layout is the quicker one in float32 on a CPU, too
    title: ClassVar[str] = ""  # for a person; the class's name where it is empty
    pixels: PixelFormat
    stride: int  # of the logits against the input
    align_corners: bool = False  # of `upsample`; may be set per instance, model files keep it
    number_of_heads: int = 1  # how many `SegOutput.heads` has
    checkpointing: bool = False  # whether a training step computes activations twice, see `through`

    def __init__(
        self, classes: int, feature_channels: int, attention: bool = False, options: NetworkOptions | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.options = self.Options() if options is None else options
        self.attention = SpatialAttention(feature_channels) if attention else None

    def in_words(self) -> str:
        """A description for messages: `DeepLab VGG-16 with 19 classes and attention`."""
        attention = " and attention" if self.attention is not None else ""
        return f"{self.title or type(self).__name__} with {self.classes} classes{attention}"

    @property
    def smallest_input(self) -> int:
        """The minimum number of pixels on a side."""
        return self.stride

    def need_size(self, width: int, height: int, where: str) -> None:
        """Raise UsageError, about the setting or option `where`, for images that are too small for this network."""
        if min(width, height) < self.smallest_input:
            raise UsageError(
                f"images of {width}×{height} pixels are too small for {self.title or type(self).__name__}, which takes "
                f"{self.smallest_input} pixels on a side and more",
                where=where,
                remedy="Use larger images, or a network with a smaller stride.",
            )

    def token_grid(self, size: tuple[int, ...]) -> tuple[int, int] | None:
        """Rows and columns of the patches of an image of this height and width, if the network can hide patches.

        Then `network(images, hidden)` takes hidden (B, rows, columns) bool: true where the patch is hidden.
        """
        return None

    def encode(self, pixels: Tensor) -> Tensor:
        """The network's pixels (B, 3, H, W) -> features (B, F, h, w). For an encoder of one scale."""
        raise NotImplementedError

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The network's pixels (B, 3, H, W) -> the encoder's features (B, F_i, h_i, w_i), fine to coarse."""
        return (self.encode(pixels),)

    def decode(self, scales: tuple[Tensor, ...]) -> Tensor:
        """The encoder's features -> the heads' input (B, F, h, w): by default the deepest features."""
        return scales[-1]

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, F, h, w) -> logits per head, the main head last, each (B, C, h, w)."""
        raise NotImplementedError

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of all heads, in order, to which `head_lr` applies.

        Empty unless the network overrides it.
        """
        return []

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Parameters that `no_norm_decay` exempts from weight decay: scale and shift of all norms, and biases."""
        return [parameter for parameter in self.parameters() if parameter.ndim <= 1]

    @property
    def number_of_depths(self) -> int:
        """Number of depths of the body for layer-wise learning rates; 1: the network does not distinguish them."""
        return 1

    def depth_of(self, name: str) -> int:
        """The depth of the parameter `name`: 0 nearest to the image, up to `number_of_depths` - 1.

        `number_of_depths` for parameters outside the body: heads, decoder, attention.
        """
        return 0

    def published_body(self) -> list[nn.Parameter]:
        """The body's parameters in the order, and as often, as a published program passes them to its optimizer."""
        of_heads = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in of_heads]

    def traits(self) -> dict[str, bool]:
        """Properties that depend on the weights, besides tensors and pixel format, by name; stored in model files."""
        return {}

    def take_traits(self, traits: Mapping[str, bool]) -> None:
        """Adopt the traits of the weights being loaded; a missing trait keeps the value of a fresh network."""

    def set_mode(self, batch_norm: bool) -> None:
        """Put the network into train mode; its batch norms only if `batch_norm`.

        In train mode a batch norm uses the batch's statistics and updates the running ones; in eval mode it uses the
        running ones.
        """
        self.train()
        set_learning(self, batch_norm)

    def through(self, blocks: Iterable[nn.Module], activations: Tensor, *others: Any) -> Tensor:
        """Pass `activations` through the blocks one after another; each also receives the `others`.

        With `checkpointing`, if gradients are needed, only the input of each block is kept, and the rest is recomputed
        in the backward pass (Chen et al., 2016, arXiv 1604.06174): a training step takes less memory, costs about one
        more forward pass, and has the same losses and gradients, dropout included. Batch norms update their running
        statistics only once.
        """
        if not (self.checkpointing and torch.is_grad_enabled()):
            for block in blocks:
                activations = block(activations, *others)
            return activations
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=True)  # for what draws by functions
        for block in blocks:
            learning = [norm for norm in batch_norms(block) if norm.training]
            if not learning and not draws(block):
                activations = again(block, activations, *others)
            elif torch.compiler.is_compiling():
                activations = block(activations, *others)  # the compiler knows no contexts
            else:
                activations = again(block, activations, *others, context_fn=partial(_first_and_again, learning))
        return activations

    def for_inference(self) -> Self:
        """A frozen copy in eval mode with the same logits up to rounding: for inference, not for training or saving.

        Batch norms that follow a convolution in an `nn.Sequential` are folded into it; a network may do more.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        fold_sequences(network)
        return network

    def forward(self, images: Tensor) -> SegOutput:
        """RGB images (B, 3, H, W), uint8 or float 0..255 -> SegOutput. Raises UsageError for too small ones."""
        height, width = images.shape[-2:]
        self.need_size(width, height, "images")
        return self.segment(self.pixels(images))

    def segment(self, pixels: Tensor) -> SegOutput:
        """Like `forward`, for pixels that are already in the network's own format."""
        return self.decoded(self.encode_scales(pixels))

    def decoded(self, scales: tuple[Tensor, ...]) -> SegOutput:
        """Apply decoder, attention and heads to the encoder's features."""
        features = self.decode(scales)
        if self.attention is None:
            return SegOutput(self.heads(features), None, features, scales)
        attention = self.attention(features)
        return SegOutput(self.heads((1 + attention) * features), attention, features, scales)

    def upsample(self, logits: Tensor, size: tuple[int, ...]) -> Tensor:
        """Logits (B, C, h, w) -> (B, C, *size), bilinear, by the network's own corner rule; size = (H, W).

        It may be replaced by another implementation of the same; inference on a CPU does this.
        """
        if logits.is_cuda and logits.requires_grad and not torch.compiler.is_compiling():
            return bilinear.upsample_for_gpu(logits, size, self.align_corners)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)

    def logits_at(self, output: SegOutput, size: tuple[int, ...]) -> list[Tensor]:
        """The logits of each head at this size (H, W): (B, C, H, W), float32 or better, the main head's last."""
        return [self.upsample(precise(head), size) for head in output.heads]


def _first_and_again(norms: Sequence[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of a checkpointed block with these norms: for the first computation, and for the recomputation."""
    return nullcontext(), _ComputedAgain(norms)


class _ComputedAgain(DrawnAgain):
    """Inside, the norms update copies of their statistics, which are discarded; dropout draws the same numbers.

    Entered once for each backward pass through a block.
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = norms
        self.learned: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        super().__enter__()
        self.learned = [(norm, name, values) for norm in self.norms for name, values in norm.named_buffers()]
        for norm, name, values in self.learned:
            setattr(norm, name, values.clone())

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for norm, name, values in self.learned:
            setattr(norm, name, values)
        self.learned = []


NetworkFactory = Callable[[int, bool, Any], Segmenter]
"""(classes, attention, options of the network's `Options`) -> Segmenter: how every network is made."""

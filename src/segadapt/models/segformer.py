"""SegFormer's encoder with one of three decoders over its four scales: the network of DAFormer, HRDA and MIC.

Stride 4: a 1024×512 image (width × height) gives logits (B, C, 128, 256) and scales of (64, 128, 320, 512) channels at
strides 4, 8, 16 and 32 (B0: 32, 64, 160, 256).
"""

from typing import Literal, Self

from pydantic import Field
from torch import Tensor, nn

from segadapt.models.daformer import DaformerHead, Decoder, SegformerHead, fold_norms
from segadapt.models.mit import PATCHES, SIZES, SMALLEST, MiT
from segadapt.models.segmenter import IMAGENET, NetworkOptions, Segmenter


class SegformerOptions(NetworkOptions):
    """What a recipe may choose about `segformer`."""

    size: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = Field(
        "b5", description="size of the encoder: MiT-B0 (3.3 million parameters) … MiT-B5 (81 million)"
    )
    decoder: Literal["daformer", "daformer_conv1", "segformer"] = Field(
        "daformer",
        description="how the four scales are fused: daformer: with context, by dilated convolutions; daformer_conv1: "
        "by one 1×1 convolution, for small GPUs; segformer: likewise, with the names of SegFormer's own files",
    )
    width: int = Field(256, ge=8, multiple_of=8, description="channels of the decoder")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate of the decoder's channels")
    drop_path: float = Field(
        0.1, ge=0, lt=1, description="stochastic depth rate of the last block; rises linearly from 0 over the blocks"
    )


def decoder(channels: tuple[int, ...], classes: int, options: SegformerOptions) -> Decoder:
    """The decoder that the options choose."""
    if options.decoder == "segformer":
        return SegformerHead(channels, classes, options.width, options.dropout)
    context = options.decoder == "daformer"
    return DaformerHead(channels, classes, options.width, options.dropout, context)


class Segformer(Segmenter):
    """MiT and a decoder; see the top of this file.

    Its heads, for rates of their own, are the whole decoder; what the published programs exempt from weight decay are
    the encoder's norms. The decoder's norms are batch norms, which start from nothing: train with `batch_norm: learn`.
    """

    Options = SegformerOptions
    title = "SegFormer"
    pixels = IMAGENET
    stride = 4

    def __init__(self, classes: int, attention: bool = False, options: SegformerOptions = SegformerOptions()) -> None:
        super().__init__(classes, options.width, attention, options)
        size = SIZES[options.size]
        self.backbone = MiT(size, options.drop_path)
        self.decode_head = decoder(size.widths, classes, options)

    @property
    def smallest_input(self) -> int:
        return SMALLEST

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) -> features (B, C_i, H / s, W / s) at strides s = 4, 8, 16, 32, rounded up."""
        values, scales = pixels.permute(0, 2, 3, 1), []
        for parts, norm in self.backbone.stages():
            values = norm(self.through(parts, values))
            scales.append(values.permute(0, 3, 1, 2).contiguous())
        return tuple(scales)

    def decode(self, scales: tuple[Tensor, ...]) -> Tensor:
        """The four scales -> fused features (B, width, H / 4, W / 4)."""
        return self.decode_head.fuse(scales)

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, width, h, w) -> one head's logits (B, C, h, w)."""
        return (self.decode_head.classify(features),)

    def for_inference(self) -> Self:
        """See `Segmenter.for_inference`: the decoder's batch norms are folded."""
        network = super().for_inference()
        fold_norms(network.decode_head)
        return network

    def head_parameters(self) -> list[nn.Parameter]:
        """The decoder's."""
        return list(self.decode_head.parameters())

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """The encoder's norms, as published: its biases do decay, and so does all of the decoder."""
        return [p for name, p in self.backbone.named_parameters() if "norm" in name]

    @property
    def number_of_depths(self) -> int:
        """The stages of the encoder."""
        return len(PATCHES)

    def depth_of(self, name: str) -> int:
        network, _, rest = name.partition(".")
        if network != "backbone":
            return self.number_of_depths
        return int(rest.partition(".")[0][-1]) - 1  # patch_embed1, block1, norm1

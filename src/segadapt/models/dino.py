"""Foundation encoders, DINOv2 and DINOv3, with VFM-UDA's light decoder (Englert et al., CVPR Workshops 2024).

The last block's tokens, after the final norm, are brought to four times their grid by two transposed convolutions, and
classified by a 1×1 convolution: with DINOv2 and 1024×1024 pixels, which are seen as 1120×1120, 80×80 tokens and logits
(B, C, 320, 320).

Patches seldom divide an image. `fit: resize` stretches it, bilinearly, to the largest multiple of the patch that is at
most `enlarge` times each side; logits then cover the image. `fit: pad` leaves pixels as they are and adds the mean
colour at the right and at the bottom up to the next multiple; logits of what was added are cut off exactly.
"""

from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.errors import UsageError
from segadapt.models.segmenter import IMAGENET, NetworkOptions, Segmenter, SegOutput
from segadapt.models.vit import DINOV2, DINOV2_REGISTERS, DINOV3, SIZES, Block, Kind, ViT

UPSAMPLED = 4
"""Rows of logits per row of tokens."""


class DinoOptions(NetworkOptions):
    """What a recipe may choose about these networks."""

    size: Literal["s", "b", "l"] = Field("b", description="size of the encoder: 22, 86 or 304 million parameters")
    fit: Literal["resize", "pad"] = Field(
        "resize", description="how to handle an image whose sides are not multiples of the patch: resize it, or pad it"
    )
    enlarge: float = Field(
        1.0,
        ge=1,
        le=4,
        description="resize: to the largest multiple of the patch, enlarging each side at most by this factor",
    )
    freeze: Literal["none", "encoder"] | PositiveInt = Field(
        "none",
        description="which part of the encoder is frozen: nothing, all, or the embeddings and this many first blocks",
    )
    lora: PositiveInt | None = Field(
        None, description="rank of LoRA on the queries and values of a frozen encoder; null: no LoRA"
    )
    lora_alpha: float | None = Field(None, gt=0, description="α of LoRA; null: its rank")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth rate of the last block; rises linearly from 0 over the blocks"
    )

    @model_validator(mode="after")
    def _they_agree(self) -> "DinoOptions":
        if self.lora is not None and self.freeze == "none":
            raise ValueError("LoRA replaces training of the encoder's own weights. Set freeze: encoder")
        if self.lora_alpha is not None and self.lora is None:
            raise ValueError("`lora_alpha` applies only with `lora`. Leave it out, or set that")
        if isinstance(self.freeze, int) and self.freeze > SIZES[self.size].depth:
            raise ValueError(f"freeze: {self.freeze} is more than the {SIZES[self.size].depth} blocks of this size")
        if self.fit == "pad" and "enlarge" in self.model_fields_set and self.enlarge != self._usual_enlarge():
            raise ValueError("`enlarge` applies only with fit: resize. Leave it out, or set that")
        return self

    @classmethod
    def _usual_enlarge(cls) -> float:
        return float(cls.model_fields["enlarge"].default)


class Dinov2Options(DinoOptions):
    """What a recipe may choose about `dinov2`."""

    enlarge: float = Field(
        1.1,
        ge=1,
        le=4,
        description="resize: to the largest multiple of the patch, enlarging each side at most by this factor "
        "(1024: 1120)",
    )
    registers: bool = Field(False, description="the variant with four registers")


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over channels: (B, C, h, w) -> the same shape."""

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LightDecoder(nn.Sequential):
    """VFM-UDA's: (B, F, h, w) -> (B, F / 4, 4 h, 4 w)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            LayerNorm2d(width // 2, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
            nn.Conv2d(width // 4, width // 4, 3, padding=1, bias=False),
            LayerNorm2d(width // 4, eps=1e-6),
        )


class Dino(Segmenter):
    """What `dinov2` and `dinov3` have in common; see the top of this file.

    Its heads, for rates of their own, are decoder and classifier.
    """

    Options: ClassVar[type[DinoOptions]] = DinoOptions
    pixels = IMAGENET
    stride = 4  # or a little less: a quarter of a patch of what the image is fitted to

    def __init__(self, classes: int, attention: bool = False, options: DinoOptions | None = None) -> None:
        options = self.Options() if options is None else options
        size = SIZES[options.size]
        super().__init__(classes, size.width // UPSAMPLED, attention, options)
        self.fit, self.enlarge = options.fit, options.enlarge
        alpha = options.lora_alpha if options.lora_alpha is not None else float(options.lora or 1)
        self.backbone = ViT(size, self.kind(options), options.drop_path, options.lora, alpha)
        self.decoder = LightDecoder(size.width)
        self.classifier = nn.Conv2d(size.width // UPSAMPLED, classes, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.1)
        self._freeze(options.freeze)

    @classmethod
    def kind(cls, options: DinoOptions) -> Kind:
        """Which encoder these options mean."""
        raise NotImplementedError

    def _freeze(self, choice: str | int) -> None:
        """Without gradients from here on: what `DinoOptions.freeze` says, but LoRA."""
        if choice == "none":
            return
        blocks = self.number_of_depths if choice == "encoder" else int(choice)
        for name, parameter in self.backbone.named_parameters():
            depth = self.depth_of(f"backbone.{name}")
            last = name.startswith("norm.") and choice != "encoder"
            if depth <= blocks and not last and ".lora_" not in name:
                parameter.requires_grad_(False)

    # --- a pass ---

    @property
    def smallest_input(self) -> int:
        """A patch."""
        return self.backbone.kind.patch

    def fitted_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width, multiples of the patch, as which an image of this height and width is seen."""
        patch = self.backbone.kind.patch
        if self.fit == "pad":
            height, width = (-(-side // patch) * patch for side in size)
        else:
            height, width = (int(self.enlarge * side + 1e-6) // patch * patch for side in size)
        return height, width

    def token_grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        height, width = self.fitted_size(size)
        return height // self.backbone.kind.patch, width // self.backbone.kind.patch

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> SegOutput:
        """As `Segmenter.forward`; hidden (B, *token_grid) bool: patches that the network does not see."""
        height, width = images.shape[-2:]
        self.need_size(width, height, "images")
        return self.segment(self.pixels(images), hidden)

    def segment(self, pixels: Tensor, hidden: Tensor | None = None) -> SegOutput:
        size = pixels.shape[-2:]
        if self.fit == "pad":
            height, width = self.fitted_size(size)
            pixels = F.pad(pixels, (0, width - size[1], 0, height - size[0]))
        output = self.decoded((self._tokens(pixels, hidden),))
        return output if pixels.shape[-2:] == size else cut_off(output, size, pixels.shape[-2:])

    def encode_scales(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, H, W) -> the patches' tokens (B, F, rows, columns)."""
        return (self._tokens(pixels, None),)

    def _tokens(self, pixels: Tensor, hidden: Tensor | None) -> Tensor:
        rows, columns = self.token_grid(pixels.shape[-2:])
        size = rows * self.backbone.kind.patch, columns * self.backbone.kind.patch
        if tuple(pixels.shape[-2:]) != size:
            if self.fit == "pad":  # `segment` has padded: this is a pass of another network
                raise UsageError(
                    f"inside another network, images of {pixels.shape[-1]}×{pixels.shape[-2]} pixels cannot be padded",
                    where="network",
                    remedy="Use fit: resize.",
                )
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        tokens = self.backbone.embed(pixels, hidden)
        rotation = self.backbone.rotation(rows, columns, pixels.device)
        tokens = self.through(self.backbone.blocks, tokens, rotation)
        return self.backbone.as_map(tokens, rows, columns)

    def decode(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Tokens (B, F, h, w) -> what is classified (B, F / 4, 4 h, 4 w)."""
        return cast(Tensor, self.decoder(scales[-1]))

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (B, F / 4, h, w) -> one head's logits (B, C, h, w)."""
        return (self.classifier(features),)

    def for_inference(self) -> Self:
        """See `Segmenter.for_inference`: LoRA is merged."""
        network = super().for_inference()
        network.merge_lora()
        return network

    def merge_lora(self) -> None:
        """Put LoRA, if there is any, into the encoder's own weights."""
        for block in self.backbone.blocks:
            cast(Block, block).attn.merge_lora()

    # --- what it says about itself ---

    def head_parameters(self) -> list[nn.Parameter]:
        """Those of decoder and classifier."""
        return [*self.decoder.parameters(), *self.classifier.parameters()]

    def no_decay_parameters(self) -> list[nn.Parameter]:
        """Norms, biases, factors of residual branches, and all that is one token: positions, registers, …"""
        tokens = [p for _, p in self.backbone.named_parameters(recurse=False)]
        return [*tokens, *super().no_decay_parameters()]

    @property
    def number_of_depths(self) -> int:
        """The embeddings, then each block; the last norm is the last block's."""
        return self.backbone.size.depth + 1

    def depth_of(self, name: str) -> int:
        network, _, rest = name.partition(".")
        if network != "backbone":
            return self.number_of_depths
        module, _, rest = rest.partition(".")
        if module == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.number_of_depths - 1 if module == "norm" else 0


class Dinov2(Dino):
    """DINOv2 with a light decoder: patches of 14 pixels."""

    Options = Dinov2Options
    title = "DINOv2"

    @classmethod
    def kind(cls, options: DinoOptions) -> Kind:
        assert isinstance(options, Dinov2Options)
        return DINOV2_REGISTERS if options.registers else DINOV2


class Dinov3(Dino):
    """DINOv3 with a light decoder: patches of 16 pixels, four registers."""

    title = "DINOv3"

    @classmethod
    def kind(cls, options: DinoOptions) -> Kind:
        return DINOV3


def cut_off(output: SegOutput, size: tuple[int, ...], padded: tuple[int, ...]) -> SegOutput:
    """What a padded image gave, without what was added at the right and at the bottom.

    As many rows and columns of logits as begin in the image, each the bilinear value at its place in it.
    """
    old = output.features.shape[-2:]
    new = [-(-have * side // whole) for have, side, whole in zip(old, size, padded, strict=True)]
    rows, columns = (
        _within(have, want, side / whole, output.features)
        for have, want, side, whole in zip(old, new, size, padded, strict=True)
    )

    def cut(values: Tensor) -> Tensor:
        return rows.to(values.dtype) @ (values @ columns.T.to(values.dtype))

    attention = None if output.attention is None else cut(output.attention)
    return SegOutput(tuple(cut(head) for head in output.heads), attention, cut(output.features), output.scales)


def _within(old: int, new: int, share: float, like: Tensor) -> Tensor:
    """The matrix (new, old) of linear interpolation of the first `share` of `old` values, as `new` values."""
    places = (torch.arange(new, device=like.device, dtype=torch.get_default_dtype()) + 0.5) * share * old / new - 0.5
    places = places.clamp(0, old - 1)
    distances = (places[:, None] - torch.arange(old, device=like.device, dtype=places.dtype)).abs()
    return (1 - distances).clamp(min=0)

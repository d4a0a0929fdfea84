"""The style transfer network of TGSTN (SE-GAN, TMM 2022): the generator of fast neural style.

Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer" (ECCV 2016), with instance norm (Ulyanov et
al., 2016), reflection padding, and nearest-neighbour upsampling in place of transposed convolutions. Modules are called
as in the published files (`transformer_net`).
"""

import copy
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.losses import precise
from segadapt.models.segmenter import CAFFE, PixelFormat

RESIDUAL_SCALE = 64.0
"""Of a residual network's output, in pixel units: Adam moves weights by the learning rate, whatever they are for."""
EPS = 1e-9
"""Of the instance norm; far below PyTorch's default, and part of the published weights."""


class ReflectedConv(nn.Module):
    """Convolution with reflection padding, optionally after nearest-neighbour upsampling."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, upsample: int = 1) -> None:
        super().__init__()
        self.padding, self.upsample = kernel // 2, upsample
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, features: Tensor) -> Tensor:
        if self.upsample > 1:
            features = F.interpolate(features, scale_factor=self.upsample, mode="nearest")
        return cast(Tensor, self.conv2d(F.pad(features, (self.padding,) * 4, mode="reflect")))


class InstanceNorm(nn.Module):
    """(x - mean) / sqrt(biased variance + 1e-9) over each channel, times `scale` (from U(0, 1)), plus `shift` (from 0).

    Computed in the dtype of its weights, written out. PyTorch's own kernels (`fused`) are five to ten times as fast on
    a CPU, but round so that TGSTN's second step is 2e-3 away from the recorded one (Adam's first steps are nearly
    signs, which small gradients feel). Where autocast has the activations in another dtype, `fused` keeps them in it,
    with statistics in float32: to each image what batch norm does to a batch, whose backward kernel for channels-last
    activations is several times as fast as that of group norm.
    """

    fused: bool = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        if self.fused and features.dtype != self.scale.dtype:
            images = features.chunk(len(features))
            normed = [F.batch_norm(i, None, None, self.scale, self.shift, training=True, eps=EPS) for i in images]
            return normed[0] if len(normed) == 1 else torch.cat(normed)
        features = features.to(self.scale.dtype)
        if self.fused:
            return F.group_norm(features, len(self.scale), self.scale, self.shift, EPS)
        centred = features - features.mean((2, 3), keepdim=True)
        variance = centred.square().mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        factor = self.scale[:, None, None] * torch.rsqrt(variance + EPS)
        return torch.addcmul(self.shift[:, None, None], centred, factor)


class TransposedConv(nn.Module):
    """A `ReflectedConv` of kernel 3 after upsampling by 2 as one transposed convolution: for inference.

    Nearest-neighbour upsampling adds each tap of the kernel to two pixels, so 3 taps on the large input are 4 taps of
    stride 2 on the small one: 4/9 of the multiplications, and the large input is never there. The border that
    reflection gives the large input is the last pixel of the small one, repeated.
    """

    def __init__(self, conv: ReflectedConv) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(self.spread(conv)), conv.conv2d.bias

    @staticmethod
    def spread(conv: ReflectedConv) -> Tensor:
        """The weights (inputs, outputs, 4, 4)."""
        kernel = conv.conv2d.weight  # (outputs, inputs, 3, 3)
        assert conv.upsample == 2 and kernel.shape[2:] == (3, 3)
        spread = F.conv_transpose2d(kernel.flip(2, 3).flatten(0, 1)[:, None], kernel.new_ones(1, 1, 2, 2))
        return spread.view(*kernel.shape[:2], 4, 4).transpose(0, 1).contiguous()

    def forward(self, features: Tensor) -> Tensor:
        repeated = F.pad(features, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(repeated, self.weight, self.bias, stride=2, padding=3)


class ResidualBlock(nn.Module):
    """Two normed 3×3 convolutions around a shortcut, no ReLU after the sum; the shape (B, C, h, w) stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.in1 = ReflectedConv(channels, channels, 3), InstanceNorm(channels)
        self.conv2, self.in2 = ReflectedConv(channels, channels, 3), InstanceNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.in1(self.conv1(features)), inplace=True)
        return features + cast(Tensor, self.in2(self.conv2(inner)))


class StyleTransfer(nn.Module):
    """Caffe pixels (B, 3, H, W) -> Caffe pixels of the same shape, float, neither squashed nor clipped.

    Caffe pixels are BGR minus mean, about -123..151; `pixels` converts RGB there and back. H and W of at least 8; where
    they are no multiples of 4, the result is computed at the next one and cut. 1.7 million parameters.

    With `residual` the network adds to its input, T(x) = x + 64 · net(x), and begins as the identity: it need not learn
    first, as the published one must, to give the picture back at all.
    """

    pixels: PixelFormat = CAFFE

    def __init__(self, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.conv1, self.in1 = ReflectedConv(3, 32, 9), InstanceNorm(32)
        self.conv2, self.in2 = ReflectedConv(32, 64, 3, stride=2), InstanceNorm(64)
        self.conv3, self.in3 = ReflectedConv(64, 128, 3, stride=2), InstanceNorm(128)
        self.res1, self.res2, self.res3, self.res4, self.res5 = (ResidualBlock(128) for _ in range(5))
        self.deconv1, self.in4 = ReflectedConv(128, 64, 3, upsample=2), InstanceNorm(64)
        self.deconv2, self.in5 = ReflectedConv(64, 32, 3, upsample=2), InstanceNorm(32)
        self.deconv3 = ReflectedConv(32, 3, 9)
        if residual:
            nn.init.zeros_(self.deconv3.conv2d.weight)
            nn.init.zeros_(cast(Tensor, self.deconv3.conv2d.bias))

    def in_words(self) -> str:
        """What it is, for a person."""
        return "a style transfer network"

    def for_inference(self) -> Self:
        """A frozen copy in eval mode whose pictures are the same up to rounding: made to run, not to train or to save.

        It can be cast to bfloat16 as a whole and then needs no autocast.
        """
        network = copy.deepcopy(self).eval()
        network.fuse_norms()
        for name, module in list(network.named_children()):
            if isinstance(module, ReflectedConv) and module.upsample > 1:
                setattr(network, name, TransposedConv(module))
        return network.requires_grad_(False)

    @torch.no_grad()
    def take_weights(self, trained: "StyleTransfer") -> None:
        """What `for_inference` has made becomes, in place, the copy of a network with these weights."""
        for name, module in self.named_children():
            its = getattr(trained, name)
            if isinstance(module, TransposedConv):
                module.weight.copy_(module.spread(its))
                if module.bias is not None:
                    module.bias.copy_(its.conv2d.bias)
            else:
                for mine, new in zip(module.parameters(), its.parameters(), strict=True):
                    mine.copy_(new)

    def fuse_norms(self, fused: bool = True) -> None:
        """Let PyTorch's kernel compute the instance norms, or write them out as the published program does."""
        for module in self.modules():
            if isinstance(module, InstanceNorm):
                module.fused = fused

    def forward(self, pixels: Tensor) -> Tensor:
        features = pixels.to(self.in1.scale.dtype)
        features = F.relu(self.in1(self.conv1(features)), inplace=True)  # (B, 32, H, W)
        features = F.relu(self.in2(self.conv2(features)), inplace=True)  # (B, 64, H/2, W/2)
        features = F.relu(self.in3(self.conv3(features)), inplace=True)  # (B, 128, H/4, W/4), rounded up
        for block in (self.res1, self.res2, self.res3, self.res4, self.res5):
            features = block(features)
        features = F.relu(self.in4(self.deconv1(features)), inplace=True)
        features = F.relu(self.in5(self.deconv2(features)), inplace=True)
        styled = cast(Tensor, self.deconv3(features))
        styled = styled[..., : pixels.shape[-2], : pixels.shape[-1]]
        return pixels + RESIDUAL_SCALE * precise(styled) if self.residual else styled

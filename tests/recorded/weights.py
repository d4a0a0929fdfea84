"""Deterministic weights: each tensor follows from its parameter's published name and shape alone."""

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recorded.numbers import parameters

VGG16_CONVS = tuple(f"conv{block}_{i}" for block, convs in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, convs + 1))
VGG16_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor of the parameter or buffer `name` (int64 zero for batch norm's counters)."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values: NDArray[Any] = random.standard_normal(shape).astype(np.float32)
    if name.endswith("running_mean"):
        values = 0.05 * values
    elif name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif name.endswith("scale"):
        values = 0.5 + 0.05 * values
    elif len(shape) == 1:
        values = 1 + 0.05 * values if name.endswith("weight") else 0.02 * values
    else:
        values = _convolution(name, values)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _convolution(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Scale standard normal `values` (out, in, kh, kw), factor by factor, as the recording did."""
    values = values * math.sqrt(2.0 / math.prod(values.shape[1:]))
    if values.ndim == 4 and values.shape[1] == 3:
        values = values * 0.02
    if name.endswith("conv3.weight") and "layer" in name:
        values = values * 0.2
    if "conv2d_list" in name:
        values = values * 0.5
    if name.endswith("deconv3.conv2d.weight"):
        values = values * 60
    return values


def state(network: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a published network; `prefix` goes before each name to draw its values, not in the keys."""
    return {name: tensor(prefix + name, shape) for name, shape in parameters(network).items()}


def hollow(network: str, classes: int = 19, prefix: str = "") -> dict[str, Tensor]:
    """Names and shapes of a published network, with heads of `classes`; each tensor is one zero in memory and on disk.

    Here `prefix` goes before the keys.
    """
    shapes = parameters(network)
    shapes = {name: (classes, *shape[1:]) if "conv2d_list" in name else shape for name, shape in shapes.items()}
    return {prefix + name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def vgg16_caffe() -> dict[str, Tensor]:
    """A file in the layout of the published VGG-16 start: conv1_1.weight … conv5_3.bias, then fc6, fc7, score_fr.

    The tensors are drawn once and shared: write to none of them.
    """
    return dict(_vgg16_caffe())


@cache
def _vgg16_caffe() -> dict[str, Tensor]:
    start: dict[str, Tensor] = {}
    channels = 3
    for name, size in zip(VGG16_CONVS, VGG16_CHANNELS, strict=True):
        start[f"{name}.weight"] = tensor(f"{name}.weight", (size, channels, 3, 3))
        start[f"{name}.bias"] = tensor(f"{name}.bias", (size,))
        channels = size
    return start | {f"{name}.weight": torch.zeros(1) for name in ("fc6", "fc7", "score_fr")}


def sean_start() -> dict[str, Tensor]:
    """Where both SEAN traces start (student and teacher): published names, VGG-16's convolutions from `vgg16_caffe`."""
    return _with_vgg16(state("sean", "S.1."))


def vgg_base_start() -> dict[str, Tensor]:
    """Where the trace of VGG pretraining starts: published names, VGG-16's convolutions from `vgg16_caffe`."""
    return _with_vgg16(state("vgg_base", "B.1."))


def deeplab_multi_start() -> dict[str, Tensor]:
    """DeepLab ResNet-101 with two heads of 19 classes: where SE-GAN's and self-training's traces start."""
    return state("deeplab_multi")


def resnet101_start() -> dict[str, Tensor]:
    """A file in the layout of the published ResNet-101 start: the weights of `deeplab_multi_start` under `Scale.`."""
    return {f"Scale.{name}": values for name, values in state("deeplab_multi").items()}


def vgg_base_19() -> dict[str, Tensor]:
    """The frozen segmenter of TGSTN's trace: all its weights are drawn."""
    return state("vgg_base")


def transformer_net_start() -> dict[str, Tensor]:
    """The style transfer network where TGSTN's trace starts, and that made the stylized images."""
    return state("transformer_net", "T.1.")


def segan_discriminators() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """D_1 and D_2 of softmax maps of 19 classes, where SE-GAN's trace starts."""
    return state("discriminator", "D.1."), state("discriminator", "D.2.")


def tgstn_discriminator() -> dict[str, Tensor]:
    """The discriminator of images where TGSTN's trace starts."""
    return state("discriminator3", "D.1.")


def forward_input() -> Tensor:
    """The input of `forward`'s outputs, (2, 3, 64, 128), already in the network's own (Caffe) pixels."""
    pixels = tensor("input.image", (2, 3, 64, 128))
    return pixels / pixels.std() * 50


def _with_vgg16(start: dict[str, Tensor]) -> dict[str, Tensor]:
    convs = list(vgg16_caffe().values())[: 2 * len(VGG16_CONVS)]
    return start | dict(zip(list(start)[: len(convs)], convs, strict=True))

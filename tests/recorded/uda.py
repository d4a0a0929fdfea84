"""What DAFormer, HRDA and MIC compute (their published program, float32 on a CPU): forward passes of MiT-B0.

19 classes. Weights and buffers are drawn by rule from their published names, with the prefix `U.`; dropout is off. Of
the outputs every second, or every fourth, row and column are kept, of running statistics every fourth.
"""

import gzip
import json
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recorded.numbers import HERE
from recorded.weights import tensor

NETWORKS = ("daformer_mit_b0", "daformer_conv1_mit_b0", "segformer_mit_b0", "hrda_mit_b0")


@cache
def uda_parameters(network: str) -> dict[str, tuple[int, ...]]:
    """Published names -> shapes of one of `NETWORKS`, in the published order."""
    recorded = json.loads(gzip.decompress((HERE / "uda_parameters.json.gz").read_bytes()))
    return {name: tuple(shape) for name, shape in recorded[network].items()}


def uda_state(network: str, prefix: str = "U.") -> dict[str, Tensor]:
    """The state dict of one of `NETWORKS`; `prefix` is put before each name when its values are drawn."""
    return {name: tensor(prefix + name, shape) for name, shape in uda_parameters(network).items()}


def uda_input(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normalised pixels: input.image (2, 3, 64, 128), input.square (2, 3, 128, 128), input.wide (1, 3, 128, 256)."""
    pixels = tensor(name, shape)
    return pixels / pixels.std()


@cache
def uda_forward() -> dict[str, NDArray[Any]]:
    """The recorded outputs."""
    with np.load(HERE / "uda_forward.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_as_recorded(output: Tensor, name: str, within: float = 1e-4) -> None:
    """Every recorded value within this share of their standard deviation."""
    wanted = torch.from_numpy(uda_forward()[name]).double()
    found = output.detach().double()
    if found.dim() == 4:
        found = found[..., :: found.shape[-2] // wanted.shape[-2], :: found.shape[-1] // wanted.shape[-1]]
    assert found.shape == wanted.shape, name
    distance = float((found - wanted).abs().max() / wanted.std())
    assert distance <= within, (name, distance)

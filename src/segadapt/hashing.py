"""Integer hashes as tensor arithmetic: the same to the last bit on a CPU and a GPU, without state.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) modulo 2^64, in int64 tensors.
"""

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)


def counted(seeds: Tensor, count: int) -> Tensor:
    """seeds (B,) int64 -> (B, count) int64: the first outputs of splitmix64 from each."""
    counter = torch.arange(1, count + 1, device=seeds.device) * signed(GOLDEN)
    return finalized(seeds[:, None] + counter)


def output(seeds: Tensor, number: int) -> Tensor:
    """The `number`-th output, from 0, of splitmix64 from each of the seeds, int64 of any shape."""
    return finalized(seeds + signed((number + 1) * GOLDEN % 2**64))


def finalized(values: Tensor) -> Tensor:
    """SplitMix64's finalizer, element by element."""
    for shift, factor in zip(SHIFTS, (*FACTORS, None), strict=True):
        values = values ^ shifted(values, shift)
        if factor is not None:
            values = values * signed(factor)
    return values


def shifted(values: Tensor, places: int) -> Tensor:
    """Logical right shift: `>>` would repeat the sign bit."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number

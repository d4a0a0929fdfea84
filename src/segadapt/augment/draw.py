"""Random numbers that are a function of (seed, stream, index): no generators, no state.

    uniform(seeds, "mixed/jitter", (4,))     (B, 4) in [0, 1): four numbers for each sample

Each sample has a seed (`Batch.seeds`); a stream is a name that makes different uses of one seed independent. Numbers
are hashes, computed only with integer arithmetic modulo 2^64: SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA
2014) over a counter. They are therefore bit-identical on a CPU and a GPU, for any number of ranks, micro-batches and
threads, and can be captured in a graph.
"""

import hashlib
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from segadapt.hashing import counted, finalized, shifted, signed


def bits(seeds: Tensor, stream: str, count: int) -> Tensor:
    """seeds (B,) int64 -> (B, count) int64, all 64 bits random."""
    assert seeds.dtype == torch.int64 and seeds.ndim == 1, (seeds.dtype, seeds.shape)
    return counted(finalized(seeds ^ _stream_number(stream)), count)


def uniform(seeds: Tensor, stream: str, shape: tuple[int, ...] = (), dtype: torch.dtype | None = None) -> Tensor:
    """seeds (B,) int64 -> (B, *shape) in [0, 1), of PyTorch's default dtype unless another one is given.

    float64 has 53 random bits, float32 the upper 24 of them; narrower dtypes are rounded from float32 (and may be 1).
    """
    dtype = dtype or torch.get_default_dtype()
    kept = 53 if dtype == torch.float64 else 24
    drawn = shifted(bits(seeds, stream, prod(shape)), 64 - kept)
    numbers = drawn.to(torch.float64 if dtype == torch.float64 else torch.float32) * 2.0**-kept
    return numbers.to(dtype).view(len(seeds), *shape)


def between(seeds: Tensor, stream: str, low: float, high: float, dtype: torch.dtype | None = None) -> Tensor:
    """seeds (B,) int64 -> (B,), one number per sample, uniform in [low, high)."""
    return low + (high - low) * uniform(seeds, stream, dtype=dtype)


def permutation(seeds: Tensor, stream: str, count: int) -> Tensor:
    """seeds (B,) int64 -> (B, count) int64: a random order of 0 … count-1 for each sample."""
    return bits(seeds, stream, count).argsort(dim=1, stable=True)


@lru_cache(maxsize=256)
def _stream_number(name: str) -> int:
    return signed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))

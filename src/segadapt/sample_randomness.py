"""What a network draws itself (dropout, drop path) as a function of (sample's seed, number of the draw, element).

PyTorch's dropout draws one sequence for a whole batch, so another number of ranks or micro-batches gives other masks.
Here each sample has masks of its own, from a hash of its seed: the same alone or in a batch, on a CPU or a GPU, and in
a block that activation checkpointing computes again.

A training gives its networks these modules for PyTorch's (`draw_by_sample`, called when a module is placed), and says
whose passes are to come (`drawing`). Outside of it they are PyTorch's. Dimension 0 of their input must be the samples.
What a network draws by functions (`F.dropout`, `torch.rand`) follows PyTorch's generator: exact when a training is
resumed, but not on another number of ranks.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segadapt.hashing import FACTORS, GOLDEN, SHIFTS, output, shifted

WORD = 0xFFFFFFFF
"""32 bits: words are int64 tensors that hold 0 … 2^32 - 1."""
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - 2**32
"""Factors of the hash (lowbias32, Wellons, 2018). Both below 2^31 in magnitude: no product leaves int64."""


class Draws:
    """Random words for the samples of one batch: the k-th draw is one function of seed and k, whatever is beside it."""

    keys: Tensor  # (B, 2) words
    drawn: Tensor  # scalar int64: draws so far

    def __init__(
        self,
        seeds: Sequence[int],
        device: torch.device,
        pass_number: int = 0,
        step_seed: int | None = None,
        placed: Tensor | None = None,
    ) -> None:
        """`pass_number`: another one gives other draws from the same seeds. `step_seed`: for what all samples share, by
        default the first one's. `placed`: the seeds (B,) int64, where they are on the device already."""
        self.seeds, self.pass_number = seeds, pass_number
        self.step_seed = seeds[0] if step_seed is None else step_seed
        self.drawn_here = 0  # on the host
        self._device, self._placed, self._ready = device, placed, False
        if placed is None:
            self.get_ready()

    def get_ready(self) -> None:
        """Put the keys on the device, if they are not there yet. A network that draws nothing never needs them."""
        if self._ready:
            return
        if self._placed is None:
            self.keys = torch.tensor([_key(seed, self.pass_number) for seed in self.seeds]).to(self._device)
        else:
            words = output(self._placed, self.pass_number)
            self.keys = torch.stack([shifted(words, 32), words & WORD], dim=1)
        # A tensor, replaced and not changed: compiled code takes it as an input, and a copy of `Draws` keeps its own.
        self.drawn = torch.zeros((), dtype=torch.int64, device=self._device)
        self._ready = True

    def copy(self) -> "Draws":
        """One that draws from here on what this one does."""
        return copy.copy(self)

    def words(self, samples: int, elements: int) -> Tensor:
        """The next draw: words (samples, elements), uniform.

        `samples` may be several times the batch, as when mixed images stand behind the plain ones: the i-th has the
        seed of sample i mod B, and its i div B-th next draw.
        """
        self.get_ready()
        batch = len(self.keys)
        place = torch.arange(samples, device=self.keys.device)
        keys, number = self.keys[place % batch], self.drawn + place // batch
        self.drawn = self.drawn + -(-samples // batch)
        first = _mixed(keys[:, 0] ^ number)
        second = _mixed(keys[:, 1] ^ first)
        return _hashed(torch.arange(elements, device=place.device) ^ first[:, None], second[:, None])

    def numbers(self, samples: int, shared: bool) -> list[int]:
        """The next draw on the host, of which a GPU knows nothing: 64 bits for each sample, or the same for all.

        As in `words`, `samples` may be several times the batch. It has a count of its own.
        """
        batch = len(self.seeds)
        first, self.drawn_here = self.drawn_here, self.drawn_here + -(-samples // batch)
        if shared:
            return [_splitmix(_splitmix(self.step_seed, self.pass_number), first)] * samples
        keys = [_splitmix(seed, self.pass_number) for seed in self.seeds]
        return [_splitmix(keys[i % batch], first + i // batch) for i in range(samples)]


def _splitmix(seed: int, number: int) -> int:
    """The `number`-th output of splitmix64 (Steele, Lea, Flood, 2014) from this seed."""
    everything = 2**64 - 1
    z = (seed + (number + 1) * GOLDEN) & everything
    z = ((z ^ (z >> SHIFTS[0])) * FACTORS[0]) & everything
    z = ((z ^ (z >> SHIFTS[1])) * FACTORS[1]) & everything
    return z ^ (z >> SHIFTS[2])


def _key(seed: int, pass_number: int) -> tuple[int, int]:
    """Two words of a sample."""
    z = _splitmix(seed, pass_number)
    return z >> 32, z & WORD


def _hashed(words: Tensor, second: Tensor) -> Tensor:
    """lowbias32 of fresh `words`, in place, with a second key word between its two rounds."""
    words ^= words >> 16
    words *= FIRST
    words &= WORD
    words ^= second
    words ^= words >> 15
    words *= SECOND
    words &= WORD
    words ^= words >> 16
    return words


def _mixed(words: Tensor) -> Tensor:
    return _hashed(words.clone(), torch.zeros_like(words))


_current: Draws | None = None
"""One for the process: a backward pass computes checkpointed blocks in threads of its own."""


def draw_from(draws: Draws | None) -> None:
    """From now on networks draw from here; None: from PyTorch's generator."""
    global _current
    _current = draws


@contextmanager
def drawing(draws: Draws | None) -> Iterator[None]:
    """Context in which networks draw from here."""
    before = _current
    draw_from(draws)
    try:
        yield
    finally:
        draw_from(before)


class DrawnAgain:
    """Context in which a block draws what it draws right after this was made; it may be entered any number of times."""

    def __init__(self) -> None:
        self.draws = None if _current is None else _current.copy()
        self.before: Draws | None = None

    def __enter__(self) -> None:
        self.before = _current
        draw_from(None if self.draws is None else self.draws.copy())

    def __exit__(self, *error: object) -> None:
        draw_from(self.before)


def numbers(samples: int, shared: bool) -> list[int]:
    """For what a network draws on the host: 64 bits for each sample, or (`shared`) the same for all of the step's.

    See `Draws.numbers`; outside of `drawing` from PyTorch's generator.
    """
    if _current is not None:
        return _current.numbers(samples, shared)
    drawn: list[int] = torch.randint(2**63 - 1, (1 if shared else samples,), device="cpu").tolist()
    return drawn * samples if shared else drawn


def dropped(values: Tensor, share: float, shape: tuple[int, ...]) -> Tensor | None:
    """`values` (N, …) with a `share` of its elements set to 0 and the others divided by 1 - share.

    `shape` (…) is that of one sample's mask, which is broadcast. None outside of `drawing`.
    """
    if _current is None:
        return None
    elements = torch.Size(shape).numel()
    words = _current.words(len(values), elements)
    lost = (words < round(share * 2**32)).view(len(values), *shape)
    return values.masked_fill(lost, 0.0) * (0.0 if share == 1 else 1 / (1 - share))


class Dropout(nn.Dropout):
    """PyTorch's (Srivastava et al., 2014), drawn for each sample: (N, …) -> the same shape. Never in place."""

    def forward(self, values: Tensor) -> Tensor:
        drawn = dropped(values, self.p, tuple(values.shape[1:])) if self.training and self.p > 0 else None
        return super().forward(values) if drawn is None else drawn


class Dropout2d(nn.Dropout2d):
    """PyTorch's, of whole channels (Tompson et al., 2015), drawn for each sample: (N, C, H, W) -> the same shape."""

    def forward(self, values: Tensor) -> Tensor:
        asked = self.training and self.p > 0 and values.dim() == 4
        drawn = dropped(values, self.p, (values.shape[1], 1, 1)) if asked else None
        return super().forward(values) if drawn is None else drawn


class DropPath(nn.Module):
    """Leaves out a residual branch for a share `p` of the samples (Huang et al., 2016, "stochastic depth").

    `x + DropPath(p)(branch(x))`; (N, …) -> the same shape, kept ones divided by 1 - p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        assert 0 <= p < 1, p
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return values
        one = (1,) * (values.dim() - 1)
        drawn = dropped(values, self.p, one)
        if drawn is not None:
            return drawn
        lost = torch.rand(len(values), *one, device=values.device) < self.p
        return values.masked_fill(lost, 0.0) / (1 - self.p)


OURS: dict[type[nn.Module], type[nn.Module]] = {nn.Dropout: Dropout, nn.Dropout2d: Dropout2d}


def draw_by_sample(network: nn.Module) -> None:
    """Make PyTorch's dropout modules in a network draw for each sample: they stay the same objects."""
    for module in network.modules():
        if type(module) in OURS:
            module.__class__ = OURS[type(module)]


def may_draw(network: nn.Module) -> bool:
    """Whether a network has modules of this file, at work or not."""
    return any(isinstance(module, (Dropout, Dropout2d, DropPath)) for module in network.modules())


def draws(block: nn.Module) -> bool:
    """Whether a block has modules of this file that are at work."""
    return any(isinstance(module, (Dropout, Dropout2d, DropPath)) and module.training for module in block.modules())

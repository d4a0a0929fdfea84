"""Which images stand in which step: a pure function of (seed, step), the same for any number of ranks."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def _order(seed: int, domain: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, domain, epoch]).permutation(count)


@dataclass(frozen=True)
class Pairing:
    """The order of `sources` source and `targets` target images (0 for a domain that is not used)."""

    seed: int
    batch: int  # per domain and step, over all ranks
    sources: int
    targets: int
    shuffle: bool = True
    restart_target: bool = False  # quirk `target_restart`: with each pass over the source

    def source(self, step: int) -> list[int]:
        """Indices of the step's source images."""
        return [self._at(0, *divmod(p, self.sources), self.sources) for p in self._positions(step)]

    def target(self, step: int) -> list[int]:
        """Indices of the step's target images."""
        if not self.restart_target:
            return [self._at(1, *divmod(p, self.targets), self.targets) for p in self._positions(step)]
        passes = -(-self.sources // self.targets)  # over the target, begun in each pass over the source
        indices = []
        for position in self._positions(step):
            epoch, within = divmod(position, self.sources)
            part, place = divmod(within, self.targets)
            indices.append(self._at(1, epoch * passes + part, place, self.targets))
        return indices

    def seeds(self, step: int) -> list[int]:
        """One seed below 2^63 for each sample of the step: for its augmentation and its noise."""
        drawn = np.random.SeedSequence([self.seed, step]).generate_state(self.batch, np.uint64)
        return [int(seed >> np.uint64(1)) for seed in drawn]

    def _positions(self, step: int) -> range:
        return range(step * self.batch, (step + 1) * self.batch)

    def _at(self, domain: int, epoch: int, place: int, count: int) -> int:
        return int(_order(self.seed, domain, epoch, count)[place]) if self.shuffle else place

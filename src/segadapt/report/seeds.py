"""A number over the seeds of one recipe: mean, standard deviation, and the confidence interval of the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segadapt.plain_data import Json

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """The values of one number, one per seed; at least one."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean."""
        return math.fsum(self.values) / self.n

    @property
    def sd(self) -> float | None:
        """Their standard deviation, with n - 1; None for a single seed."""
        if self.n < 2:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values) / (self.n - 1))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean over seeds, mean ± t · sd / √n; None for a single seed."""
        if self.sd is None:
            return None
        half = student_quantile((1 + LEVEL) / 2, self.n - 1) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def plain(self) -> Json:
        """Plain data for JSON."""
        interval = None if self.interval is None else list(self.interval)
        return {"mean": self.mean, "sd": self.sd, "n": self.n, "interval": interval, "values": list(self.values)}

    def text(self, digits: int = 2, sign: bool = False) -> str:
        """Mean ± standard deviation; for a single seed only the value."""
        mean = f"{self.mean:{'+' if sign else ''}.{digits}f}"
        return mean if self.sd is None else f"{mean} ± {self.sd:.{digits}f}"


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Of the values that exist; None if there are none."""
    found = tuple(value for value in values if value is not None)
    return Spread(found) if found else None


def student_quantile(level: float, freedom: int) -> float:
    """The value below which Student's t with so many degrees of freedom lies with a probability of 0.5 … 1."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < level:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < level else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    """P(T ≤ t), t ≥ 0: the finite series for whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = (cosine if freedom > 1 else 0.0) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
    return (1 + inside) / 2

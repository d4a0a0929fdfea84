"""A few labelled target images: which they are.

    choose(pairs, 20, seed=0, root)            # 20 of those that have a label, evenly over the index
    choose(pairs, Path("mine.txt"), 0, root)   # those of an image list

They are the same for every stage of a run, and a run with another seed draws others.
"""

from pathlib import Path

import numpy as np

from segadapt.data.catalog import Pair
from segadapt.data.splits import listed
from segadapt.errors import UsageError

STREAM = 6
"""Of the seed's random streams; samplers have those before it (`segadapt.data.samplers`)."""


def choose(pairs: list[Pair], labelled: int | Path, seed: int, root: Path) -> list[Pair]:
    """So many of the pairs that have a label, one from each of as many stretches of the index; or the listed ones.

    Raises UsageError when there are not so many, for a list that names a missing file or an image without a label.
    """
    if isinstance(labelled, Path):
        return listed(pairs, labelled, root)
    there = [pair for pair in pairs if pair.label is not None]
    if len(there) < labelled:
        raise UsageError(
            f"labelled is {labelled}, but only {len(there)} of its {len(pairs)} train images have labels",
            where=root,
            remedy="Set `data.target.labelled` to fewer, or give the labels.",
        )
    drawn = np.random.default_rng([seed, STREAM, 0]).random(labelled)
    ends = [k * len(there) // labelled for k in range(labelled + 1)]
    return [there[ends[k] + int(drawn[k] * (ends[k + 1] - ends[k]))] for k in range(labelled)]


LEAST = 0.25
"""Of the images with labels in a training, shared by all targets: a few among thousands would never be seen."""


def share_of(few: int, rest: int, targets: int, given: float | None) -> float:
    """The share of a target's `few` labelled images beside `rest` others: as given, or by number and at least `LEAST`.

    `targets`: how many have some.
    """
    return max(LEAST / targets, few / (few + rest) / targets) if given is None else given

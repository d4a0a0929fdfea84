"""How right pseudo-labels are, held against the target's own labels: an inquiry afterwards, not a part of any training.

    python benchmarks/pseudo_label_accuracy.py RUN/pseudo_labels/labels CAMVID [--layout camvid]
                                               [--label-space carla_camvid10] [--size 240x160]

Prints the share of pixels that are kept, the share of these that are right, and per class how many of its kept pixels
are right and what most of them are called.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.data.made import with_labels
from segadapt.data.settings import DomainSettings, open_domain


def main() -> None:
    """Read both, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("labels", type=Path, help="folder of pseudo-labels")
    parser.add_argument("target", type=Path, help="folder of the target, with labels")
    parser.add_argument("--layout", default="camvid")
    parser.add_argument("--label-space", default="carla_camvid10")
    parser.add_argument("--size", default="240x160")
    options = parser.parse_args()
    space = load_label_space(options.label_space)
    width, height = (int(side) for side in options.size.split("x"))
    domain = DomainSettings(layout=options.layout, root=options.target)
    true = open_domain(domain, space, "train", (width, height))
    pseudo = with_labels(true, options.labels, space)
    counts, kept, pixels = np.zeros((len(space), len(space)), np.int64), 0, 0
    for i in range(len(true)):
        label, given = true.read(i).label, pseudo.read(i).label
        assert label is not None and given is not None
        both = (label != IGNORE) & (given != IGNORE)
        np.add.at(counts, (label[both], given[both]), 1)
        kept, pixels = kept + int((given != IGNORE).sum()), pixels + given.size
    table = Table("class", "kept pixels", "right", "mostly called")
    for name, row in zip(space.classes, counts, strict=True):
        right = row[space.classes.index(name)] / max(1, row.sum())
        most = f"{space.classes[int(row.argmax())]} {row.max() / max(1, row.sum()):.1%}"
        table.add_row(name, str(row.sum()), f"{right:.1%}", most)
    Console().print(f"kept {kept / pixels:.1%} of the pixels; right {np.trace(counts) / counts.sum():.1%} of these")
    Console().print(table)


if __name__ == "__main__":
    main()

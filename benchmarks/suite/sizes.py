"""The sizes at which things are measured; all are (width, height)."""

from dataclasses import dataclass

Size = tuple[int, int]
PUBLISHED_FRAMES: dict[str, Size] = {"gta5": (1914, 1052), "synthia": (1280, 760), "cityscapes": (2048, 1024)}
"""Data set -> size of its images."""
WIDE = {"se_gan", "adaptsegnet"}
"""The methods whose source images are larger than their target images."""


@dataclass(frozen=True)
class Sizes:
    """One setting of `--sizes`."""

    name: str
    source: Size  # of source images in training, for the methods in WIDE
    target: Size  # of all others, and of the input in evaluation
    frames: dict[str, Size]  # of the files

    def training(self, method: str) -> tuple[Size, Size]:
        """(source, target) size of a method's training images."""
        return (self.source if method in WIDE else self.target), self.target


def _scaled(size: Size, factor: float) -> Size:
    return round(size[0] * factor), round(size[1] * factor)


def _fraction(name: str, factor: float) -> Sizes:
    """The published sizes times a factor."""
    frames = {name: _scaled(size, factor) for name, size in PUBLISHED_FRAMES.items()}
    return Sizes(name, _scaled((1280, 720), factor), _scaled((1024, 512), factor), frames)


NAMED = {name: _fraction(name, factor) for name, factor in (("published", 1), ("half", 0.5), ("quarter", 0.25))}
NAMED["tiny"] = Sizes("tiny", (80, 48), (64, 32), dict.fromkeys(PUBLISHED_FRAMES, (128, 64)))


def parse_sizes(text: str) -> Sizes:
    """`published`, `half`, `quarter`, `tiny`, or WIDTHxHEIGHT for everything but the files, which are twice that.

    Raises ValueError for anything else.
    """
    if text in NAMED:
        return NAMED[text]
    width, height = (int(side) for side in text.split("x"))
    size = (width, height)
    return Sizes(text, size, size, dict.fromkeys(PUBLISHED_FRAMES, (2 * width, 2 * height)))


def shown(*sizes: Size) -> str:
    """`1280×720 + 1024×512`, one size if all are the same."""
    return " + ".join("{}×{}".format(*size) for size in dict.fromkeys(sizes))

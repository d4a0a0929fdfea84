"""How much a command tells on stderr beside its result: `--quiet`, as usual, or `--verbose`. One process, one level.

quiet: warnings and errors alone, no progress. verbose: also what libraries log, progress as lines, what caused an
error, and what the command has cost.
"""

from typing import Literal

Level = Literal["quiet", "usual", "verbose"]
_level: Level = "usual"


def set_level(level: Level) -> None:
    """From now on."""
    global _level
    _level = level


def quiet() -> bool:
    """Whether progress and remarks are left out."""
    return _level == "quiet"


def verbose() -> bool:
    """Whether more is told than usual."""
    return _level == "verbose"


def told(text: str) -> bool:
    """Whether a line for a person is told: in quiet, only one that warns."""
    return _level != "quiet" or "warning: " in text

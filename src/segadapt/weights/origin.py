"""What we must know about the files of another program: one `Origin` per kind of file, a literal in its network's file.

It is the whole of an adapter: how such a file is recognised, its names for our tensors (both ways), what of it is left
out, and how its weights want to be run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from segadapt.models.segmenter import PixelFormat
from segadapt.weights.key_map import KeyMap

ReadOptions = Callable[[Mapping[str, Tensor]], Mapping[str, Any]]
"""A file's tensors by its own names -> options of the network."""
Reshape = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Tensors by the names of the file -> the same in another form."""


@dataclass(frozen=True)
class Origin:
    """One kind of file. Without `keys` it has our own names, or is known only to be refused by its title."""

    kind: str
    title: str  # for a person, with its article
    signature: tuple[str, ...]  # tensors that such a file has; of several kinds that fit, the one with most is meant
    keys: KeyMap | None = None
    pixels: PixelFormat | None = None  # that its weights were trained with; None: the network's own
    traits: Mapping[str, bool] = field(default_factory=dict)  # of its weights, see `Segmenter.traits`
    body: KeyMap | None = None  # the modules that it must have, where it has not all of the network
    skipped: tuple[str, ...] = ()  # what else it may have: names that begin so
    positional: tuple[str, ...] | None = None  # quirk `positional_load`: names that begin so have no place in the order
    prefix: str | None = None  # it is a `whole` one whose names begin so: what `export --start-file` writes
    whole: bool = False  # it is all of the network: it can be run as it is, and written
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network, as its program runs a whole one
    read_options: ReadOptions | None = None  # what of the options a whole file's tensors tell
    size: tuple[int, int] = (1024, 512)  # of the input (width, height), as its program runs a whole one
    classifier: str | None = None  # the tensor whose first dimension counts the classes
    attention: str | None = None  # the tensor that only a network with attention has
    read: Reshape | None = None  # what is done to its tensors before they get our names
    write: Reshape | None = None  # and the inverse

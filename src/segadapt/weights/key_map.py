"""The names that a file gives to a network's tensors, as a literal map: theirs to ours, module by module.

`.weight`, `.bias` and the like follow their module. Where several of theirs are one of ours (queries, keys and values,
say), their tensors stand behind one another in ours, in the order of the map. What belongs to no module, or is called
otherwise in it, has its own whole name in the map.
"""

from collections.abc import Mapping

from torch import Tensor

KeyMap = Mapping[str, str]
"""The name of a module, or of a tensor, in the file -> its name in our network."""


def own_name(name: str, keys: KeyMap) -> str | None:
    """Our name of the tensor that the file calls `name`, or None when the map does not have its module."""
    if name in keys:
        return keys[name]
    module, _, leaf = name.rpartition(".")
    return f"{keys[module]}.{leaf}" if module in keys else None


def published_name(name: str, keys: KeyMap) -> str:
    """The inverse of `own_name`, for a name that the map has."""
    return published_names(name, keys)[0]


def published_names(name: str, keys: KeyMap) -> list[str]:
    """The names in the file of all that our tensor `name` is made of, in its order; none for one that the map lacks."""
    module, _, leaf = name.rpartition(".")
    found = [theirs for theirs, ours in keys.items() if ours == name]
    return found or [f"{theirs}.{leaf}" for theirs, ours in keys.items() if ours == module]


def published_tensors(tensors: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    """Our tensors by the names of the file, in its order: the inverse of reading it. What the map lacks is left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if theirs := published_names(name, keys):
            found.update(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    order = {theirs: i for i, theirs in enumerate(keys)}
    return {name: found[name] for name in sorted(found, key=lambda one: order.get(one, order.get(_module(one), 0)))}


def _module(name: str) -> str:
    return name.rpartition(".")[0]

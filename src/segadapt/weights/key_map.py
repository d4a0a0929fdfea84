"""The names that a file gives to a network's tensors, as a literal map: theirs to ours, module by module.

`.weight`, `.bias` and the like follow their module. Where several of theirs are one of ours (queries, keys and values,
say), their tensors stand behind one another in ours, in the order of the map.
"""

from collections.abc import Mapping

KeyMap = Mapping[str, str]
"""A module's name in the file -> its name in our network."""


def own_name(name: str, keys: KeyMap) -> str | None:
    """Our name of the tensor that the file calls `name`, or None when the map does not have its module."""
    module, _, leaf = name.rpartition(".")
    return f"{keys[module]}.{leaf}" if module in keys else None


def published_name(name: str, keys: KeyMap) -> str:
    """The inverse of `own_name`, for a name that the map has."""
    module, _, leaf = name.rpartition(".")
    return f"{next(theirs for theirs, ours in keys.items() if ours == module)}.{leaf}"

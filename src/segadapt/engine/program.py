"""What a step runs on its device: which operations, with which plain numbers, and what the host waits for.

A captured step is replayed exactly as recorded. So two steps are compared before the capture: they must run the same
operations with the same numbers, and the host may neither read from the device nor copy to it.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

READS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
    *("nonzero", "masked_select", "bincount", "histc", "_unique", "_unique2", "unique_dim", "unique_consecutive"),
}
"""Operations whose result, or its size, the host must know before it can continue."""
COPIES = {"_to_copy", "copy_", "_copy_from", "_foreach_copy_"}
TABLES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
MADE_FROM_PYTHON: set[Callable[..., Any]] = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}
"""Operations that make a tensor from Python numbers: on a GPU a copy that the host waits for."""

Line = tuple[str, tuple[object, ...]]


class Program(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that records what is computed in it, including the backward pass."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.lines: list[Line] = []
        self.waits: list[str] = []  # what the host would wait for
        self._made = _Made(self)

    def __enter__(self) -> "Program":
        self._made.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._made.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if function.namespace == "profiler":  # marks for profilers
            return function(*args, **given)
        self.lines.append((str(function), tuple(_plain(value) for value in tree_iter((args, given)))))
        if self._waits(function.overloadpacket.__name__, args, given):
            self.waits.append(str(function))
        return function(*args, **given)

    def _waits(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if name in READS:
            return True
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        if name in TABLES and any(value.dtype == torch.bool for value in tree_iter(args[1]) if value is not None):
            return True
        devices = {tensor.device.type for tensor in tensors}
        if name in COPIES:
            to = kwargs.get("device")
            return len(devices | ({torch.device(to).type} if to is not None else set())) > 1
        # A CPU scalar may be an operand of arithmetic, like any number; everything else must be copied to the device.
        return len(devices) > 1 and any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in tensors)


class _Made(TorchFunctionMode):
    """Records the tensors that are made from Python numbers on the program's device."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in MADE_FROM_PYTHON and isinstance(made, Tensor) and made.device.type == self.program.device.type:
            already = bool(args) and isinstance(args[0], Tensor) and function is not torch.Tensor.new_tensor
            if not already:
                self.program.waits.append(getattr(function, "__name__", str(function)))
        return made


def _plain(value: object) -> object:
    """An argument as recorded: for a tensor, its shape and dtype."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return value


def difference(one: Program, other: Program) -> str | None:
    """The first difference between two programs, in words; None if they are the same."""
    for (name, given), (name_then, given_then) in _pairs(one, other):
        if name != name_then:
            return f"{name} where it was {name_then} a step before"
        # Compared as text, so that NaN equals itself.
        if repr(given) != repr(given_then):
            pairs = zip_longest(given, given_then)
            now, then = next((now, then) for now, then in pairs if repr(now) != repr(then))
            return f"{name} with {now} where it was {then} a step before"
    return None


def _pairs(one: Program, other: Program) -> Iterator[tuple[Line, Line]]:
    end: Line = ("the end", ())
    for i in range(max(len(one.lines), len(other.lines))):
        yield (one.lines[i] if i < len(one.lines) else end), (other.lines[i] if i < len(other.lines) else end)

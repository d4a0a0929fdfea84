"""Communication of ranks besides gradients: what rank 0 has read, whether all agree on the run, why one failed.

Only rank 0 reads the run folder, checkpoints and files of initial weights; the others need no access to them.
"""

import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from segadapt.errors import RankLost, SegadaptError, UsageError

Made = TypeVar("Made")
Facts = dict[str, object]

JOINING = timedelta(minutes=10)
"""Time within which all ranks must have joined."""
WORKING = timedelta(hours=12)
"""Long, since rank 0 scores a finished model alone while the others wait."""
LEAVING = timedelta(minutes=1)
"""How long a finished rank waits for the others."""
MOST = 4
"""Differences that one error lists."""

_store: Any = None  # where ranks leave messages; exists while they are joined


@contextmanager
def group(cuda: bool) -> Iterator[None]:
    """Join the ranks that torchrun's environment variables describe, and leave them at the end.

    A rank that fails leaves its error in the store for the others, whose connections to it break.
    """
    global _store
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined] # not in every build of PyTorch

    try:
        store, rank, ranks = next(rendezvous("env://", timeout=JOINING))
        # Plain data and files are sent between CPUs; only GPU tensors between GPUs.
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=WORKING)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SegadaptError(
            f"the ranks could not connect to each other ({reason})",
            where=f"rank {os.environ.get('RANK')}",
            remedy="Start them all with torchrun. If one failed earlier, its message names the cause.",
        ) from error
    _store = PrefixStore("failed", store)
    try:
        yield
        _leave_together(store, rank, ranks)
    except Exception as error:
        if not isinstance(error, RankLost):
            _leave_word(_word(rank, error))
        raise
    finally:
        _store = None
        dist.destroy_process_group()


def _leave_together(store: Any, rank: int, ranks: int) -> None:
    """Wait until every rank is done: closing connections early would discard what a slower rank has yet to receive."""
    try:
        store.set(f"done {rank}", "")
        store.wait([f"done {other}" for other in range(ranks)], LEAVING)
    except (RuntimeError, ValueError):  # the store went away with its rank, which was done; or a rank is stuck
        return


def _word(rank: int, error: Exception) -> str:
    why = str(error) if isinstance(error, SegadaptError) else f"{type(error).__name__}: {error}"
    return f"rank {rank} has failed: {why}"


def _leave_word(word: str) -> None:
    assert _store is not None
    try:
        _store.set("why", word)
    except (RuntimeError, ValueError):  # the store went away with its rank
        return


def _word_left() -> str:
    try:
        return _store.get("why").decode() if _store is not None and _store.check(["why"]) else ""
    except (RuntimeError, ValueError):
        return ""


@contextmanager
def all_there() -> Iterator[None]:
    """Report which rank ended and why, instead of the transport's message about it."""
    try:
        yield
    except RuntimeError as error:
        why = _word_left()
        if why:
            raise RankLost(why, remedy="") from error
        rank = dist.get_rank()
        raise RankLost("lost the other ranks", where=f"rank {rank}", remedy="One of them reports the cause.") from error


def total(values: Tensor) -> Tensor:
    """`values`, summed in place over the ranks."""
    with all_there():
        dist.all_reduce(values)
    return values


def wait() -> None:
    """Wait until all ranks are here."""
    with all_there():
        dist.barrier()


def from_main(make: Callable[[], Made]) -> Made:
    """The result of `make`, which only rank 0 calls, on every rank: plain data, tensors, modules, optimizers.

    On the other ranks tensors are on the CPU. Raises what `make` raises on rank 0, and RankLost on the others;
    UsageError for what cannot be sent.
    """
    message: list[Any] = [None, None]
    tensors: list[Tensor] = []
    made: Any = None
    if dist.get_rank() == 0:
        made = make()
        packed, tensors = _packed(made)
        message = [packed, [(tensor.shape, tensor.dtype) for tensor in tensors]]
    with all_there():
        dist.broadcast_object_list(message, src=0, device=torch.device("cpu"))
        if dist.get_rank() != 0:
            tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in message[1]]
        for tensor in tensors:
            if tensor.numel():
                # As bytes, whatever the dtype; what is not contiguous is copied on rank 0.
                dist.broadcast(tensor.cpu().contiguous().reshape(-1).view(torch.uint8), src=0)
    received: Made = made if dist.get_rank() == 0 else _Unpickler(io.BytesIO(message[0]), tensors).load()
    return received


def together(work: Callable[[], Made]) -> Made:
    """The result of `work` on this rank, once it has succeeded on every rank: all must call it, and all wait.

    Raises what `work` raises here, and RankLost if it failed elsewhere: either all ranks continue, or none.
    """
    try:
        made = work()
    except Exception as error:
        with suppress(RankLost):  # the local failure says more
            _gathered(_word(dist.get_rank(), error))
        raise
    words = [word for word in _gathered("") if word]
    if words:
        raise RankLost(words[0], remedy="")
    return made


def _gathered(fact: Made) -> list[Made]:
    """The values of all ranks, by rank."""
    gathered: list[Any] = [None] * dist.get_world_size()
    with all_there():
        dist.all_gather_object(gathered, fact)
    return gathered


class _Pickler(pickle.Pickler):
    """Leaves out tensors, which are sent separately, without copies."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors = tensors
        self.numbers: dict[int, int] = {}

    def persistent_id(self, value: object) -> int | None:
        # A parameter is pickled as a parameter around its tensor.
        if type(value) is not Tensor or value.requires_grad:
            return None
        number = self.numbers.setdefault(id(value), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(value)  # which also keeps it alive, and so its id
        return number


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]


def _packed(value: object) -> tuple[bytes, list[Tensor]]:
    file, tensors = io.BytesIO(), list[Tensor]()
    try:
        _Pickler(file, tensors).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"cannot be sent to the other ranks ({error})",
            where=type(value).__name__,
            remedy="Define its classes and functions at the top level of a module, without lambdas.",
        ) from error
    return file.getvalue(), tensors


def need_agreement(facts: Facts) -> None:
    """Raise UsageError on every rank when one has other facts than rank 0, naming ranks and facts."""
    gathered = _gathered(facts)
    first = gathered[0]
    found = [
        f"rank {rank} has {name} {_short(own.get(name))}, rank 0 {_short(first.get(name))}"
        for rank, own in enumerate(gathered)
        for name in {**first, **own}
        if own.get(name) != first.get(name)
    ]
    if found:
        more = f"; and {len(found) - MOST} more differences" if len(found) > MOST else ""
        raise UsageError(
            f"the ranks do not agree: {'; '.join(found[:MOST])}{more}",
            remedy="Start all of them with the same command, version and data.",
        )


def _short(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"

"""A network's pass over images of one kind as one CUDA graph: recorded at the third image, replayed from then on.

A pass of ResNet-101 is some 400 kernels. Launching them takes the host longer than running them takes the device,
unless images are large; and the host has images to read meanwhile.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Work = Callable[[Tensor], Tensor]
Kind = tuple[torch.Size, torch.dtype]
"""The kind of input of a recorded pass: windows of a scaled image are floats, windows of the image itself are not."""
PLAIN = 2
"""Eager passes of each kind before the recording, in which libraries choose their kernels."""
MOST = 8
"""Kinds that are recorded; each keeps its input and its result, all together the memory of the largest pass."""


class Graph(Protocol):
    """What a pass is recorded into."""

    def capture(self, work: Callable[[], Tensor]) -> None:
        """Record it; nothing is computed yet."""

    def replay(self) -> Tensor:
        """Compute it from the current content of its tensors; the result is in the same tensor each time."""


class CudaGraph:
    """PyTorch's."""

    def __init__(self, pool: Any = None) -> None:
        self._graph, self._pool = torch.cuda.CUDAGraph(), pool
        self._result = torch.empty(0)

    def capture(self, work: Callable[[], Tensor]) -> None:
        """See `Graph`. Other threads may read images meanwhile."""
        with torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"):
            self._result = work()

    def replay(self) -> Tensor:
        """See `Graph`."""
        self._graph.replay()
        return self._result


class InOnePool:
    """Makes graphs of which only one is computed at a time, each result copied before the next: they share memory.

    So all together need what the largest does, and their results.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self) -> CudaGraph:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaGraph(self._pool)


class Replayed:
    """Runs `work` on a tensor, as a graph once its kind is known: the same values, in a tensor of their own.

    The tensors that `work` uses must stay where they are. If a pass cannot be recorded, all passes stay eager.
    """

    def __init__(self, work: Work, make: Callable[[], Graph] | None = None) -> None:
        self.work, self.make = work, make or InOnePool()
        self.refused: str | None = None  # why nothing more is recorded
        self._passes: dict[Kind, int] = {}
        self._graphs: dict[Kind, tuple[Tensor, Graph]] = {}

    def __call__(self, given: Tensor) -> Tensor:
        kind = given.shape, given.dtype
        kept = self._graphs.get(kind)
        if kept is None and self._wanted(kind):
            kept = self._recorded(given)
        if kept is None:
            return self.work(given)
        inputs, graph = kept
        inputs.copy_(given)
        return graph.replay().clone()  # the next replay writes into the same tensor

    def _wanted(self, kind: Kind) -> bool:
        self._passes[kind] = self._passes.get(kind, 0) + 1
        return self.refused is None and self._passes[kind] > PLAIN and len(self._graphs) < MOST

    def _recorded(self, given: Tensor) -> tuple[Tensor, Graph] | None:
        inputs, graph = given.clone(), self.make()
        try:
            graph.capture(lambda: self.work(inputs))
        except RuntimeError as error:  # PyTorch's, about what a graph cannot hold, or about memory
            self.refused = (str(error) or type(error).__name__).splitlines()[0]
            return None
        self._graphs[given.shape, given.dtype] = inputs, graph
        return inputs, graph

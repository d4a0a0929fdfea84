"""Images on their way to a GPU and results on their way back, while it computes.

Each direction has page-locked memory and a stream of its own: neither the host nor the network waits for a copy.
"""

from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IN_FLIGHT = 2
"""Batches that a GPU may still have to do while the host prepares the next one."""


def sent(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Arrays of one shape as one tensor (N, …) on the device, for which the host does not wait."""
    held = torch.empty((len(arrays), *arrays[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(arrays, out=held.numpy())
    if device.type != "cuda":
        return held.to(device)
    copying, computing = _stream(device, "there"), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        there = held.to(device, non_blocking=True)
    computing.wait_stream(copying)
    there.record_stream(computing)
    return there


def pixels_on(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """uint8 RGB images (H, W, 3) of one size -> uint8 (B, 3, H, W) on the device; see `sent`."""
    return sent(images, device).permute(0, 3, 1, 2)


class Fetched:
    """The values of a tensor on their way to the host. Only whoever asks for them waits, in whichever thread."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._values = tensor.cpu()
            return
        tensor = tensor.contiguous()
        copying = _stream(tensor.device, "back")
        copying.wait_stream(torch.cuda.current_stream(tensor.device))
        self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.stream(copying):
            self._values.copy_(tensor, non_blocking=True)
            self._arrived = copying.record_event()
        tensor.record_stream(copying)

    def numpy(self) -> NDArray[Any]:
        """The values, once they are here."""
        if self._arrived is not None:
            self._arrived.synchronize()
        array: NDArray[Any] = self._values.numpy()
        return array


class Pace:
    """Keeps the host a few batches ahead of a GPU and no more: what waits for it there lies in memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._begun: deque[torch.cuda.Event] = deque()

    def keep(self) -> None:
        """After the work on a batch has been launched: wait until the GPU has no more than `IN_FLIGHT` to do."""
        if self.device.type != "cuda":
            return
        self._begun.append(torch.cuda.current_stream(self.device).record_event())
        if len(self._begun) > IN_FLIGHT:
            self._begun.popleft().synchronize()


@cache
def _stream(device: torch.device, direction: Literal["there", "back"]) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

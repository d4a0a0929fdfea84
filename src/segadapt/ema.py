"""The mean teacher: weights that follow another network's by a moving average (Tarvainen and Valpola, 2017)."""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from segadapt.batch_norm import is_learning, set_learning

Network = TypeVar("Network", bound=nn.Module)


def teacher_of(student: Network, learns_statistics: bool = False) -> Network:
    """A frozen copy of `student` in eval mode; with `learns_statistics`, its batch norms stay in train mode.

    Their running statistics then describe what the teacher sees, which is only the target (as in AdaBN, Li et al.,
    2017). The student sees both domains, so its running statistics fit neither.
    """
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    set_learning(teacher, learns_statistics)
    return teacher


def warmed_up(decay: float, step: int) -> float:
    """min(decay, 1 - 1/(step + 1)), step from 0: the teacher follows quickly at first, away from its random weights."""
    return min(decay, 1.0 - 1.0 / (step + 1))


@torch.no_grad()
def follow(
    teacher: nn.Module, student: nn.Module, decay: float, applied: Tensor | None = None, buffers: bool = True
) -> None:
    """teacher ← decay · teacher + (1 - decay) · student for all parameters.

    Buffers are copied, except those of a batch norm in train mode, which the teacher computes itself; without `buffers`
    none are copied.

    `applied`, a 0-dim float tensor on the device, is 1 if the student's last update was applied and 0 if it was
    skipped: then the teacher stays unchanged too, without the host waiting for the device.

    The two products are rounded separately, as in the published program: a fused interpolation changes the consistency
    loss of SEAN's second step by a relative 2e-5.
    """
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    if applied is None:
        torch._foreach_mul_(old, decay)
        torch._foreach_add_(old, new, alpha=1.0 - decay)
    else:
        moves = list(torch._foreach_sub(new, old))
        torch._foreach_mul_(moves, applied * (1.0 - decay))
        torch._foreach_add_(old, moves)
    for kept, copied in _buffers(teacher, student) if buffers else ():
        torch._foreach_copy_(kept, copied)


def _buffers(teacher: nn.Module, student: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The teacher's buffers to update and the student's, grouped by dtype so that a GPU copies them all at once."""
    found: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for mine, its in zip(teacher.modules(), student.modules(), strict=True):
        if is_learning(mine):
            continue
        for kept, copied in zip(mine.buffers(recurse=False), its.buffers(recurse=False), strict=True):
            ours, theirs = found.setdefault(kept.dtype, ([], []))
            ours.append(kept)
            theirs.append(copied)
    yield from found.values()

"""The mean teacher: weights that follow another network's by a moving average (Tarvainen and Valpola, 2017)."""

import copy
from collections.abc import Iterable, Iterator
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
def follow(teacher: nn.Module, student: nn.Module, decay: float, buffers: bool = True) -> None:
    """teacher ← decay · teacher + (1 - decay) · student for all parameters.

    Buffers are copied, except those of a batch norm in train mode, which the teacher computes itself; without `buffers`
    none are copied.

    The two products are rounded separately, as in the published program: a fused interpolation changes the consistency
    loss of SEAN's second step by a relative 2e-5.
    """
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    torch._foreach_mul_(old, decay)
    torch._foreach_add_(old, new, alpha=1.0 - decay)
    if buffers:
        copy_buffers(teacher, student)


@torch.no_grad()
def follow_ahead(
    teacher: nn.Module, student: nn.Module, moved: float | Tensor, skipped: Tensor, buffers: bool = True
) -> None:
    """As `follow` with decay 1 - `moved`, for a device that the host runs ahead of: a number or a scalar there.

    `skipped` (scalar float32 on the device) is 1 where the student's last update was not applied: then the teacher
    stays where it is, too.

    A step of plain SGD with rate `moved`, which climbs along the student's weights as gradients and has a weight decay
    of 1: teacher - moved · (teacher - student). So one fused kernel reads both and writes the teacher, takes rate and
    flag from the device, and no difference of full size is ever there.
    """
    old, new = _by_dtype(teacher.parameters()), _by_dtype(student.parameters())
    for dtype, weights in old.items():
        rate = moved if isinstance(moved, float) else moved.to(torch.float32 if dtype != torch.float64 else dtype)
        torch._fused_sgd_(
            weights,
            new[dtype],
            [],
            weight_decay=1.0,
            momentum=0.0,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=True,
            is_first_step=False,
            found_inf=skipped,
        )
    if buffers:
        copy_buffers(teacher, student)


def _by_dtype(parameters: Iterable[Tensor]) -> dict[torch.dtype, list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault(parameter.dtype, []).append(parameter)
    return found


def copy_buffers(teacher: nn.Module, student: nn.Module) -> None:
    """The teacher's buffers become the student's, but for those that it learns by itself."""
    for kept, copied in _buffers(teacher, student):
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

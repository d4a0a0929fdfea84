"""Weight updates: gradients over ranks and micro-batches, clipping, and skipping of updates that are not finite.

Modules stay unwrapped (no DDP): a step may call backward as its paper does, and gradients are summed here in a few
large all-reduces. Losses come as sums and counts; dividing by the count of all ranks and micro-batches makes the result
independent of how the batch is distributed over them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from segadapt import ema
from segadapt.batch import Batch
from segadapt.engine.runtime import Runtime
from segadapt.engine.step_numbers import OnDevice, OnHost, StepNumbers
from segadapt.losses import Loss
from segadapt.methods.method import Method, Values
from segadapt.sample_randomness import Draws, draw_from, drawing, may_draw

Choice = TypeVar("Choice")
BUCKET = 16 * 2**20
"""Elements in one all-reduce (64 MB of float32)."""


class Updater:
    """Implements `Update`; one per training."""

    def __init__(
        self, optimizers: dict[str, Optimizer], runtime: Runtime, accumulate: int = 1, clip_norm: float | None = None
    ) -> None:
        self.optimizers, self.runtime = optimizers, runtime
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.skipped = torch.zeros((), device=runtime.device)  # updates skipped so far
        self.first_skipped = torch.full((), -1.0, device=runtime.device)  # step of the first of them
        self.recent: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=1000)  # names of the last steps' files
        self._finite = torch.ones((), dtype=torch.bool, device=runtime.device)  # was the last update applied?
        self._numbers: StepNumbers = OnHost(0)  # of the current update
        self._loops = 0  # over its micro-batches so far
        self._networks_draw = True
        self._outside: Draws | None = None  # what networks draw outside these loops
        self._stepped = set(optimizers)  # whose gradients belong to a finished update
        self._said: dict[str, Tensor] = {}  # counts of terms on this rank, announced before their passes
        self._counts: dict[str, Tensor] = {}  # counts that follow from the data, over all ranks
        self._terms: dict[str, list[Loss]] = {}  # backpropagated since the last optimizer step, without gradients
        self._values: Values = {}
        self._weighted: list[Tensor] = []  # what `total` consists of

    def run(self, method: Method, batch: Batch) -> Values:
        """One update of the method on this rank's share of a batch. Returns `total` and the mean of each term.

        `total` is Σ weight · mean over all terms except those named after an optimizer.
        """
        self.recent.append((batch.step, batch.names))
        if not self.runtime.ahead:
            return self.compute(method, batch, OnHost(batch.step))
        placed = batch if batch.words is not None else batch.ahead_on(self.runtime.device)
        return self.compute(method, placed, OnDevice(batch.step, self.runtime.device))

    def compute(self, method: Method, batch: Batch, numbers: StepNumbers) -> Values:
        """As `run`, with the given numbers of the step: `batch` need not know its step and its seeds."""
        self._numbers, self._values, self._weighted = numbers, {}, []
        self._said, self._counts, self._loops = {}, {}, 0
        self._networks_draw = any(map(may_draw, (*method.modules.values(), *method.helpers.values())))
        self._outside = self._draws_of(batch, 0)
        with self.runtime.autocast(), drawing(self._outside):  # around all passes: each weight is cast once
            method.step(batch, self)
        assert not self._terms, f"{', '.join(self._terms)}: no optimizer step followed the backward pass"
        total = torch.stack(self._weighted).sum() if self._weighted else torch.zeros_like(self.skipped)
        return {"total": total, **self._values}

    def lasting(self) -> list[Tensor]:
        """Tensors that outlive an update, besides weights and optimizers: updated in place."""
        return [self.skipped, self.first_skipped, self._finite]

    def abandon(self) -> None:
        """Discard an update that ended in an error: its terms, and the gradients it left behind."""
        self._terms, self._stepped = {}, set(self.optimizers)

    def count(self, **counts: Tensor) -> None:
        """See `segadapt.methods.method.Update`."""
        self._said |= counts
        summed = self.runtime.sum(torch.stack(list(counts.values()))).unbind()
        self._counts |= dict(zip(counts, summed, strict=True))

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """See `segadapt.methods.method.Update`."""
        self._loops += 1
        loop = self._loops  # each draws differently from those before, but the same for any number of micro-batches
        for part in [batch] if self.accumulate == 1 else batch.split(self.accumulate):
            draw_from(self._draws_of(part, loop))
            yield part
        draw_from(self._outside)

    def _draws_of(self, batch: Batch, loop: int) -> Draws:
        """What networks draw in this loop over micro-batches."""
        placed = None if batch.words is None else batch.words[0]
        draws = Draws(batch.seeds, self.runtime.device, loop, batch.step_seed, placed)
        if self._networks_draw:
            draws.get_ready()  # not inside a network, which would be compiled for both cases
        return draws

    def backward(self, **terms: Loss) -> None:
        """See `segadapt.methods.method.Update`."""
        self._forget_old_gradients()
        if not terms:
            return
        shares = [term.weight * term.sum / self._divisor(name, term) for name, term in terms.items()]
        with self.runtime.without_autocast():
            torch.stack(shares).sum().backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            self._terms.setdefault(name, []).append(replace(term, sum=term.sum.detach()))

    def step(self, *optimizers: str) -> None:
        """See `segadapt.methods.method.Update`."""
        self._forget_old_gradients()
        chosen = [self.optimizers[name] for name in optimizers]
        owned = [parameters_of(optimizer) for optimizer in chosen]
        with self.runtime.without_autocast():
            self._sum_over_ranks([p.grad for own in owned for p in own if p.grad is not None])
            # On the device even when the terms of an optimizer have not begun, so that it has no gradient.
            norms = [self._norm([p.grad for p in own if p.grad is not None]) for own in owned]
            self._finite.copy_(torch.isfinite(torch.stack([*self._means(), *norms])).all())
            if self.clip_norm is not None:
                for own, norm in zip(owned, norms, strict=True):
                    clip_grads_with_norm_(own, self.clip_norm, norm)
            self._apply(chosen)
        torch.clear_autocast_cache()  # the cast weights are out of date
        self._stepped |= set(optimizers)

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        return get_total_norm(gradients).to(self.skipped) if gradients else torch.zeros_like(self.skipped)

    def follow(
        self, teacher: nn.Module, student: nn.Module, decay: float | Callable[[int], float], buffers: bool = True
    ) -> None:
        """See `segadapt.methods.method.Update`."""
        of_step = decay if callable(decay) else lambda step: decay
        if self.runtime.ahead:
            moved = self.number(lambda step: 1.0 - of_step(step))
            ema.follow_ahead(teacher, student, moved, (~self._finite).float(), buffers)
        elif self._finite:
            ema.follow(teacher, student, self.choice(of_step), buffers)

    def number(self, of_step: Callable[[int], float]) -> float | Tensor:
        """See `segadapt.methods.method.Update`."""
        return self._numbers.number(of_step)

    def choice(self, of_step: Callable[[int], Choice]) -> Choice:
        """See `segadapt.methods.method.Update`."""
        return self._numbers.choice(of_step)

    def over_ranks(self, values: Tensor) -> Tensor:
        """See `segadapt.methods.method.Update`."""
        return self.runtime.sum(values.clone())

    def _forget_old_gradients(self) -> None:
        for name in self._stepped:
            self.optimizers[name].zero_grad(set_to_none=True)
        self._stepped = set()

    def _divisor(self, name: str, term: Loss) -> Tensor | float:
        """The term's count over all ranks and micro-batches; a count of 0 comes with a sum of 0, and counts as 1."""
        if not isinstance(term.count, Tensor):
            return term.count * self.runtime.ranks * self.accumulate
        if name not in self._counts:
            assert self.accumulate == 1, (
                f"the count of '{name}' depends on the data: announce it first with update.count"
            )
            self._counts[name] = self.runtime.sum(term.count.clone())
        return torch.where(self._counts[name] > 0, self._counts[name], 1.0)

    def _means(self) -> list[Tensor]:
        """The mean of each term since the last optimizer step, over all ranks; they join the values of the update."""
        terms, self._terms = self._terms, {}
        if not terms:
            return []
        for name, found in terms.items():
            self._need_count(name, found)
        sums = self.runtime.sum(
            torch.stack([torch.stack([loss.sum for loss in found]).sum() for found in terms.values()])
        )
        for (name, found), total in zip(terms.items(), sums.unbind(), strict=True):
            self._values[name] = total / self._divisor(name, found[0])
            if name not in self.optimizers:
                self._weighted.append(found[0].weight * self._values[name])
        return [self._values[name].to(self.skipped) for name in terms]

    def _need_count(self, name: str, found: list[Loss]) -> None:
        """A term's count must match the announced one, or be counted once; checked only where this needs no waiting."""
        if self.runtime.ahead or name not in self._counts:
            return
        counted = sum(float(loss.count) for loss in found)
        said = float(self._said.get(name, found[0].count))
        assert abs(counted - said) <= 1e-4 * abs(said) or said != said, (
            f"'{name}' counted {counted:g}, but update.count announced {said:g}"
        )

    def _sum_over_ranks(self, tensors: list[Tensor]) -> None:
        if self.runtime.ranks == 1:
            return
        bucket: list[Tensor] = []
        for i, tensor in enumerate(tensors):
            bucket.append(tensor)
            if sum(t.numel() for t in bucket) >= BUCKET or i == len(tensors) - 1:
                flat = self.runtime.sum(torch.cat([t.reshape(-1) for t in bucket]))
                for t, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                    t.copy_(part.view(t.shape))
                bucket = []

    def _apply(self, optimizers: Sequence[Optimizer]) -> None:
        """Step the optimizers unless a loss or gradient is not finite; on a GPU without waiting for it."""
        bad = (~self._finite).float()
        step = self.number(float)
        # In place, like all state that outlives a step: a captured step knows its tensors by address.
        self.first_skipped.copy_(torch.where((bad > 0) & (self.first_skipped < 0), step, self.first_skipped))
        self.skipped.add_(bad)
        for optimizer in optimizers:
            if self.runtime.ahead and optimizer.defaults.get("fused"):
                # The fused kernels look at this flag on the device and leave the weights alone when it is set.
                optimizer.found_inf, optimizer.grad_scale = bad, None  # type: ignore[attr-defined]
                optimizer.step()
            elif self._finite:
                optimizer.step()


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """The optimizer's parameters, each once (quirk `repeated_updates` lists some several times)."""
    return list(dict.fromkeys(p for group in optimizer.param_groups for p in group["params"]))

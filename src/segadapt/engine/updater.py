"""How weights change: gradients over ranks and accumulation steps, clipping, and updates that must not happen.

Modules stay unwrapped (no DDP): a step may call backward as its paper has it, and gradients are summed here in a few
large all-reduces. Losses come as sums and counts; dividing by the global count makes the result independent of how the
batch is spread over ranks and accumulation steps.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from segadapt import ema
from segadapt.batch import Batch
from segadapt.engine.runtime import Runtime
from segadapt.losses import Loss
from segadapt.methods.method import Terms, Values

BUCKET = 16 * 2**20
"""Elements in one all-reduce (64 MB of float32)."""


class GradientUpdater:
    """The `Updater` of methods; one per training."""

    def __init__(
        self, optimizers: dict[str, Optimizer], runtime: Runtime, accumulate: int = 1, clip_norm: float | None = None
    ) -> None:
        self.optimizers, self.runtime = optimizers, runtime
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.skipped = torch.zeros((), device=runtime.device)  # updates skipped so far
        self.first_skipped = torch.full((), -1.0, device=runtime.device)  # step of the first of them
        self.recent: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=1000)  # names of the last steps' files
        self._finite = torch.ones((), dtype=torch.bool, device=runtime.device)  # was the last update applied?

    def minimize(self, players: Sequence[str], losses: Callable[[Batch], Terms], batch: Batch) -> Values:
        """See `segadapt.methods.method.Updater`."""
        self.recent.append((batch.step, batch.names))
        optimizers = [self.optimizers[player] for player in players]
        owned = [parameters_of(optimizer) for optimizer in optimizers]
        parameters = [parameter for parameters in owned for parameter in parameters]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.accumulate == 1:
            values = self._backward(losses, batch, players[0])
        else:
            values = self._backward_in_micro_batches(losses, batch.split(self.accumulate), parameters, players[0])
        self._sum_over_ranks([p.grad for p in parameters if p.grad is not None])
        # On the device even when the terms of an optimizer have not begun, so that it has no gradient.
        norms = [get_total_norm([p.grad for p in own if p.grad is not None]).to(values["total"]) for own in owned]
        self._finite = torch.isfinite(torch.stack([values["total"], *norms])).all()
        if self.clip_norm is not None:
            for own, norm in zip(owned, norms, strict=True):
                clip_grads_with_norm_(own, self.clip_norm, norm)
        self._apply(optimizers, batch.step)
        return values

    def over_ranks(self, values: Tensor) -> Tensor:
        """See `segadapt.methods.method.Updater`."""
        return self.runtime.sum(values.clone())

    def follow(self, teacher: nn.Module, student: nn.Module, decay: float) -> None:
        """See `segadapt.methods.method.Updater`."""
        if self.runtime.device.type == "cuda":
            ema.follow(teacher, student, decay, applied=self._finite.float())
        elif self._finite:
            ema.follow(teacher, student, decay)

    def _backward(self, losses: Callable[[Batch], Terms], batch: Batch, first: str) -> Values:
        """Each part of the loss is backpropagated as soon as it is there, which frees its activations."""
        terms, means = dict[str, Loss](), list[Tensor]()
        with self.runtime.autocast():  # around all parts: each weight is cast once
            for part in filter(None, losses(batch)):  # a part may have no term at some steps
                found, divisors = self._means(list(part.values()))
                shares = [term.weight * term.sum / n for term, n in zip(part.values(), divisors, strict=True)]
                with torch.autocast(self.runtime.device.type, enabled=False):
                    torch.stack(shares).sum().backward()  # type: ignore[no-untyped-call]
                terms |= {name: term.detached() for name, term in part.items()}
                means += found
        return _values(terms, means, first)

    def _backward_in_micro_batches(
        self,
        losses: Callable[[Batch], Terms],
        micro_batches: list[Batch],
        parameters: list[nn.Parameter],
        first: str,
    ) -> Values:
        """Accumulation. The counts are known only at the end, so each term keeps a gradient of its own till then."""
        terms, gradients = dict[str, Loss](), dict[str, list[Tensor | None]]()
        for micro_batch in micro_batches:
            with self.runtime.autocast():
                for part in filter(None, losses(micro_batch)):
                    with torch.autocast(self.runtime.device.type, enabled=False):
                        found = _gradients(part, parameters)
                    for name, term in part.items():
                        before = terms.get(name)
                        terms[name] = term.detached() if before is None else before.counted_with(term.detached())
                        gradients[name] = found[name] if before is None else _added(gradients[name], found[name])
        means, divisors = self._means(list(terms.values()))
        for (name, term), divisor in zip(terms.items(), divisors, strict=True):
            for parameter, gradient in zip(parameters, gradients.pop(name), strict=True):
                if gradient is not None:
                    share = gradient * (term.weight / divisor)
                    parameter.grad = share if parameter.grad is None else parameter.grad.add_(share)
        return _values(terms, means, first)

    def _means(self, terms: Sequence[Loss]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The mean of each term over all ranks, and what its sum is to be divided by."""
        both = self.runtime.sum(torch.stack([*(t.sum.detach() for t in terms), *(t.count for t in terms)]))
        # A term whose count is 0 has the sum 0: it counts as 0.
        divisors = both[len(terms) :].clamp_min(1.0)
        return (both[: len(terms)] / divisors).unbind(), divisors.unbind()

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

    def _apply(self, optimizers: list[Optimizer], step: int) -> None:
        """Step the optimizers, unless loss or gradient is not finite; on a GPU without waiting for it."""
        bad = (~self._finite).float()
        self.first_skipped = torch.where((bad > 0) & (self.first_skipped < 0), float(step), self.first_skipped)
        self.skipped = self.skipped + bad
        for optimizer in optimizers:
            if self.runtime.device.type == "cuda" and optimizer.defaults.get("fused"):
                # The fused kernels look at this flag on the device and leave the weights alone when it is set.
                optimizer.found_inf, optimizer.grad_scale = bad, None  # type: ignore[attr-defined]
                optimizer.step()
            elif self._finite:
                optimizer.step()


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """The optimizer's parameters, each once (quirk `repeated_updates` names some several times)."""
    return list(dict.fromkeys(p for group in optimizer.param_groups for p in group["params"]))


def _values(terms: dict[str, Loss], means: Sequence[Tensor], first: str) -> Values:
    """The means by name, and the `total` of the player `first`."""
    own = [term.weight if term.player in (None, first) else 0.0 for term in terms.values()]
    found = torch.stack(list(means))
    return {"total": (found.new_tensor(own) * found).sum(), **dict(zip(terms, means, strict=True))}


def _gradients(part: dict[str, Loss], parameters: Sequence[nn.Parameter]) -> dict[str, list[Tensor | None]]:
    """The gradient of each term's sum, None where it has none; the graph that the terms share goes with the last."""
    found, last = dict[str, list[Tensor | None]](), len(part) - 1
    for i, (name, term) in enumerate(part.items()):
        found[name] = list(torch.autograd.grad(term.sum, parameters, retain_graph=i < last, allow_unused=True))
    return found


def _added(old: list[Tensor | None], new: list[Tensor | None]) -> list[Tensor | None]:
    return [a if b is None else b if a is None else a + b for a, b in zip(old, new, strict=True)]

"""What a training step of a network keeps in memory, without a GPU and without computing anything.

Tensors are fake ones of the CPU, which know their shapes alone; what autograd keeps for the backward pass is seen by
its hooks. Attention is as its fused kernels have it, on a GPU too: queries, keys, values and output, no matrix of all
pairs. Workspaces of convolutions, copies of weights under autocast and what an allocator rounds up to are not in it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from segadapt.models.networks import Choice, build

GIB = 2**30
STATES = 4
"""Of each weight that learns: itself, its gradient, and AdamW's two moments; a mean teacher is one more."""


def activations(choice: Choice, size: tuple[int, int], batch: int = 2, bf16: bool = False, classes: int = 19) -> int:
    """Bytes that a pass over `batch` images of `size` (width, height) keeps for its backward pass, with its loss."""
    width, height = size
    kept: dict[int, Any] = {}  # the storages, each once; held, so that no number is given again
    with torch.device("meta"):
        network = build(choice, classes=classes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        network.set_mode(batch_norm=True)
        own = {_number(tensor) for tensor in (*network.parameters(), *network.buffers())}

        def seen(tensor: Tensor) -> Tensor:
            if _number(tensor) not in own:
                kept[_number(tensor)] = tensor.untyped_storage()
            return tensor

        images = torch.zeros(batch, 3, height, width, dtype=torch.uint8)
        labels = torch.zeros(batch, height, width, dtype=torch.long)
        with saved_tensors_hooks(seen, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                output = network(images)
            loss = F.cross_entropy(network.upsample(output.logits.float(), (height, width)), labels)
        assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def states(network: nn.Module, teacher: bool = True) -> int:
    """Bytes of weights, gradients and AdamW's moments, and of a mean teacher."""
    own = sum(p.numel() * p.element_size() for p in network.parameters())
    learn = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return (2 if teacher else 1) * own + (STATES - 1) * learn


def table(choices: Sequence[Choice], sizes: Sequence[int] = (512, 1024), batch: int = 2) -> str:
    """Markdown: GiB of each network's states, and of its activations at square crops, float32 and bf16."""
    heads = ["`network:`", "weights to AdamW, teacher", *(f"{size}², {p}" for size in sizes for p in ("fp32", "bf16"))]
    lines = [heads, ["---"] * len(heads)]
    for choice in choices:
        with torch.device("meta"):
            own = states(build(choice, classes=19))
        found = [activations(choice, (size, size), batch, bf16) for size in sizes for bf16 in (False, True)]
        lines.append([f"`{_words(choice)}`", *(f"{value / GIB:.1f}" for value in (own, *found))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(choice: Choice) -> str:
    if isinstance(choice, str):
        return choice
    return "{" + ", ".join(f"{key}: {str(value).lower()}" for key, value in choice.items()) + "}"


def _number(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

"""What a training step of each network holds in memory: an estimate from shapes alone, on PyTorch's meta device.

    python benchmarks/network_memory.py [--batch 2 --sides 512 1024 --networks '{name: segformer, size: b0}' …]

Weights, their gradients and AdamW's two moments are four float32 numbers per parameter; activations are what one pass
and its cross-entropy keep for the backward pass, in float32, with activation checkpointing in brackets. Not in it: a
teacher (one number per parameter), convolutions' work space, what the allocator loses, and the CUDA context: about 1 GB
together. Attention is counted as the kernels have it that never hold its matrix. The table is Markdown.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import yaml
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from segadapt.models.networks import Choice, build
from segadapt.models.segmenter import Segmenter

CLASSES = 19
NUMBERS = 4 * 4  # bytes of a parameter, its gradient and two moments
SEGFORMERS = [{"name": "segformer", "size": f"b{i}"} for i in range(6)]
SHOWN: Sequence[Choice] = (
    "deeplab_vgg16",
    "deeplab_resnet101",
    "efficientnet_lite0",
    *SEGFORMERS,
    {"name": "segformer", "size": "b5", "decoder": "daformer_conv1"},
    *({"name": "hrda", "of": of} for of in (*SEGFORMERS, "efficientnet_lite0")),
)


def on_meta(choice: Choice) -> Segmenter:
    """The network without its numbers, as it trains: with batch norm that learns."""
    with torch.device("meta"):
        network = build(choice, classes=CLASSES)
    network.set_mode(batch_norm=True)
    return network


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What attention calls on a GPU, to which a tensor on the meta device does not lead."""
    found: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
    return found


@contextmanager
def attention_without_matrix() -> Iterator[None]:
    """Context in which attention keeps its inputs and outputs, and a number per query."""
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def kept(network: Segmenter, side: int, batch: int, checkpointing: bool = False) -> int:
    """Bytes that a pass of a network on the meta device keeps for the backward pass: images of side × side."""
    network.checkpointing = checkpointing
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    tensors: dict[int, Tensor] = {}  # one of each storage; it must live, so that no other takes its place

    def keep(values: Tensor) -> Tensor:
        place = values.untyped_storage()._cdata
        if place not in own:
            tensors.setdefault(place, values)
        return values

    with saved_tensors_hooks(keep, lambda values: values), attention_without_matrix():
        output = network(torch.empty(batch, 3, side, side, dtype=torch.uint8, device="meta"))
        alive = [logits.log_softmax(1) for logits in network.logits_at(output, (side, side))]
        alive += [network.upsample(detail.logits, detail.size).log_softmax(1) for detail in output.details]
    return sum(values.untyped_storage().nbytes() for values in tensors.values())


def in_words(choice: Choice) -> str:
    """`network: …` as a recipe has it."""
    if isinstance(choice, str):
        return choice
    return str(yaml.safe_dump(dict(choice), default_flow_style=True, sort_keys=False, width=1e9)).strip()


def table(choices: Sequence[Choice], sides: Sequence[int], batch: int) -> str:
    """The Markdown table."""
    lines = [["`network:`", "parameters", "weights, gradients, AdamW", *(f"activations at {side}²" for side in sides)]]
    lines.append(["---"] * len(lines[0]))
    for choice in choices:
        network = on_meta(choice)
        parameters = sum(p.numel() for p in network.parameters())
        cells = [f"`{in_words(choice)}`", f"{parameters / 1e6:.1f} million", f"{NUMBERS * parameters / 1e9:.1f} GB"]
        for side in sides:
            plain, again = (kept(network, side, batch, checkpointing) / 1e9 for checkpointing in (False, True))
            cells.append(f"{plain:.1f} GB ({again:.1f})")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", type=yaml.safe_load, default=SHOWN, help="as a recipe has them")
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--batch", type=int, default=2)
    given = parser.parse_args()
    print(table(given.networks, given.sides, given.batch))


if __name__ == "__main__":
    main()

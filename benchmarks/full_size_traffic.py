"""How much memory traffic the losses of SE-GAN's step cause at the size of the images, counted without a GPU.

    python benchmarks/full_size_traffic.py [--bandwidth 4.3]

Upsampled logits and softmax outputs are (1, 19, H, W) in float32. Counted are the bytes that operations on such tensors
read and write in one step, on PyTorch's `meta` device, and the time that they take at the bandwidth of a GPU, in TB/s
(an H200 copies 4.3). It bounds what fusing these operations could gain.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.sizes import NAMED
from suite.trainings import CLASSES, Setup, make_case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import on_meta


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, operation by operation, what is read and written where a tensor of the images' size is involved."""

    def __init__(self, least: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.least, self.bytes, self.calls = least, Counter[str](), Counter[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        full = any(one.dim() == 4 and one.shape[1] == CLASSES and one.shape[2] >= self.least for one in tensors)
        if full and not function.is_view and "detach" not in str(function):
            self.bytes[str(function)] += sum(one.numel() * one.element_size() for one in tensors)
            self.calls[str(function)] += 1
        return result


def main() -> None:
    """Print a line per operation, the most traffic first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bandwidth", type=float, default=4.3, help="of the GPU, in TB/s")
    options = parser.parse_args()
    sizes = NAMED["published"]
    case = make_case("se_gan", Setup(sizes), on_meta.RUNTIME)
    batch = case.batch(0).ahead_on(on_meta.META)
    with on_meta.fused(), Traffic(sizes.target[1]) as traffic:
        case.update.run(case.method, batch)
    total = sum(traffic.bytes.values())
    for name, count in traffic.bytes.most_common():
        print(f"{name:45s} {traffic.calls[name]:3d} calls {count / 1e9:6.2f} GB")
    milliseconds = total / options.bandwidth / 1e9
    print(f"all: {total / 1e9:.2f} GB, {milliseconds:.2f} ms at {options.bandwidth:g} TB/s")


if __name__ == "__main__":
    main()

"""What each network costs: parameters, multiply-adds and the time of one image, as inference runs it.

    python benchmarks/networks.py [--size 512x256 --threads 1 2 --rounds 15 --cpu-time --networks deeplab_small …]

The table is Markdown. Networks have 19 classes, no attention and fresh weights; one image goes from RGB to logits at
the network's stride, in float32 (upsampling and arg-max, which are the same for all, are not in it). The networks take
turns; a time is the median with its 10-90 % range, by the clock or, with `--cpu-time`, of all threads' work: for a CPU
that others use too.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from suite.measure import Spread, in_turns
from torch import Tensor

from segadapt.devices import choose_device
from segadapt.inference.networks import ready
from segadapt.models.networks import NETWORKS, build
from segadapt.models.segmenter import Segmenter
from segadapt.stages.estimate import Counter

CLASSES = 19


def multiply_adds(network: Segmenter, image: Tensor) -> int:
    """Of all convolutions and matrix products of one image."""
    with Counter() as counter, torch.no_grad():
        network(image)
    return int(counter.operations // 2)


def times(running: dict[str, Segmenter], image: Tensor, rounds: int, cpu_time: bool) -> dict[str, Spread]:
    """Seconds of one image through each of the networks, as they take turns."""
    works: dict[str, Callable[[Tensor], object]] = dict(running)
    with torch.inference_mode():
        taken = in_turns(works, lambda _: image, rounds, image.device, cpu_time=cpu_time)
    return {name: Spread.of(values) for name, values in taken.items()}


def table(options: argparse.Namespace) -> str:
    """The Markdown table."""
    width, height = (int(side) for side in options.size.split("x"))
    threads: Sequence[int] = options.threads
    place = choose_device(options.device)
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8).to(place)
    networks = {name: build(name, classes=CLASSES).eval().to(place) for name in options.networks}
    running = {name: ready(network.for_inference(), "fp32") for name, network in networks.items()}
    by_threads = {}
    for count in threads:
        torch.set_num_threads(count)
        by_threads[count] = times(running, image, options.rounds, options.cpu_time)
    unit = "CPU ms" if options.cpu_time else "ms"
    heads = [f"{count} thread{'s' if count > 1 else ''}, {unit}" for count in threads]
    lines = [["`network:`", "parameters", f"multiply-adds at {width}×{height}", *heads]]
    for name, network in networks.items():
        parameters = sum(parameter.numel() for parameter in network.parameters())
        cells = [f"`{name}`", f"{parameters / 1e6:.2f} million", f"{multiply_adds(network, image) / 1e9:.1f} billion"]
        for count in threads:
            found = by_threads[count][name]
            cells.append(f"{1e3 * found.median:.0f} ({1e3 * found.low:.0f}–{1e3 * found.high:.0f})")
        lines.append(cells)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--size", default="512x256", help="WIDTHxHEIGHT of the image")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="the process's CPU time instead of the clock's")
    print(table(parser.parse_args()))


if __name__ == "__main__":
    main()

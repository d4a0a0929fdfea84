"""The table of docs/export.md: each network as ONNX, its labels held against PyTorch's, its size and its time.

    python benchmarks/onnx_networks.py [NAME …] [--size 256x128] [--exporter torchscript]

Networks are fresh, but for a head that is scaled until it prefers several classes: what is shown is that the graph
computes the same, and what it costs; not what it is worth.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from segadapt.cli.data import parse_size
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError
from segadapt.export.onnx_check import built_in_images, labels_of, session
from segadapt.export.onnx_file import Wanted, export_onnx
from segadapt.export.onnx_graph import EXPORTERS
from segadapt.models.networks import build
from segadapt.weights.saved import ModelHeader, load_model, save_model

NETWORKS: dict[str, Any] = {
    "deeplab_vgg16": "deeplab_vgg16",
    "deeplab_resnet101": "deeplab_resnet101",
    "efficientnet_lite0": "efficientnet_lite0",
    "segformer (b0)": {"name": "segformer", "size": "b0"},
    "hrda (deeplab_small)": {"name": "hrda", "of": "deeplab_small"},
    "hrda (segformer b0)": {"name": "hrda", "of": {"name": "segformer", "size": "b0"}},
    "dinov2 (s)": {"name": "dinov2", "size": "s"},
    "dinov2 (s, registers)": {"name": "dinov2", "size": "s", "registers": True},
    "dinov2 (s, pad)": {"name": "dinov2", "size": "s", "fit": "pad"},
    "dinov3 (s)": {"name": "dinov3", "size": "s"},
    "deeplab_small": "deeplab_small",
    "deeplab_small_bn": "deeplab_small_bn",
}


def write(path: Path, choice: Any, size: tuple[int, int]) -> None:
    """A fresh network, whose logits differ by about 1 between classes."""
    torch.manual_seed(0)
    space = load_label_space("cityscapes19")
    network = build(choice, classes=len(space)).eval()
    image = torch.from_numpy(built_in_images(size)[0].pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        factor = 1 / network(image).logits.std(dim=1).mean().clamp(min=1e-6)
        for parameter in network.head_parameters()[-2:]:
            parameter.mul_(factor)
    header = ModelHeader(
        network=choice if isinstance(choice, str) else choice["name"],
        attention=False,
        pixels=network.pixels.name,
        label_space=space.as_dict(),
        size=size,
    )
    save_model(path, network, header)


def row(name: str, size: tuple[int, int], wanted: Wanted) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        write(file, NETWORKS[name], size)
        begun = time.perf_counter()
        try:
            made = export_onnx(file, load_model(file), wanted)
        except SegadaptError as error:
            return f"| `{name}` | no: {error.what} | | | | |"
        seconds = time.perf_counter() - begun
        running, image = session(made.model.SerializeToString()), built_in_images(size)[0].pixels
        times = [
            min(_seconds(lambda: made.predictor.labels(image)) for _ in range(3)),
            min(_seconds(lambda: labels_of(running, image[None])) for _ in range(3)),
        ]
        cells = [f"`{name}`", made.exporter, f"{made.agreement.percent:.3f}", f"{made.model.ByteSize() / 1e6:.0f}"]
        return f"| {' | '.join([*cells, *(f'{1000 * spent:.0f}' for spent in times), f'{seconds:.0f}'])} |"


def _seconds(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NETWORKS, []], help="which; default all")
    parser.add_argument("--size", default="256x128", help="of the networks' input")
    parser.add_argument("--exporter", choices=EXPORTERS, help="this one alone")
    given = parser.parse_args()
    wanted = Wanted() if given.exporter is None else Wanted(exporters=(given.exporter,))
    print("| network | exporter | labels as PyTorch's, % | MB | PyTorch, ms | ONNX Runtime, ms | export, s |")
    print("|---|---|---|---|---|---|---|")
    for name in given.names or NETWORKS:
        print(row(name, parse_size(given.size, "--size"), wanted), flush=True)


if __name__ == "__main__":
    main()

"""How much of the CPU time of `stylize` and `pseudo_labels` their networks take (at least 80 % in float32).

    python benchmarks/pictures.py [--stages stylize pseudo_labels] [--size 1024x512] [--images 4] [--threads 2]

Takes a picture of the sample domains, enlarged to the size of a GTA5 frame (1914×1052) or a Cityscapes frame
(2048×1024), or to `--files`, with noise of σ 4 so that it is as hard to compress as a rendered frame. Then it runs the
stage on a few such files (reading, network, writing, selection of pixels, contact sheet) and, in turns, its network
alone on inputs of the same shapes. Weights are random; the times do not depend on them.

Times are CPU time of the process with all its threads: what is spent beside the networks is the difference.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from segadapt.data.label_spaces import load_label_space
from segadapt.data.sample import sample_pair
from segadapt.engine.runtime import Precision, Runtime
from segadapt.inference.settings import PseudoLabelsSettings, StylizeSettings
from segadapt.models.networks import build
from segadapt.models.saved import GeneratorHeader, ModelHeader, SavedModel, save_generator
from segadapt.models.style_transfer import StyleTransfer
from segadapt.pipeline.pictures import Place
from segadapt.pipeline.pseudo_labels import make_pseudo_labels, pseudo_labels_sheet
from segadapt.pipeline.show import Display
from segadapt.pipeline.stylize import stylize_images, stylized_sheet

FRAMES = {"stylize": (1914, 1052), "pseudo_labels": (2048, 1024)}
NOISE = 4.0
Size = tuple[int, int]


def write_frames(folder: Path, size: Size, count: int) -> list[Place]:
    """So many files of the same picture with different noise."""
    picture, _ = sample_pair("gta5", "train", 0, 0, (960, 528))
    pixels = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    folder.mkdir()
    places = []
    for k in range(count):
        noisy = pixels + np.random.default_rng(k).normal(0, NOISE, pixels.shape)
        path = folder / f"{k:05d}.png"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
        places.append((path, Path(path.stem)))
    return places


def core_seconds(work: Callable[[], object]) -> float:
    """CPU time of the process, all threads, while `work` runs."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Inputs:
    """The inputs that a network class was called with, so that the calls can be made again without all the rest."""

    def __init__(self, kind: type[nn.Module]) -> None:
        self.kind, self.calls = kind, list[tuple[nn.Module, tuple[int, ...], torch.dtype]]()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, self.kind):
            self.calls.append((module, tuple(inputs[0].shape), inputs[0].dtype))

    def again(self, precision: Precision) -> None:
        """The same calls, on pixels that are drawn before."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for module, shape, dtype in self.calls:
                module(torch.full(shape, 127, dtype=dtype) if dtype == torch.uint8 else _noise(shape))


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape).uniform_(-120, 130)


def stage(
    name: str, folder: Path, images: list[Place], size: Size, network: str, place: Runtime
) -> Callable[[], object]:
    """What the stage does after planning, from its model to its contact sheet; to be called once."""
    display = Display(main=False)
    if name == "stylize":
        generator = folder / "generator.safetensors"
        save_generator(generator, StyleTransfer(), GeneratorHeader(size=size))

        def stylize() -> None:
            stylize_images(place, generator, images, folder / "images", StylizeSettings(generator=""), display)
            stylized_sheet(images, folder / "images", [images[0][0]])

        return stylize
    space = load_label_space("cityscapes19")
    segmenter = build(network, classes=len(space)).eval()
    header = ModelHeader(
        network=network,
        attention=False,
        published_aspp=False,
        pixels=segmenter.pixels.name,
        label_space=space.as_dict(),
        size=size,
    )
    saved, settings = SavedModel(segmenter, header), PseudoLabelsSettings(model="")

    def label() -> None:
        found = make_pseudo_labels(place, saved, space, images, folder, settings, display)
        pseudo_labels_sheet(images, folder, space, found)

    return label


def measure(name: str, size: Size, files: Size, options: argparse.Namespace) -> list[tuple[float, float]]:
    """(network alone, whole stage) core-seconds per round, after a call of the network for warming up."""
    place = Runtime(torch.device("cpu"), options.precision, 0, 1, options.threads, 0)
    kind = StyleTransfer if name == "stylize" else type(build(options.network, classes=19))
    times = []
    with tempfile.TemporaryDirectory() as temporary:
        images = write_frames(Path(temporary) / "frames", files, options.images)
        for number in range(options.rounds):
            inputs, folder = Inputs(kind), Path(temporary) / str(number)
            folder.mkdir()
            work = stage(name, folder, images, size, options.network, place)
            hook = nn.modules.module.register_module_forward_pre_hook(inputs)
            whole = core_seconds(work)
            hook.remove()
            times.append((core_seconds(lambda i=inputs: i.again(options.precision)), whole))  # type: ignore[misc]
    return times


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--stages", nargs="+", default=list(FRAMES), choices=list(FRAMES))
    parser.add_argument("--size", default="1024x512", help="input of the networks")
    parser.add_argument("--files", help="size of the images; default: GTA5's and Cityscapes'")
    parser.add_argument("--network", default="deeplab_vgg16", help="the segmenter of pseudo_labels")
    parser.add_argument("--images", type=int, default=4, help="more: the contact sheet weighs less")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = _size(options.size)
    table = Table("stage", "network input", "files", "network, core-s per image", "whole stage", "network / whole")
    rows = []
    for name in options.stages:
        files = _size(options.files) if options.files else FRAMES[name]
        times = np.array(measure(name, size, files, options)) / options.images
        bare, whole = np.median(times, axis=0)
        share = float(np.median(times[:, 0] / times[:, 1]))
        texts = ["x".join(map(str, sides)) for sides in (size, files)]
        table.add_row(name, *texts, f"{bare:.2f}", f"{whole:.2f}", f"{100 * share:.1f} %")
        rows.append({"stage": name, "size": size, "files": files, "seconds": times.tolist(), "share": share})
    Console().print(f"torch {torch.__version__}, {options.precision}, {options.threads} threads, {options.network}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _size(text: str) -> Size:
    width, height = (int(side) for side in text.split("x"))
    return width, height


if __name__ == "__main__":
    main()

"""How long it takes to read one sample of GTA5's size (1914×1052) at 1280×720, on one core.

    python benchmarks/loader.py [--image street.jpg] [--rounds 20] [--json loader.json]

Takes a street picture (the given one, else one of the sample domains), enlarges it to 1914×1052, adds noise of σ 4 so
that it is as hard to compress as a rendered frame, and writes it with a palette label map in GTA5's layout. Then it
times, in turns, on the same sample:

    parts      its three parts in Pillow: decoding the image, resizing it bicubic, decoding the label map
    files      `SegmentationDataset.read` from these files (at most 1.1 × parts)
    prepared   the same from prepared copies (at most 18 ms)
    raw        the same from uncompressed prepared copies (at most 3 ms)

Times are CPU time of the process, which other programs disturb less than wall time; files are in the page cache.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from segadapt.data.cache import plan
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.sample import sample_pair
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.files import write_json

FILE_SIZE, SIZE = (1914, 1052), (1280, 720)
NOISE = 4.0
SAMPLES = 6


def write_samples(root: Path, image: Path | None) -> None:
    """A few pairs in GTA5's layout, of different noise."""
    picture, ids = sample_pair("gta5", "train", 0, 0, (960, 528))
    street = Image.fromarray(picture) if image is None else Image.open(image).convert("RGB")
    pixels = np.asarray(street.resize(FILE_SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
    label = Image.fromarray(ids).resize(FILE_SIZE, Image.Resampling.NEAREST)
    label.putpalette(bytes(range(256)) * 3)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for k in range(SAMPLES):
        noisy = pixels + np.random.default_rng(k).normal(0, NOISE, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{k:05d}.png")
        label.save(root / "labels" / f"{k:05d}.png")


def pillow_parts(dataset: SegmentationDataset, index: int) -> None:
    """What no reader can do without."""
    pair = dataset.pairs[index]
    assert pair.label is not None
    image = Image.open(pair.image)
    image.load()
    image.resize(SIZE, Image.Resampling.BICUBIC)
    Image.open(pair.label).load()


def timed(read: Callable[[int], object], index: int) -> float:
    """CPU milliseconds of one call."""
    start = time.process_time()
    read(index)
    return 1000 * (time.process_time() - start)


def main() -> None:
    """Time all four in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a street picture; default: one of the sample domains")
    parser.add_argument("--rounds", type=int, default=20, help=f"rounds over {SAMPLES} samples")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root, copies, raw_copies = (Path(folder) / name for name in ("gta5", "copies", "raw"))
        write_samples(root, arguments.image)
        space = load_label_space("cityscapes19")

        def opened(prepared_root: Path) -> SegmentationDataset:
            settings = DomainSettings(layout="gta5", root=root, prepared_root=prepared_root)
            return open_domain(settings, space, "train", SIZE)

        files = opened(copies)
        for place, raw in ((copies, False), (raw_copies, True)):
            plan(files, "gta5", place, raw).run(workers=1)
        reads: dict[str, Callable[[int], object]] = {
            "parts": lambda index: pillow_parts(files, index),
            "files": files.read,
            "prepared": opened(copies).read,
            "raw": opened(raw_copies).read,
        }
        times: dict[str, list[float]] = {name: [] for name in reads}
        for _ in range(arguments.rounds):
            for index in range(SAMPLES):
                for name, read in reads.items():
                    times[name].append(timed(read, index))
        sizes = {"prepared": copies, "raw": raw_copies}
        megabytes = {
            name: sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / SAMPLES / 1e6
            for name, place in sizes.items()
        }

    parts = np.array(times["parts"])
    figures = {}
    print(f"{'':10}{'ms, median':>12}{'10 %':>8}{'90 %':>8}{'× parts':>10}{'MB':>8}")
    for name, values in times.items():
        low, middle, high = np.percentile(values, [10, 50, 90])
        ratio = float(np.median(np.array(values) / parts))
        size = f"{megabytes[name]:8.2f}" if name in megabytes else ""
        print(f"{name:10}{middle:12.1f}{low:8.1f}{high:8.1f}{ratio:10.3f}{size}")
        figures[name] = {"median_ms": float(middle), "p10_ms": float(low), "p90_ms": float(high), "times_parts": ratio}
    if arguments.json is not None:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()

"""How hard the sample domains are: the figures of docs/sample-domains.md, by the demo network.

    python benchmarks/sample_calibration.py --steps 2000 --seed 0 --threads 2

draws the sample, trains the small DeepLab from scratch on the rendered domain ("source-only"), on the labelled camera
domain ("target-trained"), and on rendered pictures matched to the camera look channel by channel ("histogram",
"mean and deviation"), tests all on the camera domain's val split, and prints a table.

    python benchmarks/sample_calibration.py --sheet docs/images/sample-domains.png

draws the contact sheet of both looks, each picture beside its labels over it, and stops.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from segadapt.data.label_spaces import IGNORE, LabelSpace, load_label_space
from segadapt.models.small import DeepLabSmall
from segadapt.sample import SAMPLE_VERSION, sample_pair, write_sample
from segadapt.sample.domains import DOMAINS, draw_pair

TRAIN_SIZE = (240, 120)
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """A whole split in memory."""

    images: Bytes  # (N, h, w, 3) at the training size
    labels: Bytes  # (N, h, w) train ids at the training size
    full_labels: list[Bytes]  # each (H, W), train ids at full size


def read_split(images: list[Path], labels: list[Path], table: Bytes) -> Split:
    """Read pairs."""
    return shrunk(map(Image.open, images), [table[np.asarray(Image.open(path))] for path in labels])


def shrunk(pictures: Iterable[Image.Image], full: list[Bytes]) -> Split:
    """Pictures and their train ids at full size: bicubic and nearest to TRAIN_SIZE."""
    small = [np.asarray(Image.fromarray(label).resize(TRAIN_SIZE, Image.Resampling.NEAREST)) for label in full]
    images = [np.asarray(picture.resize(TRAIN_SIZE, Image.Resampling.BICUBIC)) for picture in pictures]
    return Split(np.stack(images), np.stack(small), full)


def read_source(root: Path, split: str, table: Bytes) -> Split:
    """A split of the rendered domain (GTA5 layout)."""
    names = (root / f"{split}.txt").read_text().split()
    return read_split([root / "images" / name for name in names], [root / "labels" / name for name in names], table)


def read_target(root: Path, split: str, table: Bytes) -> Split:
    """A split of the camera domain (Cityscapes layout)."""
    images = sorted((root / "leftImg8bit" / split).rglob("*.png"))
    labels = sorted((root / "gtFine" / split).rglob("*_labelIds.png"))
    return read_split(images, labels, table)


def camera_look(count: int, table: Bytes) -> Split:
    """Streets of the rendered domain in the camera domain's paint and camera: no style transfer can do better."""
    style = replace(DOMAINS["cityscapes"], statistics=DOMAINS["gta5"].statistics)
    pairs = [draw_pair(style, Random(f"camera look {index}"), (480, 240)) for index in range(count)]
    return shrunk((Image.fromarray(picture) for picture, _ in pairs), [table[ids] for _, ids in pairs])


def match_histograms(images: Bytes, reference: Bytes) -> Bytes:
    """Images whose histogram of each channel, over all of them, is that of `reference`."""
    matched = np.empty_like(images)
    for channel in range(3):
        ranks = np.cumsum(np.bincount(images[..., channel].ravel(), minlength=256)) / images[..., channel].size
        wanted = np.cumsum(np.bincount(reference[..., channel].ravel(), minlength=256)) / reference[..., channel].size
        table = np.clip(np.rint(np.interp(ranks, wanted, np.arange(256))), 0, 255).astype(np.uint8)
        matched[..., channel] = table[images[..., channel]]
    return matched


def match_each_histogram(images: Bytes, reference: Bytes, seed: int) -> Bytes:
    """As `match_histograms`, each image to one image of `reference`, drawn by chance."""
    chosen = np.random.default_rng(seed).integers(len(reference), size=len(images))
    return np.concatenate([match_histograms(images[[i]], reference[[other]]) for i, other in enumerate(chosen)])


def match_moments(images: Bytes, reference: Bytes) -> Bytes:
    """Images whose mean and standard deviation of each channel, over all of them, are those of `reference`."""
    axes = (0, 1, 2)
    scaled = (images - images.mean(axes)) / images.std(axes) * reference.std(axes) + reference.mean(axes)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def train(split: Split, classes: int, steps: int, batch: int, rate: float, seed: int, bf16: bool) -> DeepLabSmall:
    """Train from scratch: Adam, polynomial decay (0.9), plain cross-entropy, half of the images mirrored."""
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    network = DeepLabSmall(classes).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps) ** 0.9
        chosen = chance.integers(len(split.images), size=batch)
        images = torch.from_numpy(split.images[chosen]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(split.labels[chosen]).long()
        if chance.random() < 0.5:
            images, labels = images.flip(3), labels.flip(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images.contiguous()).logits
        logits = network.upsample(logits.float(), (labels.shape[1], labels.shape[2]))
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


@torch.no_grad()
def scores(network: DeepLabSmall, split: Split, classes: int) -> NDArray[np.float64]:
    """IoU in percent per class over all images at full label size; NaN for classes that never occur."""
    confusion = np.zeros((classes, classes), np.int64)
    for image, label in zip(split.images, split.full_labels, strict=True):
        logits = network(torch.from_numpy(image).permute(2, 0, 1)[None]).logits
        predicted = network.upsample(logits, (label.shape[0], label.shape[1])).argmax(1)[0].numpy()
        known = label != IGNORE
        pairs = label[known].astype(np.int64) * classes + predicted[known]
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.diag(confusion) / union)


def print_table(space: LabelSpace, results: dict[str, NDArray[np.float64]]) -> None:
    """Print mIoU, IoU per class, and what each run recovers of the gap between source-only and target-trained."""
    print("| run | mIoU | share of the gap |\n|---|---|---|")
    means = {name: float(np.nanmean(result)) for name, result in results.items()}
    low, high = means.get("source-only"), means.get("target-trained")
    for name, mean in means.items():
        share = "" if low is None or high is None else f"{(mean - low) / (high - low):.2f}"
        print(f"| {name} | {mean:.1f} | {share} |")
    print("\n| class | " + " | ".join(results) + " |\n|---" + "|---" * len(results) + "|")
    for index, name in enumerate(space.classes):
        print(f"| {name} | " + " | ".join(f"{result[index]:.0f}" for result in results.values()) + " |")


def contact_sheet(space: LabelSpace, rows: int = 5, tile: tuple[int, int] = (300, 150)) -> Image.Image:
    """Rows of rendered picture, its labels over it, camera picture, its labels over it."""
    sheet = Image.new("RGB", (4 * tile[0], rows * tile[1]))
    colors = np.zeros((256, 3), np.float32)
    colors[: len(space.classes)] = space.colors
    for row in range(rows):
        for column, domain in enumerate(("gta5", "cityscapes")):
            picture, labels = sample_pair(domain, "train", row)
            over = 0.35 * picture + 0.65 * colors[space.table("cityscapes")[labels]]
            for place, content in ((2 * column, picture), (2 * column + 1, over.astype(np.uint8))):
                small = Image.fromarray(content).resize(tile, Image.Resampling.LANCZOS)
                sheet.paste(small, (place * tile[0], row * tile[1]))
    return sheet.quantize(256, kmeans=1, dither=Image.Dither.NONE)  # a third of the size, and hardly to be seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, help="folder of the sample domains; default: drawn anew, temporary")
    parser.add_argument("--train", type=int, default=400, help="images per domain to train on")
    parser.add_argument("--val", type=int, default=100, help="images per domain to test on")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate at the first step")
    parser.add_argument("--seed", type=int, default=0, help="of the training; the sample has its own, 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    parser.add_argument(
        "--runs", nargs="+", help="of source-only target-trained histogram each-histogram moments camera-look"
    )
    parser.add_argument("--sheet", type=Path, help="write the contact sheet here and stop")
    args = parser.parse_args()
    if args.sheet is not None:
        contact_sheet(load_label_space("cityscapes19")).save(args.sheet, optimize=True)
        return
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        root: Path = args.sample or Path(temporary)
        write_sample(root, train=args.train, val=args.val, workers=args.threads)
        space = load_label_space("cityscapes19")
        table = space.table("cityscapes")
        source, target = (read_source(root / "gta5", "train", table), read_target(root / "cityscapes", "train", table))
        test = read_target(root / "cityscapes", "val", table)

    def repainted(images: Bytes) -> Split:
        return Split(images, source.labels, [])

    splits: dict[str, Callable[[], Split]] = {
        "source-only": lambda: source,
        "target-trained": lambda: target,
        "histogram": lambda: repainted(match_histograms(source.images, target.images)),
        "each-histogram": lambda: repainted(match_each_histogram(source.images, target.images, args.seed)),
        "moments": lambda: repainted(match_moments(source.images, target.images)),
        "camera-look": lambda: camera_look(args.train, table),
    }
    print(f"sample version {SAMPLE_VERSION}, {args}", flush=True)
    results: dict[str, NDArray[np.float64]] = {}
    classes = len(space.classes)
    for name in args.runs or splits:
        started = time.perf_counter()
        network = train(splits[name](), classes, args.steps, args.batch, args.rate, args.seed, args.bf16)
        results[name] = scores(network, test, classes)
        print(f"{name}: {np.nanmean(results[name]):.1f} mIoU, {time.perf_counter() - started:.0f} s", flush=True)
    print_table(space, results)


if __name__ == "__main__":
    main()

"""The tiny data set of the traces, drawn from integers alone, so that every machine makes the same pixels.

Not street scenes: bands and boxes of class colours with noise, with all 19 (16) classes and some unlabelled pixels.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UNLABELLED = 19
# class 0..18, then UNLABELLED -> Cityscapes label id
CITYSCAPES_IDS = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33, 0], np.uint8)
# the same -> SYNTHIA class id; terrain, truck and train have none (0)
SYNTHIA_IDS = np.array([3, 4, 2, 21, 5, 7, 15, 9, 6, 0, 1, 10, 17, 8, 0, 19, 0, 12, 11, 0], np.uint8)


def scene(seed: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (H, W, 3) and its class map (H, W) of 0..18 and UNLABELLED."""
    random = np.random.Generator(np.random.PCG64(seed))
    classes = np.zeros((height, width), np.uint8)
    tops = [0, *np.sort(random.integers(0, height, 5)).tolist()]
    for top, label in zip(tops, random.permutation(20)[:6].tolist(), strict=True):
        classes[top:] = label
    for label in random.permutation(np.repeat(np.arange(20), 2)).tolist():
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        w, h = int(random.integers(width // 16, width // 4)), int(random.integers(height // 16, height // 3))
        classes[y : y + h, x : x + w] = label
    palette = np.random.Generator(np.random.PCG64(19)).integers(30, 226, (20, 3))
    shift = random.integers(-25, 26, 3)
    ramp = (np.arange(height) * 40 // height - 20)[:, None, None]
    noise = random.integers(-12, 13, (height, width, 3))
    image = palette[classes] + shift + ramp + noise
    return np.clip(image, 0, 255).astype(np.uint8), classes


def write_micro(out: Path) -> None:
    """Write `out`/GTA5, Synthia (class ids of its transformed labels), TGSTN (stylized copies), Cityscapes and lists.

    Three 480×360 pairs per source set and in Cityscapes train, two 2048×1024 pairs in Cityscapes val; about 10 MB.
    `lists/src.txt`, `tgt_train.txt` and `tgt_val.txt` name them as the published lists do.
    """
    names = [f"{i:05d}.png" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        image, classes = scene(100 + i, 480, 360)
        stylized = (255 - (255 - image.astype(np.int64)) * 4 // 5).astype(np.uint8)
        for folder, ids in (("GTA5", CITYSCAPES_IDS), ("Synthia", SYNTHIA_IDS)):
            _save(image, out / folder / "images" / name)
            _save(ids[classes], out / folder / "labels" / name)
        for folder in ("GTA", "Synthia"):
            _save(stylized, out / "TGSTN" / folder / "images" / name)
    _write_list(out, "src", names)
    _write_list(out, "tgt_train", _write_cityscapes(out, "train", "aa", seeds=range(200, 203), size=(480, 360)))
    _write_list(out, "tgt_val", _write_cityscapes(out, "val", "bb", seeds=range(300, 302), size=(2048, 1024)))


def _write_cityscapes(out: Path, split: str, city: str, seeds: range, size: tuple[int, int]) -> list[str]:
    """Write one image of `size` (width, height) per seed; return their names as the published lists give them."""
    names = []
    for i, seed in enumerate(seeds):
        image, classes = scene(seed, *size)
        base = f"{city}_{i:06d}_000019"
        _save(image, out / "Cityscapes" / "leftImg8bit" / split / city / f"{base}_leftImg8bit.png")
        _save(CITYSCAPES_IDS[classes], out / "Cityscapes" / "gtFine" / split / city / f"{base}_gtFine_labelIds.png")
        names.append(f"{city}/{base}_leftImg8bit.png")
    return names


def _save(array: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)  # noise packs badly: a third of the time, the same pixels


def _write_list(out: Path, name: str, lines: list[str]) -> None:
    (out / "lists").mkdir(exist_ok=True)
    (out / "lists" / f"{name}.txt").write_text("\n".join(lines) + "\n")

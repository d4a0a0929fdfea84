"""Generated data sets: pictures of the sample domains, enlarged, with noise, so that they are as hard to compress as
rendered frames and photographs, in the layouts and sizes of the real data sets."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.sample import sample_pair
from suite.measure import cores
from suite.sizes import Size

NOISE = 4.0  # σ, in grey levels
DRAWN = (960, 528)  # the size that the picture is drawn at
SPACES = {"gta5": "cityscapes19", "synthia": "cityscapes16", "cityscapes": "cityscapes19"}
"""Layout -> label space."""


def write_domain(root: Path, layout: str, size: Size, count: int, picture: Path | None = None) -> DomainSettings:
    """`count` pairs of one picture (a drawn one, or a file) with different noise; split train, images and labels."""
    drawn, ids = sample_pair("gta5", "train", 0, 0, DRAWN)
    street = Image.fromarray(drawn) if picture is None else Image.open(picture).convert("RGB")
    pixels = np.asarray(street.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    raw = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
    if layout == "synthia":
        raw = raw % 23  # its class ids
    label = Image.fromarray(raw)
    if layout == "gta5":
        label.putpalette(bytes(range(256)) * 3)

    def write(job: tuple[int, tuple[Path, Path]]) -> None:
        number, (image_file, label_file) = job
        for path in (image_file, label_file):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy(pixels, number)).save(image_file)
        label.save(label_file)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(write, enumerate(_files(root, layout, count))))
    return DomainSettings(layout=layout, root=root, prepared_root=root.parent / "prepared")


def noisy(pixels: NDArray[np.float32], number: int) -> NDArray[np.uint8]:
    """Pixels with noise of their own for each number."""
    noise = np.random.default_rng(number).standard_normal(pixels.shape, np.float32)
    return (pixels + NOISE * noise).clip(0, 255).astype(np.uint8)


def _files(root: Path, layout: str, count: int) -> Iterator[tuple[Path, Path]]:
    """(image, label) paths in the layout's order."""
    for k in range(count):
        if layout == "cityscapes":
            stem = f"train/aachen/aachen_{k:06d}_000019"
            yield root / f"leftImg8bit/{stem}_leftImg8bit.png", root / f"gtFine/{stem}_gtFine_labelIds.png"
        else:
            yield root / f"images/{k:05d}.png", root / f"labels/{k:05d}.png"


def space_of(layout: str) -> LabelSpace:
    """The label space that a layout is read in here."""
    return load_label_space(SPACES[layout])


def opened(settings: DomainSettings, size: Size) -> SegmentationDataset:
    """All pairs at a training size, from prepared copies where there are any."""
    return open_domain(settings, space_of(settings.layout), "train", size)

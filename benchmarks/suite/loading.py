"""Reading samples on one core: CPU time, which other programs disturb less than wall time; files in the page cache.

    files          `SegmentationDataset.read` from image and label files
    … zip files    the same from members of a zip file, read where they lie, stored as they are or deflated
    prepared       the same from prepared copies (`segadapt data prepare`)
    prepared raw   the same from uncompressed ones (`--raw`)

The bare work is what no reader can do without: decoding the image, resizing it bicubic, decoding the label map.
"""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from reference.reading import known_ids, read_example

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.tools.prepare import plan
from suite.frames import opened, space_of, write_domain
from suite.measure import in_turns
from suite.rows import BARE, OURS, REFERENCE, Row, row_of
from suite.sizes import Sizes, shown

FILES, PREPARED, RAW = "files", "prepared", "prepared raw"
ZIPPED = {"stored zip files": zipfile.ZIP_STORED, "deflated zip files": zipfile.ZIP_DEFLATED}
WIDE_LAYOUTS = {"gta5", "synthia"}  # their training size is that of SE-GAN's source


def loader_rows(
    sizes: Sizes, folder: Path, *, samples: int, rounds: int, reference: bool, picture: Path | None = None
) -> Iterator[Row]:
    """Five rows per data set."""
    for layout, frame in sizes.frames.items():
        size = sizes.source if layout in WIDE_LAYOUTS else sizes.target
        settings = write_domain(folder / layout, layout, frame, samples, picture)
        data: dict[str, SegmentationDataset] = {FILES: opened(settings, size)}
        for name, method in ZIPPED.items():
            data[name] = opened(settings.model_copy(update={"root": zipped(folder / layout, method)}), size)
        bytes_of: dict[str, int] = {}
        for name, raw in ((PREPARED, False), (RAW, True)):
            place = folder / f"{layout} {name}"
            bytes_of[name] = plan(data[FILES], layout, place, raw).run(workers=1).bytes
            data[name] = opened(settings.model_copy(update={"prepared_root": place}), size)
            assert data[name].image_copies is not None
        known = known_ids(space_of(layout), settings.label_encoding(space_of(layout)))
        pairs = data[FILES].pairs
        works: dict[str, Callable[[int], object]] = {name: one.read for name, one in data.items()}
        works[BARE] = lambda index, d=data[FILES]: pillow_parts(d, index)  # type: ignore[misc]
        if reference:
            works[REFERENCE] = lambda index, p=pairs, s=size, k=known: read_example(p[index], s, k)  # type: ignore[misc]
        cpu = torch.device("cpu")
        times = in_turns(works, lambda number: number % samples, rounds * samples, cpu, cpu_time=True)
        for name in data:
            mine = {OURS: times[name]}
            mine |= {other: times[other] for other in (BARE, REFERENCE) if other in times}
            if name in bytes_of:
                mine.pop(BARE)
            row = row_of("loader", f"{layout}, {name}", mine, size=f"{shown(frame)} to {shown(size)}", unit="sample")
            yield replace(row, more={"MB": bytes_of[name] / samples / 1e6} if name in bytes_of else {})


def zipped(root: Path, method: int) -> Path:
    """All files of a data set in one zip file beside it."""
    place = root.with_name(f"{root.name} {method}.zip")
    with zipfile.ZipFile(place, "w", method) as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(root))
    return place


def pillow_parts(dataset: SegmentationDataset, index: int) -> None:
    """Decode the image, resize it, decode the label map."""
    pair = dataset.pairs[index]
    assert pair.label is not None
    image = Image.open(pair.image)
    image.load()
    image.resize(dataset.size, Image.Resampling.BICUBIC)
    Image.open(pair.label).load()

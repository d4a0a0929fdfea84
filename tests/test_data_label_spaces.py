"""Label spaces: the published tables, one's own YAML, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cityscapesscripts.helpers.labels import labels as cityscapes_labels

from segadapt.data.class_colors import automatic_colors
from segadapt.data.label_spaces import (
    IGNORE,
    UNKNOWN,
    LabelSpace,
    load_label_space,
    remap,
    shipped_label_spaces,
)
from segadapt.errors import UsageError

SIXTEEN = [name for name in load_label_space("cityscapes19").classes if name not in ("terrain", "truck", "train")]
THIRTEEN = [name for name in SIXTEEN if name not in ("wall", "fence", "pole")]


def test_cityscapes19_is_the_benchmarks_own_table() -> None:
    space = load_label_space("cityscapes19")
    table = space.table("cityscapes")
    scored = {label.trainId: label for label in cityscapes_labels if not label.ignoreInEval}
    assert space.classes == tuple(scored[k].name for k in range(19))
    assert [tuple(color) for color in space.colors] == [scored[k].color for k in range(19)]
    for label in cityscapes_labels:
        expected = IGNORE if label.ignoreInEval else label.trainId
        assert table[label.id & 0xFF] == expected, label.name
    assert table[34] == IGNORE  # GTA5's license plate
    assert (table[35:255] == UNKNOWN).all()


def test_sixteen_classes_are_written_with_the_right_ids_and_colours() -> None:
    space, full = load_label_space("cityscapes16"), load_label_space("cityscapes19")
    assert list(space.classes) == SIXTEEN
    by_name = {label.name: label for label in cityscapes_labels}
    assert space.raw_ids("cityscapes").tolist() == [by_name[name].id for name in SIXTEEN]
    assert [tuple(color) for color in space.colors] == [by_name[name].color for name in SIXTEEN]
    # Class 9 is sky in 16 classes and terrain in 19: the published colour map writer is right only if told which.
    assert space.classes[9] == "sky" and full.classes[9] == "terrain"
    assert space.palette[9].tolist() == [70, 130, 180]
    ignored = [label.id for label in cityscapes_labels if label.name in ("terrain", "truck", "train")]
    assert (space.table("cityscapes")[ignored] == IGNORE).all()


def test_synthia_ids_are_the_published_ones() -> None:
    published = {
        1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car",
        9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle", 15: "traffic light", 17: "rider",
        19: "bus", 21: "wall",
    }  # fmt: skip
    space = load_label_space("cityscapes16")
    table = space.table("synthia")
    for raw in range(23):
        expected = space.classes.index(published[raw]) if raw in published else IGNORE
        assert table[raw] == expected, raw
    assert (table[23:] == UNKNOWN).all()


def test_carla_and_camvid_meet_in_ten_classes() -> None:
    space = load_label_space("carla_camvid10")
    names = [*space.classes, "ignored"]

    def named(encoding: str, raws: range) -> list[str]:
        return [names[min(value, 10)] for value in space.table(encoding)[list(raws)].tolist()]

    assert named("carla", range(14)) == [
        "ignored", "building", "fence", "ignored", "person", "pole", "road", "road", "sidewalk", "vegetation", "car",
        "ignored", "traffic sign", "sky",
    ]  # fmt: skip
    assert named("camvid", range(12)) == [
        "sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person",
        "ignored", "ignored",
    ]  # fmt: skip
    assert space.raw_ids("carla")[0] == 7  # road, not road line


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("cityscapes_train", {0: "road", 9: "terrain", 13: "car", 14: "truck", 18: "bicycle", 19: "", 255: ""}),
        (
            "mapillary",
            {2: "sidewalk", 13: "road", 21: "rider", 24: "road", 49: "", 50: "traffic sign", 58: "train", 65: ""},
        ),
        ("mapillary_v2", {4: "sidewalk", 21: "road", 57: "road", 95: "traffic light", 108: "car", 115: "", 123: ""}),
        ("idd", {0: "road", 1: "", 3: "terrain", 8: "", 9: "car", 19: "traffic light", 25: "sky", 255: ""}),
        ("wilddash2", {7: "road", 31: "train", 34: "truck", 35: "car", 48: "rider", 58: "motorcycle", 80: "sidewalk"}),
    ],
)
def test_data_sets_with_ids_of_their_own_become_cityscapes_classes(encoding: str, classes: dict[int, str]) -> None:
    for name in ("cityscapes19", "cityscapes16", "camvid11"):
        space = load_label_space(name)
        table = space.table(encoding)
        for raw, label in classes.items():
            # A class that a space has not is ignored there, as its Cityscapes id is; a rider is camvid11's bicyclist.
            found = [label in (own, *aliases) for own, aliases in zip(space.classes, space.aliases, strict=True)]
            assert table[raw] == (found.index(True) if label and any(found) else IGNORE), (name, raw)
    space = load_label_space("cityscapes19")
    full = space.table(encoding)
    assert set(range(19)) - set(full.tolist()) <= {16}  # IDD has no class of trains alone
    last = {"cityscapes_train": 20, "mapillary": 66, "mapillary_v2": 124, "idd": 26, "wilddash2": 81}[encoding]
    assert (full[:last] != UNKNOWN).all() and (full[last:255] == UNKNOWN).all()
    with pytest.raises(UsageError, match=f"has no '{encoding}' ids to write"):
        space.raw_ids(encoding)


def test_more_encodings_are_no_part_of_a_space() -> None:
    """Its content is in the fingerprints of runs, and in models; a space's own encoding of a name comes first."""
    space = load_label_space("cityscapes19")
    assert "mapillary" in space.encodings and "mapillary" not in str(space.as_dict())
    own = [{"name": "road", "ids": {"cityscapes": 7, "idd": 1}}, {"name": "car", "ids": {"cityscapes": 26, "idd": 0}}]
    mine = LabelSpace.from_dict({"name": "mine", "classes": own})
    assert mine.table("idd")[:3].tolist() == [1, 0, UNKNOWN] and mine.table("mapillary")[13] == 0
    assert "mapillary" not in LabelSpace.from_dict(["water", "quay"], "x").encodings


def test_subsets() -> None:
    assert load_label_space("cityscapes19").subsets == {
        "cityscapes16": tuple(SIXTEEN),
        "cityscapes13": tuple(THIRTEEN),
    }
    assert load_label_space("cityscapes16").subsets == {"cityscapes13": tuple(THIRTEEN)}


@pytest.mark.parametrize("name", shipped_label_spaces())
def test_shipped_spaces_survive_a_header_and_know_train_ids(name: str) -> None:
    space = load_label_space(name)
    again = LabelSpace.from_dict(yaml.safe_load(yaml.safe_dump(space.as_dict())))
    assert again == space and again.digest == space.digest and hash(again) == hash(space)
    train = space.table("train")
    count = len(space)
    assert train[:count].tolist() == list(range(count)) and train[255] == IGNORE
    assert (train[count:255] == UNKNOWN).all()
    for encoding in ("train", *space.own_encodings):
        if encoding != "camvid" and encoding != "carla":
            assert (space.table(encoding)[space.raw_ids(encoding)] == np.arange(count)).all()


def test_a_shipped_space_is_read_once_and_nobody_can_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_label_space("cityscapes19")
    monkeypatch.setattr("segadapt.data.label_spaces.read_yaml", None)
    assert load_label_space("cityscapes19") is before
    assert not before.colors.flags.writeable and not before.palette.flags.writeable


def test_remap_goes_by_name() -> None:
    nineteen, sixteen = load_label_space("cityscapes19"), load_label_space("cityscapes16")
    camvid = load_label_space("camvid11")
    table = remap(nineteen, sixteen)
    for k, name in enumerate(nineteen.classes):
        assert table[k] == (SIXTEEN.index(name) if name in SIXTEEN else UNKNOWN)
    assert table[IGNORE] == IGNORE
    to_camvid = remap(nineteen, camvid)
    assert camvid.classes[to_camvid[nineteen.classes.index("rider")]] == "bicyclist"
    assert to_camvid[nineteen.classes.index("truck")] == UNKNOWN
    # A bicyclist may be a rider or a bicycle there: that is nobody's partner.
    assert remap(camvid, nineteen)[camvid.classes.index("bicyclist")] == UNKNOWN


OWN: dict[str, Any] = {
    "name": "harbour",
    "classes": [
        {"name": "water", "color": [0, 8, 20], "ids": {"survey": [1, 2]}, "rgb": {"painted": [[0, 9, 9], [0, 0, 9]]}},
        {"name": "quay", "color": [120, 120, 120], "ids": {"survey": 5}, "rgb": {"painted": [90, 90, 90]}},
        {"name": "ship", "color": [200, 30, 30], "ids": {"survey": 9}, "rgb": {"painted": [255, 0, 0]}},
    ],
    "ignored_ids": {"survey": [0]},
    "ignored_rgb": {"painted": [[0, 0, 0]]},
    "subsets": {"moving": ["water", "ship"]},
}  # fmt: skip


def test_ones_own_space_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "harbour.yaml"
    path.write_text(yaml.safe_dump(OWN))
    space = load_label_space(path)
    assert space.classes == ("water", "quay", "ship") and space.encodings == ("train", "survey", "painted")
    assert space.table("survey")[:10].tolist() == [255, 0, 0, 254, 254, 1, 254, 254, 254, 2]
    colours = np.array([[[0, 0, 9], [90, 90, 90]], [[0, 0, 0], [1, 0, 0]]], np.uint8)
    assert space.decode(colours, "painted").tolist() == [[0, 1], [IGNORE, UNKNOWN]]
    assert space.decode(np.array([[0, 5], [9, 3]], np.uint8), "survey").tolist() == [[IGNORE, 1], [2, UNKNOWN]]
    with pytest.raises(UsageError, match=r"no 'painted' ids to write"):
        space.raw_ids("painted")
    with pytest.raises(UsageError, match=r"no encoding 'surveys'.*Did you mean 'survey'"):
        space.table("surveys")


def _changed(**changes: Any) -> dict[str, Any]:
    return {**OWN, **changes}


def _first_class(**changes: Any) -> dict[str, Any]:
    return _changed(classes=[{**OWN["classes"][0], **changes}, *OWN["classes"][1:]])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_changed(clases=[]), r"clases: unknown key.*Did you mean 'classes'"),
        (_first_class(colour=[1, 2, 3]), r"classes.0.colour: unknown key.*Did you mean 'color'"),
        (_first_class(color=[0, 80, 256]), r"classes.0.color: \[0, 80, 256\] is not a colour: give"),
        (_first_class(color=[0, 80]), r"classes.0.color: \[0, 80\] is not a colour: give"),
        (_first_class(name="ship"), r"class name 'ship' occurs twice"),
        ({"classes": ["a\udc80", "a\udc80"]}, "holds text with an invalid character. Write names as plain UTF-8 text"),
        (_first_class(ids={"survey": [1, 5]}), r"id 5 of encoding 'survey' belongs to both 'water' and 'quay'"),
        (_first_class(ids={"survey": [0]}), r"id 0 of encoding 'survey' belongs to both 'water' and 'the ignored'"),
        (_first_class(ids={"survey": [300]}), r"classes.0.ids: encoding 'survey': 300 is not an id: give"),
        (_first_class(rgb={"painted": [[255, 0, 0]]}), r"colour \(255, 0, 0\).*both 'water' and 'ship'"),
        (_first_class(ids={"train": 0}), r"'train' already exists"),
        (_changed(subsets={"moving": ["boat"]}), r"subset 'moving' names 'boat'"),
        (_changed(classes=OWN["classes"][:1]), r"classes: .*at least 2"),
        ({"name": "x"}, r"classes: is missing"),
        ([], r"holds no label space"),
        ("water", r"holds no label space"),
        (["water"], r"classes: has length 1.*at least 2"),
        (["water", False], r"classes.1: False is not a name \(YAML reads yes, no.*quotes"),
        (["water", 7], r"classes.1: 7 is not a name: put it in quotes"),
        (["water", {"color": [1, 2, 3]}], r"classes.1.name: is missing"),
        ({"classes": {"water": 1}}, r"classes: is not a list: give names"),
        (_first_class(color=None), r"classes.0: color is empty \(in YAML, a # begins a comment"),
        (_first_class(color="blue"), r"classes.0.color: 'blue' is not a colour"),
        (_first_class(ids=255), r"classes.0.ids: 255 belongs to no encoding: give it a name, as in ids: {mask: 255}"),
        (_first_class(ids={1: 255}), r"classes.0.ids: 1 is not a name: put it in quotes"),
        (_first_class(ids={"survey": True}), r"classes.0.ids: encoding 'survey': True is not an id"),
        (_first_class(rgb={"painted": [1, 2]}), r"classes.0.rgb: encoding 'painted': \[1, 2\] is not a colour"),
    ],
)
def test_wrong_files_are_told_with_path_and_key(content: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=rf"(?i){told}") as caught:
        load_label_space(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_list_of_names_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "harbour.yaml"
    path.write_text("- water\n- quay\n- ship\n")
    space = load_label_space(path)
    assert space.name == "harbour" and space.classes == ("water", "quay", "ship") and space.encodings == ("train",)
    same = {"classes": ["water", {"name": "quay"}, "ship"]}
    assert LabelSpace.from_dict(same, path) == space
    assert LabelSpace.from_dict(space.as_dict()) == space


def test_nothing_ignored_survives_a_header() -> None:
    """Models hold such lists."""
    space = LabelSpace.from_dict(_changed(ignored_ids={"survey": []}, ignored_rgb={"painted": []}))
    assert LabelSpace.from_dict(space.as_dict()) == space


def test_colours_in_hexadecimal() -> None:
    classes: list[Any] = [{"name": "a", "color": "#ff8800"}, {"name": "b", "color": "#0aF"}]
    classes.append({"name": "c", "rgb": {"paint": ["#010203", [4, 5, 6]]}})
    space = LabelSpace.from_dict({"name": "own", "classes": classes, "ignored_rgb": {"paint": "#000000"}})
    assert space.colors[:2].tolist() == [[255, 136, 0], [0, 170, 255]]
    assert space.rgb["paint"][2] == ((1, 2, 3), (4, 5, 6)) and space.ignored_rgb["paint"] == ((0, 0, 0),)


def test_colours_that_are_left_out_are_distinct_and_the_same_everywhere() -> None:
    """Held as numbers: they are in the digest of a label space, and so in that of every stage."""
    chosen = automatic_colors([None] * 254)
    assert chosen[:3] == [(213, 94, 0), (86, 180, 233), (240, 228, 66)] and chosen[7:9] == [(120, 0, 255), (75, 255, 0)]
    assert len(set(chosen)) == 254 and automatic_colors([None] * 5) == chosen[:5]
    luma = np.array(chosen) @ [0.299, 0.587, 0.114]
    assert luma.min() > 50 and luma.max() < 220  # neither the black of ignored pixels nor paper
    given = [(213, 94, 10), None, (80, 180, 230), None]
    mixed = automatic_colors(given)
    assert (mixed[0], mixed[2]) == (given[0], given[2]) and mixed[1::2] == [(240, 228, 66), (0, 158, 115)]


def test_what_is_not_there_or_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown label space 'cityscape19'.*Did you mean 'cityscapes19'"):
        load_label_space("cityscape19")
    with pytest.raises(UsageError, match=r"none.yaml: .*does not exist"):
        load_label_space(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [harbour\nclasses: {")
    with pytest.raises(UsageError, match=r"bad.yaml: not valid YAML \(line"):
        load_label_space(tmp_path / "bad.yaml")

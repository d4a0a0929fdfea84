"""What stages have made in place of a data set's own: stylized copies that join the originals, pseudo-labels."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import NAMES, write_layout
from segadapt.data.dataset import JoinedDataset, SegmentationDataset
from segadapt.data.label_spaces import load_label_space
from segadapt.data.made import with_images, with_labels
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.errors import SegadaptError, UsageError

SIZE = (40, 24)
SPACE = load_label_space("cityscapes19")


def opened(layout: str, root: Path, labels: bool = True) -> SegmentationDataset:
    write_layout(root, layout)
    settings = DomainSettings.model_validate({"layout": layout, "root": root, "prepared": False})
    return open_domain(settings, SPACE, "train", SIZE, labels=labels)


def write_copies(folder: Path, names: list[str], size: tuple[int, int] = (60, 30)) -> None:
    """A picture of one grey level for each name: 10, 20, 30 …"""
    for number, name in enumerate(names, start=1):
        path = (folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (10 * number,) * 3).save(path)


@pytest.mark.parametrize("layout", ["gta5", "synthia"])
def test_stylized_copies_join_the_originals_with_the_same_labels(layout: str, tmp_path: Path) -> None:
    own = opened(layout, tmp_path / "own")
    write_copies(tmp_path / "made", NAMES[layout])  # of another size than the labels
    copies = with_images(own, tmp_path / "made")
    joined = JoinedDataset((own, copies))
    assert len(joined) == 6
    for index in range(3):
        original, copy = joined.read(index), joined.read(3 + index)
        assert np.array_equal(original.image, own.read(index).image)
        assert (copy.image == 10 * (index + 1)).all() and copy.image.shape == original.image.shape
        assert copy.name == original.name and copy.label is not None and original.label is not None
        assert np.array_equal(copy.label, original.label)
    with pytest.raises(IndexError):
        joined.read(6)
    own_root, made = tmp_path / "own", tmp_path / "made"
    assert own.origin == f"3 pairs: images of {own_root}, labels of {own_root}"
    assert joined.origin == f"{own.origin} and 3 pairs: images of {made}, labels of {own_root}"
    before = joined.digest
    write_copies(tmp_path / "made", NAMES[layout], size=(600, 300))
    assert JoinedDataset((own, with_images(own, tmp_path / "made"))).digest != before


def test_copies_of_images_in_sub_folders_are_found_there_or_side_by_side(tmp_path: Path) -> None:
    own = opened("cityscapes", tmp_path / "own")
    write_copies(tmp_path / "kept", [pair.name for pair in own.pairs])
    write_copies(tmp_path / "flat", [Path(pair.name).name for pair in own.pairs])
    for folder in ("kept", "flat"):
        found = with_images(own, tmp_path / folder)
        assert [int(found.read(index).image[0, 0, 0]) for index in range(3)] == [10, 20, 30]


@pytest.mark.parametrize("ending", ["", "_PseudoLabel"])
def test_pseudo_labels_are_the_labels_and_the_true_ones_are_not_opened(ending: str, tmp_path: Path) -> None:
    own = opened("cityscapes", tmp_path / "own", labels=False)
    shutil.rmtree(tmp_path / "own" / "gtFine")
    for number, pair in enumerate(own.pairs):
        path = tmp_path / "made" / Path(pair.name).parent / f"{Path(pair.name).stem}{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = np.full((12, 20), number, np.uint8)
        content[:6] = 255
        Image.fromarray(content).save(path)
    made = with_labels(own, tmp_path / "made", SPACE)
    for index in range(3):
        sample = made.read(index)
        assert sample.label is not None and sample.label.shape == (24, 40)
        assert (sample.label[:12] == 255).all() and (sample.label[12:] == index).all()
        assert np.array_equal(sample.image, own.read(index).image)
    assert made.digest != own.digest
    assert made.origin == f"3 pairs: images of {tmp_path / 'own'}, labels of {tmp_path / 'made'}"


@pytest.mark.parametrize("what", ["stylized copy", "pseudo-label"])
def test_a_missing_counterpart_is_one_clear_error(what: str, tmp_path: Path) -> None:
    own = opened("cityscapes", tmp_path / "own")
    folder = tmp_path / "made"

    def join() -> SegmentationDataset:
        return with_images(own, folder) if what == "stylized copy" else with_labels(own, folder, SPACE)

    with pytest.raises(UsageError, match=str(folder)):
        join()
    write_copies(folder, [pair.name for pair in own.pairs[:2]])
    with pytest.raises(UsageError) as raised:
        join()
    lost = own.pairs[2].name
    assert str(raised.value).startswith(f"{folder}: has no {what} of {lost}.") and "\n" not in str(raised.value)


def test_two_images_of_one_name_need_their_sub_folders(tmp_path: Path) -> None:
    own = opened("cityscapes", tmp_path / "own")
    first = own.pairs[0]
    twin = replace(first, name=f"other/{Path(first.name).name}")
    both = replace(own, pairs=[first, twin])
    write_copies(tmp_path / "flat", [Path(first.name).name])
    with pytest.raises(UsageError, match=f"is the stylized copy of {first.name} and of {twin.name}"):
        with_images(both, tmp_path / "flat")
    assert len(with_images(replace(own, pairs=[first, first]), tmp_path / "flat")) == 2
    write_copies(tmp_path / "kept", [first.name, twin.name])
    assert [int(with_images(both, tmp_path / "kept").read(index).image[0, 0, 0]) for index in (0, 1)] == [10, 20]


def test_a_pseudo_label_that_is_no_label_map_is_named(tmp_path: Path) -> None:
    own = opened("cityscapes", tmp_path / "own")
    write_copies(tmp_path / "made", [pair.name for pair in own.pairs])  # colour pictures
    with pytest.raises(SegadaptError, match="colour image"):
        with_labels(own, tmp_path / "made", SPACE).read(0)

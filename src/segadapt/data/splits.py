"""Which pairs of a data set belong to a split, where image lists and a held-out end have their say."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from segadapt.data.catalog import Layout, Pair
from segadapt.data.image_lists import read_list, without_suffix
from segadapt.errors import UsageError


def select(
    layout: Layout,
    root: Path,
    split: str,
    lists: dict[str, Path],
    holdout: int = 0,
) -> list[Pair]:
    """The pairs of a split, where image lists (split -> file) and a held-out end have their say.

    A list names the images of its split and their order. For layouts without splits, `holdout` makes the last so many
    names (of the train list, where there is one) the split "val". Raises UsageError for a split that does not exist,
    a list that names a missing file, and a holdout that leaves nothing.
    """
    if layout.splits:
        pairs = layout.index(root, split)
        return listed(pairs, lists[split], layout.image_folder(root, split)) if split in lists else pairs
    if split not in ("train", "val"):
        raise UsageError(f"layout '{layout.name}' has no split '{split}'", where=root, remedy="Known: train, val.")
    pairs = layout.index(root)
    folder = layout.image_folder(root, split)
    if split == "val" and "val" in lists:
        return listed(pairs, lists["val"], folder)
    if "train" in lists:
        pairs = listed(pairs, lists["train"], folder)
    else:
        pairs = [pair for pair in pairs if pair.name not in layout.left_out]
    if split == "val" and not holdout:
        raise UsageError(
            f"layout '{layout.name}' comes without a split 'val'",
            where=root,
            remedy="Set holdout (the last so many images become val) or val_list.",
        )
    if holdout >= len(pairs):
        raise UsageError(
            f"holdout {holdout} leaves none of the {len(pairs)} images to train on",
            where=root,
            remedy="Hold out fewer.",
        )
    cut = len(pairs) - holdout
    return pairs[cut:] if split == "val" else pairs[:cut]


def listed(pairs: Iterable[Pair], path: Path, folder: Path) -> list[Pair]:
    """The pairs that an image list names, in its order; `folder` is where their images lie. Raises UsageError."""
    by_name = {pair.name: pair for pair in pairs}
    # Lists as PASCAL VOC's leave the suffix out; two images that differ in it alone need it.
    stems = Counter(without_suffix(name) for name in by_name)
    by_stem = {without_suffix(name): name for name in by_name if stems[without_suffix(name)] == 1}
    chosen = []
    for number, line in read_list(path):
        name = line if line in by_name else by_stem.get(line, line)
        if name not in by_name:
            raise UsageError(
                f"names {name}, but there is no image {folder / name}",
                where=f"{path}:{number}",
                remedy="Correct the list (paths are relative to the image folder) or add the file.",
            )
        chosen.append(by_name[name])
    if not chosen:
        raise UsageError("the image list is empty", where=path, remedy="Give one image name per line.")
    return chosen

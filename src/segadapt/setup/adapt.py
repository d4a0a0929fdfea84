"""`segadapt.adapt(source, target)`: from two folders or data sets to a model, in one call."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.reading import opened
from segadapt.devices import choose_device
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import user_path, write_with
from segadapt.inference.model import Model, load
from segadapt.inference.pixels import is_one, label_values, rgb_pixels
from segadapt.pipeline.run import run_recipe
from segadapt.setup.class_names import ClassesLike
from segadapt.setup.label_values import Value
from segadapt.setup.proposal import Place, propose
from segadapt.setup.recipe_text import Training


class Items(Protocol):
    """The interface of a torch data set."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


DataLike = Path | str | Mapping[str, Any] | Iterable[Any] | Items
"""A folder; a mapping of root, layout, images, labels; or images, with labels as pairs."""
_KEYS = ("root", "layout", "images", "labels")


def adapt(
    source: DataLike,
    target: DataLike,
    classes: ClassesLike = None,
    *,
    out: Path | str,
    target_classes: ClassesLike = None,
    ignored: Sequence[Value] = (),
    method: str | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    device: str = "auto",
    changes: Mapping[str, object] | Sequence[str] = (),
    yes: bool = False,
) -> Model:
    """Train on the labelled `source`, adapt to the unlabelled `target`, and load the adapted model.

    Each is a folder, examined as by `segadapt init`; or a mapping of `root` and, if they are not found, `layout`,
    `images`, `labels`; or any iterable (a torch data set too) of (image, labels) pairs, for the target also of images
    alone, which are written to files beside the run: images as `Model.predict` takes them, labels as whole numbers
    (H, W) or Pillow images.

    `classes` are names in the order of the ids, `{id or colour: name}`, a label space's name or file; None: proposed
    from the labels. `target_classes` are those of the target's labels, if they hold other ids. Labels of the target are
    only used for scores. `size` (W, H), `steps`, `method` and `changes` (as in `run_recipe`) override the proposal.

    The recipe is written to `OUT.yaml`, the run is in `out`, with its report; the same call again resumes it, or loads
    the finished model. `yes` redoes stages whose settings have changed. Raises UsageError for data, classes and
    settings that do not fit, SegadaptError if a stage fails. Programs that use a GPU need `if __name__ == "__main__":`.
    """
    folder = user_path(out)
    file = folder.with_name(f"{folder.name}.yaml")
    data = folder.with_name(f"{folder.name}_data")
    gpu = choose_device(device).type == "cuda"
    places = (
        _place(source, "source", data, classes, tuple(ignored)),
        replace(_place(target, "target", data, target_classes, tuple(ignored)), option="target_classes"),
    )
    proposal = propose(*places, file, Training(gpu, size or (0, 0), steps, method))
    for note in proposal.notes:
        print(f"note: {note}.", file=sys.stderr)
    proposal.write()
    overrides = [*_as_list(changes), f"runtime.device={device}"]
    done = run_recipe(file, folder, overrides, yes=yes)
    return load(done.model, device=device)


def _as_list(changes: Mapping[str, object] | Sequence[str]) -> list[str]:
    from segadapt.config.load import as_overrides

    return as_overrides(changes)


def _place(given: DataLike, side: str, data: Path, classes: ClassesLike, ignored: tuple[Value, ...]) -> Place:
    """The place of a domain; images and labels in memory are written to files first."""
    if isinstance(given, (str, Path)):
        return Place(given, classes=classes, ignored=ignored)
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in _KEYS]
        if unknown or "root" not in given:
            what = f"unknown key '{unknown[0]}'" if unknown else "'root' is missing"
            raise UsageError(what, where=side, remedy=f"Give {', '.join(_KEYS)}; for more write a recipe.")
        return Place(**given, classes=classes, ignored=ignored)
    root = data / side
    labelled = _write(given, root, side)
    return Place(root, None, "images", "labels" if labelled else None, classes, ignored)


def _write(items: DataLike, root: Path, side: str) -> bool:
    """Write images, and labels of pairs, as PNG, and remove older ones; returns whether there are labels.

    Existing files with the same pixels are kept: unchanged files let a run resume.
    """
    count = labelled = 0
    left = {path for folder in ("images", "labels") for path in (root / folder).glob("[0-9]*.png")}
    for number, item in enumerate(_each(items)):
        where = f"{side} {number}"
        image, labels = (item, None) if is_one(item) else _pair(item, where)
        made = {"images": rgb_pixels(image)} | ({} if labels is None else {"labels": _ids(labels, where)})
        for kind, pixels in made.items():
            path = root / kind / f"{number:06d}.png"
            _save(pixels, path)
            left.discard(path)
        labelled += labels is not None
        count += 1
    if not count:
        raise UsageError("holds no images", where=side, remedy="Give a folder, or (image, labels) pairs.")
    if side == "source" and labelled < count:
        raise UsageError(f"{count - labelled} of {count} images have no labels", where=side, remedy="Give pairs.")
    for path in left:  # of an earlier, larger data set
        path.unlink()
    return labelled > 0


def _each(items: Any) -> Iterable[Any]:
    """All items of an iterable, or of a torch data set, which may have a length and no end."""
    if hasattr(items, "__len__") and hasattr(items, "__getitem__"):
        return (items[number] for number in range(len(items)))
    if isinstance(items, Iterable):
        return items
    raise UsageError(f"is a {type(items).__name__}", where="data", remedy="Give a folder, or (image, labels) pairs.")


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise UsageError(f"is a {type(item).__name__}", where=where, remedy="Give an image, or (image, labels).")


def _ids(labels: Any, where: str) -> NDArray[np.uint8]:
    """Raw ids (H, W), or colours (H, W, 3), of a label map in memory or a file."""
    if isinstance(labels, (str, Path)):
        with opened(Path(labels)) as picture:
            return _ids(picture, where)
    if isinstance(labels, Image.Image):
        as_it_is = labels.mode in ("L", "P", "1", "RGB") or labels.mode[0] == "I"
        labels = labels if as_it_is else labels.convert("RGB")
    raw = label_values(labels)
    whole = raw.dtype.kind in "uib" and (raw.ndim == 2 or (raw.ndim == 3 and raw.shape[2] == 3))
    if not whole or (raw.size and not 0 <= int(raw.min()) <= int(raw.max()) <= 255):
        raise UsageError(
            f"labels are {raw.dtype} {raw.shape}" + (f", {raw.min()} … {raw.max()}" if whole else ""),
            where=where,
            remedy="Give whole numbers (H, W) from 0 to 255; write -100 and the like as 255.",
        )
    return raw.astype(np.uint8)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, unless it exists with the same pixels."""
    with suppress(SegadaptError), opened(path) as there:  # it may be missing or broken
        if np.array_equal(np.asarray(there), pixels):
            return
    write_with(path, lambda file: Image.fromarray(pixels).save(file, "PNG", compress_level=1))

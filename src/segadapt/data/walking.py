"""The files below a folder, through links that data sets are often put together from, and their natural order."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from segadapt.data import archive
from segadapt.errors import UsageError


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorting key that puts 2.png before 10.png."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


_Identity = tuple[int, int]
"""Device and inode of a folder: the same for all links to it."""
MOST_WAYS = 100
"""How often one folder may be found through links: links from folders to one another have no end."""


def _identity(folder: str) -> _Identity | None:
    """Which folder it is; None where it is gone."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - `os.walk` gives text
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _around(folder: str) -> frozenset[_Identity]:
    """The folders that one lies in: by its path, and where a link leads somewhere else, by its place there."""
    path = Path(folder).absolute()
    by_path = () if ".." in path.parts else path.parents  # before a .. is what the folder does not lie in
    return frozenset(found for place in {*by_path, *path.resolve().parents} if (found := _identity(str(place))))


def files_below(folder: Path, suffixes: frozenset[str], without: Path | None = None) -> Iterator[str]:
    """Paths below `folder`, with slashes, of files with one of the suffixes; hidden ones and `without` are skipped.

    It may be a zip file, or a folder in one.

    Links to folders are followed, since data sets are often put together from them, but not into a folder that they
    lie in, above `folder` too. Raises UsageError when they lead to one folder in more than `MOST_WAYS` ways.
    """
    if archive.place_in(folder) is not None:
        yield from archive.files_below(folder, suffixes, without)
        return
    above = {str(folder): _around(str(folder))}
    ways = Counter[_Identity]()
    for place, folders, files in os.walk(folder, followlinks=True):
        around, found = above.pop(place), _identity(place)
        if Path(place).is_symlink():
            around |= _around(place)
        if found is None or found in around:
            folders.clear()
            continue
        ways[found] += 1
        if ways[found] > MOST_WAYS:
            raise UsageError(f"links lead there in more than {MOST_WAYS} ways", where=place, remedy="Remove the links.")
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and here / name != without]
        above |= dict.fromkeys((os.path.join(place, name) for name in folders), around | {found})  # noqa: PTH118
        prefix = "" if here == folder else here.relative_to(folder).as_posix() + "/"
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield prefix + name

"""Data sets in the zip files that they are published in, read where they lie.

    /data/ACDC/rgb_anon_trainvaltest.zip/rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png

is the path of a picture in one: an ordinary path, which only this file knows how to open. Archives are opened once per
process, and their tables of contents kept. Processes that are forked open their own: an open file that they share has
one position.
"""

import os
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from segadapt.data.packed import need_frames, need_unpacked
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import is_file, need_folder
from segadapt.files import is_folder as is_real_folder

MOST_OPEN = 100
"""Archives that a process keeps open; GTA5 has twenty."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""What Python can inflate."""


@dataclass(frozen=True)
class _Archive:
    """An open zip file and what it holds."""

    file: zipfile.ZipFile
    state: tuple[int, ...]  # of the file when it was opened: which one it is, its size, when it was changed
    members: dict[str, zipfile.ZipInfo]  # by path, with slashes
    folders: frozenset[str]  # "" is the archive itself


_kept: dict[Path, _Archive] = {}
os.register_at_fork(after_in_child=_kept.clear)


def place_in(path: Path) -> tuple[Path, str] | None:
    """The zip file that a path leads into, and the place in it, "" for all of it; None for any other path."""
    if ".zip/" not in f"{path}/".lower():
        return None
    for place in reversed([path, *path.parents]):
        if place.suffix.lower() == ".zip" and is_file(place):
            inner = path.relative_to(place).as_posix()
            return place, "" if inner == "." else inner
    return None


def readable(path: Path, most: int) -> AbstractContextManager[Path | IO[bytes]]:
    """What a decoder can open: the path of a file, or the inflated bytes of one in an archive.

    These are inflated as they are read, never more than the archive says; their checksum is compared when the last one
    has been read. Raises SegadaptError for one of more than `most` bytes, FileNotFoundError, and when the bytes are not
    what the archive says zipfile.BadZipFile, EOFError or zlib.error, now or later.
    """
    place = place_in(path)
    if place is None:
        return nullcontext(path)
    archive, member = _member(*place)
    if member.file_size > most:
        raise SegadaptError(
            f"would inflate to {member.file_size:,} bytes, more than any picture of the largest size",
            where=path,
            remedy="Leave it out with an image list, or set SEGADAPT_MAX_PIXELS to a larger number.",
        )
    return archive.file.open(member)


def size_of(path: Path) -> int:
    """Bytes of a file, inflated where it is in an archive: unpacking changes nothing. Raises OSError."""
    place = place_in(path)
    return path.stat().st_size if place is None else _member(*place)[1].file_size


def is_folder(path: Path) -> bool:
    """Whether there is a folder, an archive, or a folder in one. Raises UsageError for an archive that is broken."""
    place = place_in(path)
    return is_real_folder(path) if place is None else place[1] in _opened(place[0]).folders


def need_root(path: Path) -> None:
    """Raise UsageError unless `path` is a folder, an archive that can be read, or a folder in one."""
    if place_in(path) is None:
        need_unpacked(path)
        need_frames(path)
        need_folder(path, "the data folder")
    elif not is_folder(path):
        raise UsageError(
            "there is no such folder in the zip file", where=path, remedy="`unzip -l` shows what there is."
        )


def has_folder(folder: Path, pattern: str) -> bool:
    """Whether there is a folder of such a path (with *) below `folder`."""
    place = place_in(folder)
    if place is None:
        return any(path.is_dir() for path in folder.glob(pattern))
    return any(fnmatchcase(name, _join(place[1], pattern)) for name in _opened(place[0]).folders)


def archives_in(folder: Path) -> list[Path]:
    """The zip files that lie in a folder, by name."""
    found = folder.iterdir() if is_real_folder(folder) else ()
    return sorted(path for path in found if path.suffix.lower() == ".zip" and is_file(path))


def homes(root: Path, folder: str) -> list[Path]:
    """Where the folder of a data set is to be looked for: the places that have it, each a root for a part of the data.

    That is the root itself, if it has the folder; else each of the zip files that are the root, or lie in it, and have
    it: at their top, or in the one folder that all of an archive is in (`bdd100k/`). Raises UsageError for a broken
    one.
    """
    if is_folder(root / folder):
        return [root]
    place = place_in(root)
    archives = archives_in(root) if place is None else [root] * (place[1] == "")
    tops = (next((top for top in _tops(archive) if is_folder(top / folder)), None) for archive in archives)
    return [top for top in tops if top is not None]


def _tops(archive: Path) -> Iterator[Path]:
    """The archive and, as long as there is a single folder, that folder."""
    folders, top = _opened(archive).folders, ""
    while True:
        yield archive / top
        inner = [name for name in folders if name and name.rpartition("/")[0] == top]
        if len(inner) != 1:
            return
        top = inner[0]


def files_below(folder: Path, suffixes: frozenset[str], without: Path | None = None) -> Iterator[str]:
    """Paths below a folder in an archive of files with one of the suffixes; hidden ones and `without` are skipped."""
    place, skipped = place_in(folder), None if without is None else place_in(without)
    assert place is not None
    start = _join(place[1], "")
    below = "" if skipped is None else _join(skipped[1], "")
    below = below if below.startswith(start) and below != start else "/"  # which no path begins with
    for path in _opened(place[0]).members:
        name = path.removeprefix(start)
        hidden = name.startswith(".") or "/." in name or path.startswith(below)
        if path.startswith(start) and not hidden and Path(name).suffix.lower() in suffixes:
            yield name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _member(path: Path, name: str) -> tuple[_Archive, zipfile.ZipInfo]:
    archive = _opened(path)
    if name not in archive.members:
        raise FileNotFoundError(path / name)
    return archive, archive.members[name]


def _opened(path: Path) -> _Archive:
    """The archive, as it is now: another file in its place, or a changed one, is opened anew."""
    about = path.stat()
    state = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    kept = _kept.get(path)
    if kept is None or kept.state != state:
        _kept[path] = kept = _indexed(path, state)
        if len(_kept) > MOST_OPEN:
            del _kept[next(iter(_kept))]
    return kept


def _indexed(path: Path, state: tuple[int, ...]) -> _Archive:
    try:
        file = zipfile.ZipFile(path)
    except Exception as failure:  # broken ones raise BadZipFile, OSError, ValueError, struct.error and more
        raise UsageError(
            f"cannot be read as a zip file ({failure})",
            where=path,
            remedy="Download it again (`unzip -t` tells whether it is whole), or move it away if the data is unpacked.",
        ) from failure
    members = {}
    for info in file.infolist():
        name = _plain(info.filename)
        if name is not None and not info.is_dir():
            members[name] = info  # of a name that occurs twice the last one, as `unzip -o` has it
    if any(info.flag_bits & 1 for info in members.values()):
        raise UsageError("is encrypted", where=path, remedy="Unpack it with its password: `unzip FILE` asks for it.")
    if foreign := {info.compress_type for info in members.values()}.difference(METHODS):
        told = ", ".join(str(method) for method in sorted(foreign))
        raise UsageError(f"is compressed by a method that Python lacks ({told})", where=path, remedy="Unpack it.")
    folders = {""}
    for name in members:
        folder = name.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return _Archive(file, state, members, frozenset(folders))


def _plain(name: str) -> str | None:
    """A member's path with slashes; None for what no data set has: a way out of the archive, and macOS's notes."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts or parts[0] == "__MACOSX" else "/".join(parts)

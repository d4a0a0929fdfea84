"""Files appear whole or not at all: written beside their place, synced, renamed.

Every room that writes goes through here, so that a full disk or a kill never leaves half a file under a real name.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segadapt.errors import SegadaptError, UsageError

LONGEST = 1000
"""Characters of a path that are told to a person."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on success it becomes `path`, on failure it vanishes.

    Raises SegadaptError when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # where the folder is a file, there is nothing to remove either
            temporary.unlink(missing_ok=True)
        raise write_failure(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_failure(path: Path, error: OSError) -> SegadaptError:
    """The error that tells a person why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SegadaptError(
            "no space left on the disk",
            where=path,
            remedy="Free some space or choose another folder; what was written stays valid.",
        )
    in_the_way = next(
        (parent for parent in path.parents if exists(parent) and not parent.is_dir()),
        None,
    )
    if in_the_way is not None:
        return UsageError(
            f"cannot be written, since {in_the_way} is not a folder", where=path, remedy="Choose another folder."
        )
    if (
        isinstance(error, (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError))
        or error.errno == errno.EROFS
    ):
        return UsageError(
            f"cannot be written ({error.strerror})", where=path, remedy="Choose a folder that you may write to."
        )
    return SegadaptError(
        f"cannot be written ({error.strerror or error})", where=path, remedy="Check the disk and try again."
    )


def need_writable(path: Path) -> None:
    """Raise as `new_file` would when a file cannot be written at `path`; what is there stays as it is."""
    if path.is_dir():
        raise write_failure(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    trial = path.with_name(f".{path.name}.{os.getpid()}.trial")
    try:
        write_bytes(trial, b"trial")
        trial.unlink()
    except SegadaptError as error:
        error.where = path
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8 to `path`, whole or not at all, bytes of file names that are none as they were."""
    write_bytes(path, content.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write(temporary)` make the file (torch.save, a plot), then put it in place as `path`."""
    with new_file(path) as temporary:
        write(temporary)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Hexadecimal SHA-256 of plain data, the same for the same content whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def user_path(text: str | Path) -> Path:
    """The path, with `~` and `~name` replaced. Raises UsageError where that, or a path, cannot be."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError("there is no such home folder", where=str(text), remedy="Write the path out.") from error
    if "\0" in str(path):
        raise UsageError("holds a NUL", where="path", remedy="Check the path.")
    return path


def exists(path: Path) -> bool:
    """Whether there is anything; of a name that no file can have, there is not."""
    return os.path.exists(path)  # noqa: PTH110 - `Path.exists` raises for a name that is too long


def is_file(path: Path) -> bool:
    """Whether there is a file; of a name that no file can have, there is not."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether there is a folder; of a name that no folder can have, there is not."""
    return os.path.isdir(path)  # noqa: PTH112


def need_file(path: Path, what: str) -> Path:
    """`path` if it is a file; else a UsageError that says that `what` is missing there."""
    return _need(path, what, "file", is_file(path))


def need_folder(path: Path, what: str) -> Path:
    """`path` if it is a folder; else a UsageError that says that `what` is missing there."""
    return _need(path, what, "folder", is_folder(path))


def _need(path: Path, what: str, kind: str, found: bool) -> Path:
    if not found:
        missing = not exists(path)
        where = path if len(str(path)) <= LONGEST else f"{str(path)[:40]}…"
        raise UsageError(
            f"{what} is not there" if missing else f"{what} is not a {kind}", where=where, remedy="Check the path."
        )
    return path

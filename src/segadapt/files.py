"""Files appear whole or not at all: written beside their place, synced, renamed.

Every room that writes goes through here, so that a full disk or a kill never leaves half a file under a real name.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from segadapt.errors import SegadaptError, UsageError

TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d{1,9})\.tmp")
"""Names of temporary files."""
EARLIER = re.compile(r"\..+\.\d{1,9}\.(?:tmp|trial)")
"""Names that earlier versions gave them, which say nothing of the machine."""
LONG = 24 * 3600.0
"""Seconds after which nobody writes a temporary file any more whose process cannot be asked for: another machine's."""

_STARTED = time.time()
_swept: set[Path] = set()  # folders in which this process has looked for what killed ones left
_guards: dict[Path, Callable[[], None]] = {}
LONGEST = 1000
"""Characters of a path that are told to a person."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on success it becomes `path`, on failure it vanishes.

    Raises UsageError when `path` is something else than a file, SegadaptError when the disk is full or the folder
    cannot be written.
    """
    need_regular(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            sweep(path.parent)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        _ask_guards(path)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # where the folder is a file, there is nothing to remove either
            temporary.unlink(missing_ok=True)
        raise write_failure(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """Yield `NAME.unfinished.SUFFIX` beside `path` to write to; on success it becomes `path`, on failure it stays.

    For what is of use though it ends too early: a video. An empty one vanishes, a later one replaces it. Raises as
    `new_file`, and UsageError while another process writes the same.
    """
    part = unfinished_name(path)
    need_regular(path)
    need_regular(part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    "is being written by another process", where=part, remedy="Wait for it, or give another name."
                ) from error
            try:
                yield part
                os.fsync(file.fileno())
                _ask_guards(path)
                part.replace(path)
            finally:
                with suppress(OSError):
                    if part.stat().st_size == 0:
                        part.unlink()
    except OSError as error:
        raise write_failure(path, error) from error


def unfinished_name(path: Path) -> Path:
    """Where `unfinished_file` writes what is to become `path`."""
    return path.with_name(f"{path.stem}.unfinished{path.suffix}")


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is to become `path`: machine and process are in the name, see `sweep`."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.tmp")


def sweep(folder: Path, earlier: bool = False) -> None:
    """Remove the temporary files in `folder` that killed processes left there, up to the size of a model each.

    Those of live processes stay. Processes of other machines cannot be asked for: theirs go after a day, and so, with
    `earlier`, do those of earlier versions.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # its owner may be done with it just now
                if entry.name.startswith(".") and _is_left(entry, earlier):
                    Path(entry.path).unlink()


def _is_left(entry: "os.DirEntry[str]", earlier: bool) -> bool:
    """Whether this is a temporary file that nobody writes any more."""
    name = TEMPORARY.fullmatch(entry.name)
    if name is None and not (earlier and EARLIER.fullmatch(entry.name)):
        return False
    written = entry.stat(follow_symlinks=False).st_mtime
    if name is None or name["machine"] != _machine():
        return written < time.time() - LONG
    process = int(name["process"])
    if process == os.getpid():  # an earlier process may have had our number: in containers it is always the same
        return written < _STARTED
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    return False


@cache
def _machine() -> str:
    """What tells whose process numbers these are: the host's, or those of a container on it."""
    try:
        numbers = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # not Linux
        numbers = ""
    return hashlib.sha256(f"{os.uname().nodename} {numbers}".encode()).hexdigest()[:8]


@contextmanager
def guarded(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Context in which `check` is called before a file appears below `folder`; when it raises, none does."""
    key = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are: a stage's folder may be one
    _guards[key] = check
    try:
        yield
    finally:
        del _guards[key]


def _ask_guards(path: Path) -> None:
    if _guards:
        for parent in Path(os.path.abspath(path)).parents:  # noqa: PTH100
            if parent in _guards:
                _guards[parent]()


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
            f"cannot be written because {in_the_way} is not a folder", where=path, remedy="Choose another folder."
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


def need_regular(path: Path) -> None:
    """Raise UsageError when `path` is a link, a folder, a device or a pipe: putting a file there would replace it."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # not there, or not to be looked at: whoever writes is told why
        return
    if stat.S_ISDIR(mode):
        raise write_failure(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    if stat.S_ISLNK(mode):
        raise UsageError(
            "is a link and would be replaced by a file",
            where=path,
            remedy=f"Give the path of its target ({path.readlink()}), or remove the link.",
        )
    if not stat.S_ISREG(mode):
        raise UsageError("is not a regular file and will not be overwritten", where=path, remedy="Choose another path.")


def need_writable(path: Path) -> None:
    """Raise as `new_file` would when a file cannot be written at `path`; what is there stays as it is."""
    need_regular(path)
    trial = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"trial")
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with suppress(OSError):
            trial.unlink()


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
    """Hexadecimal SHA-256 of a file's bytes, read in chunks."""
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
            f"{what} does not exist" if missing else f"{what} is not a {kind}", where=where, remedy="Check the path."
        )
    return path

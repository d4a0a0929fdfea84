"""One command at a time in a run folder."""

import errno
import fcntl
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from segadapt.errors import SegadaptError, UsageError
from segadapt.files import guarded, sweep, write_failure

NAME = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What some network file systems say that have no locks."""

_held: set[tuple[int, int]] = set()
"""Device and inode of the folders that this process holds: to its own process the system would give a lock twice."""
_holding = threading.Lock()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if need be), and remove what killed commands left in it.

    Raises UsageError when another process holds it, or this one already does. On a file system without locks a warning
    says so. Once the lock was removed, no file appears in the folder: who writes one gets a SegadaptError.

    The lock is the system's and ends with its process, however that ends; the file stays, and means nothing by itself.
    A record lock (lockf, not flock): loader processes do not inherit it, so that none of them can keep it after a kill.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise write_failure(path, error) from error
    with _once_a_process(folder, (about.st_dev, about.st_ino)), _open(path) as file:
        for below, _, _ in os.walk(folder):
            sweep(Path(below), earlier=True)
        own = os.fstat(file.fileno())

        def need_lock() -> None:
            try:
                there = path.stat()
            except FileNotFoundError:
                there = None
            if there is None or not os.path.samestat(own, there):
                raise SegadaptError(
                    "the lock was removed while this command was running, so another command could have started",
                    where=path,
                    remedy="Leave the file alone: it does not mean that a command was killed. "
                    "Run the same command to resume.",
                )

        with guarded(folder, need_lock):
            yield


@contextmanager
def _once_a_process(folder: Path, key: tuple[int, int]) -> Iterator[None]:
    # Before the file is opened: to close it again would end the lock that this process has already.
    with _holding:
        if key in _held:
            raise _at_work(folder, "of this program itself")
        _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)


def _open(path: Path) -> TextIO:
    """The lock file, locked."""
    while True:
        try:
            file = path.open("a+")
            try:
                if not _lock(file, path):
                    return file
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
                    file.flush()
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # it was removed between opening and locking
        except OSError as error:
            raise write_failure(path, error) from error


def _lock(file: TextIO, path: Path) -> bool:
    """Lock the file; False where the file system has no locks. Raises UsageError when another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            raise _at_work(path.parent, file.read().strip() or "of an unknown process") from None
        if error.errno not in UNSUPPORTED:
            raise
        warnings.warn(
            f"{path.parent}: this file system has no locks ({error.strerror}): make sure that no other command uses "
            "this folder",
            stacklevel=2,
        )
        return False
    return True


def _at_work(folder: Path, whose: str) -> UsageError:
    return UsageError(
        f"another command is running in this folder ({whose})",
        where=folder,
        remedy="Wait for it, stop it, or choose another --out.",
    )

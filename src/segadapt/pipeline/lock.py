"""One command at a time in a run folder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segadapt.errors import UsageError
from segadapt.files import write_failure

NAME = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What some network file systems say: there, two commands at once must be avoided by their owner."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if need be) for this process. Raises UsageError when another process holds it.

    The lock is the system's and ends with its process, however that ends; the file stays, and means nothing by itself.
    A record lock (lockf, not flock): loader processes do not inherit it, so that none of them can keep it after a kill.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise write_failure(path, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise UsageError(
                    f"another command is at work in this run ({file.read().strip() or 'of an unknown process'})",
                    where=folder,
                    remedy="Wait for it, stop it, or choose another --out.",
                ) from None
            if error.errno not in UNSUPPORTED:
                raise write_failure(path, error) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield

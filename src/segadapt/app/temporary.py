"""What the app keeps on the disk for a while: uploads, and files that it has made."""

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SWEEP, AGE = 300, 3600
"""Seconds between two looks for old files, and their age then."""
MADE = "made"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Where gradio keeps uploads, and we what we make for people; gone at the end, which may come by SIGTERM."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with _ended_by_term(), tempfile.TemporaryDirectory(prefix="segadapt-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """SIGTERM, which the server passes on once it has ended, becomes an exception."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def new_folder(folder: Path) -> Path:
    """An empty folder with a name that nobody can guess, for one thing that is made; those that are old go."""
    made = folder / MADE
    new = made / uuid.uuid4().hex
    new.mkdir(parents=True)
    for old in made.iterdir():
        with suppress(OSError):  # another request may be removing it
            if old.stat().st_mtime < time.time() - AGE:
                shutil.rmtree(old)
    return new

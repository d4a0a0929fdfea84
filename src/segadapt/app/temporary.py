"""What the app keeps on disk temporarily: uploads, and files that it made."""

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
"""Seconds between clean-ups, and the age of files to remove."""
MADE = "made"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """The folder of gradio's uploads and of our outputs; removed at the end, also on SIGTERM."""
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
    """Turn SIGTERM, which the server passes on once it has ended, into an exception."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def new_folder(folder: Path) -> Path:
    """A new folder with an unguessable name, for one output; old ones are removed."""
    made = folder / MADE
    new = made / uuid.uuid4().hex
    new.mkdir(parents=True)
    for old in made.iterdir():
        with suppress(OSError):  # another request may be removing it
            if old.stat().st_mtime < time.time() - AGE:
                shutil.rmtree(old)
    return new

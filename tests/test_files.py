"""Temporary files of killed processes go, those of live ones stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segadapt import files
from segadapt.errors import SegadaptError
from segadapt.files import guarded, new_file, sweep, temporary_beside, write_text

DAYS_AGO = time.time() - 2 * files.LONG


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of(process: int, machine: str | None = None) -> str:
    """The name of a temporary file of another process."""
    name = temporary_beside(Path("model.safetensors")).name.replace(f".{os.getpid()}.", f".{process}.")
    return name if machine is None else name.replace(files._machine(), machine)


def left(folder: Path, name: str, written: float | None = None) -> Path:
    file = folder / name
    file.write_bytes(b"half a model")
    if written is not None:
        os.utime(file, (written, written))
    return file


def test_what_killed_processes_left_goes_with_the_next_file_of_the_folder(tmp_path: Path, dead: int) -> None:
    gone = [left(tmp_path, of(dead)), left(tmp_path, of(dead, "0" * 8), DAYS_AGO)]
    gone.append(left(tmp_path, of(os.getpid()), DAYS_AGO))  # of a process before us that had our number
    stay = [
        left(tmp_path, of(os.getppid()), DAYS_AGO),
        left(tmp_path, of(dead, "1" * 8)),  # of another machine, which may be writing it
        left(tmp_path, temporary_beside(Path("mine")).name),
        left(tmp_path, f".model.safetensors.{dead}.tmp", DAYS_AGO),
        left(tmp_path, ".mine.tmp", DAYS_AGO),
    ]
    write_text(tmp_path / "new", "")
    assert not any(file.exists() for file in gone) and all(file.exists() for file in stay)
    sweep(tmp_path, earlier=True)
    assert [file.exists() for file in stay] == [True, True, True, False, True]


def test_a_guard_keeps_files_from_appearing_below_its_folder(tmp_path: Path) -> None:
    def refuses() -> None:
        raise SegadaptError("not now", remedy="")

    with guarded(tmp_path / "a", refuses):
        write_text(tmp_path / "ab", "")
        with pytest.raises(SegadaptError, match="not now"):
            write_text(tmp_path / "a/b/c", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "ab"]
    with new_file(tmp_path / "a/b/c") as file:
        file.touch()
    assert (tmp_path / "a/b/c").is_file()

"""Image lists as files: a name per line, with or without its suffix."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from segadapt.errors import UsageError
from segadapt.files import need_file


def read_list(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and name of each line of an image list; empty lines and lines that start with # are skipped."""
    try:
        text = need_file(path, "the image list").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as failure:
        raise UsageError("is not a text file", where=path, remedy="Give one image name per line.") from failure
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip().replace("\\", "/").removeprefix("./")
        if name and not name.startswith("#"):
            yield number, name


def without_suffix(name: str) -> str:
    """A picture's name as `catalog` has it, without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))

"""Archives other than zip files, and videos, given in place of a folder of images: what to do with them."""

import shlex
from pathlib import Path

from segadapt.errors import UsageError
from segadapt.files import is_file, is_folder

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
        *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".264", ".hevc", ".265", ".y4m", ".vob", ".mxf"),
    )
)
"""Suffixes of files that are videos even where images may be given."""
COMMANDS = {**dict.fromkeys(TAR, "tar -xf {}"), ".rar": "unrar x {}", ".7z": "7z x {}"}
"""What a name ends with -> the command that unpacks it in the current folder."""


def unpacking(path: Path) -> str | None:
    """The command that unpacks a file in the current folder; None unless its name is that of such an archive."""
    name = path.name.lower()
    command = next((command for ending, command in COMMANDS.items() if name.endswith(ending)), None)
    return None if command is None or not is_file(path) else command.format(shlex.quote(str(path)))


def is_video_file(path: Path) -> bool:
    """Whether this is a file whose name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and is_file(path)


def need_frames(path: Path) -> None:
    """Raise UsageError for a video in the place of a data set."""
    if is_video_file(path):
        command = f"ffmpeg -i {shlex.quote(str(path))} -vf fps=2 frames/%06d.png"
        raise UsageError(
            "is a video, and no folder of images",
            where=path,
            remedy=f"Write its frames into a folder (`mkdir frames && {command}`) and give that.",
        )


def need_unpacked(path: Path) -> None:
    """Raise UsageError for an archive that must be unpacked first, and for a path into one."""
    for place in (path, *path.parents):
        command = unpacking(place)
        if command is not None:
            raise UsageError(
                "cannot be read in place, as folders and zip files can",
                where=place,
                remedy=f"Unpack it (`{command}`) and give the folder.",
            )


def packed_in(folder: Path) -> list[Path]:
    """Such archives that lie in a folder, by name."""
    found = folder.iterdir() if is_folder(folder) else ()
    return sorted(path for path in found if unpacking(path) is not None)


def unpack_first(folder: Path) -> str | None:
    """The remedy where a folder holds nothing but such archives; None where there are none."""
    packed = packed_in(folder)
    if not packed:
        return None
    more = f", and {len(packed) - 1} more" if len(packed) > 1 else ""
    return f"Unpack what lies in it: `{unpacking(packed[0])}`{more}."

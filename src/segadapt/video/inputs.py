"""What an input on the command line is: a video, a stream, a camera, images."""

import re
from collections.abc import Sequence
from pathlib import Path

from segadapt.data.catalog import IMAGE_SUFFIXES
from segadapt.data.packed import VIDEO_SUFFIXES
from segadapt.errors import UsageError
from segadapt.files import exists, is_file, is_folder
from segadapt.inference.streams import find_images
from segadapt.video.sequence import Place, is_pattern, pattern_images

WRITTEN = (".mp4", ".mov", ".mkv", ".webm")
"""Suffixes of videos that can be written."""
CAMERA = "/dev/video"


def is_stream(text: str) -> bool:
    """Whether this is an address: http://, rtsp://."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def camera(text: str) -> str | None:
    """The device of a camera given by number or path; None for anything else."""
    if text.isdecimal() and not exists(Path(text)):
        return f"{CAMERA}{int(text)}"
    return text if re.fullmatch(rf"{CAMERA}\d+", text) else None


def is_live(text: str) -> bool:
    """Whether this is not a file."""
    return is_stream(text) or camera(text) is not None


def is_video(text: str, to_video: bool = False) -> bool:
    """Whether an input is read as a video; if a video is written, that is any file that does not look like an image."""
    suffix = Path(text).suffix.lower()
    if is_live(text) or (suffix in VIDEO_SUFFIXES and not is_folder(Path(text)) and not is_pattern(text)):
        return True
    return to_video and is_file(Path(text)) and suffix not in IMAGE_SUFFIXES


def writes_video(out: Path) -> bool:
    """Whether an output is a video; otherwise it is a folder. Raises UsageError for a format that is read-only here."""
    suffix = out.suffix.lower()
    if is_folder(out):
        return False
    if suffix in VIDEO_SUFFIXES and suffix not in WRITTEN:
        raise UsageError(
            f"{suffix} is read, but not written", where=out, remedy=f"Let its name end in {', '.join(WRITTEN)}."
        )
    return suffix in WRITTEN


def images_of(inputs: Sequence[str], without: Path | None = None) -> list[Place]:
    """The images of files, folders and patterns, with their places. Raises UsageError as `find_images`."""
    patterns = [place for text in inputs if is_pattern(text) for place in pattern_images(text)]
    others = [Path(text) for text in inputs if not is_pattern(text)]
    return [*patterns, *(find_images(others, without) if others else [])]


def video_places(videos: Sequence[str]) -> dict[str, Path]:
    """Video -> the folder below the output folder for its frames: its name without suffix.

    Raises UsageError if two would share one.
    """
    found: dict[Path, str] = {}
    for text in videos:
        name = re.sub(r"[^\w.-]+", "_", re.sub(r"^[^:]*://([^/@]*@)?", "", text)) if is_live(text) else Path(text).stem
        if found.setdefault(Path(name), text) != text:
            raise UsageError(
                f"has the same name as {found[Path(name)]}", where=text, remedy="Write them to folders of their own."
            )
    return {text: place for place, text in found.items()}

"""PyAV, which reads and writes videos: whether it is installed, and its errors in words."""

import re
from pathlib import Path

from segadapt.errors import SegadaptError, UsageError
from segadapt.extras import need_package

OLDEST = 18
"""Minimum major version; earlier ones lack names of colour spaces and a numeric disposition."""


def need_av() -> None:
    """Raise UsageError when PyAV is not installed, or too old."""
    need_package("av", "video", "video", title="PyAV", least=OLDEST)


def shown(name: Path | str) -> str:
    """A video's display name, without the password that a camera's address may contain."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", str(name))


def reading_failure(name: str, error: Exception) -> SegadaptError:
    """The error that explains why a video cannot be read, or not any further."""
    why = reason(error)
    if isinstance(error, FileNotFoundError):
        return UsageError("does not exist", where=shown(name), remedy="Check the path.")
    if isinstance(error, PermissionError):
        return UsageError(f"cannot be read ({why})", where=shown(name), remedy="Check its permissions.")
    if "://" in name:
        remedy = "Check the address, and whether the server answers."
        return SegadaptError(f"cannot be read ({why})", where=shown(name), remedy=remedy)
    if name.startswith("/dev/"):
        remedy = "Check that the camera is plugged in and that no other program uses it."
        return SegadaptError(f"cannot be read ({why})", where=name, remedy=remedy)
    return SegadaptError(
        f"cannot be read as a video ({why})", where=name, remedy="Replace the file, or see whether a player shows it."
    )


def reason(error: Exception) -> str:
    """FFmpeg's message about a failure, without number and file."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).rstrip(".")

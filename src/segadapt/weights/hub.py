"""Models on the Hugging Face hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION` with a branch, a tag or a commit.

A repository holds one model in its `model.safetensors`. Files come through huggingface_hub, with its cache, its token
(`HF_TOKEN`, `hf auth login`) and its variables `HF_ENDPOINT` and `HF_HUB_OFFLINE`. Nothing in them is ever run.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segadapt.errors import SegadaptError, UsageError

SCHEME = "hf://"
FILE = "model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
_WORDS = {
    "GatedRepoError": ("its licence must be accepted first", "Accept it on its page and log in: `hf auth login`."),
    "RepositoryNotFoundError": (
        "there is no such repository, or you may not see it",
        "Check the name; for a private one set HF_TOKEN or log in: `hf auth login`.",
    ),
    "RevisionNotFoundError": ("the repository has no such revision", "Check what follows the @."),
    "RemoteEntryNotFoundError": (f"the repository has no {FILE}", "Give one that `segadapt push` has written."),
    "EntryNotFoundError": (f"the repository has no {FILE}", "Give one that `segadapt push` has written."),
    "OfflineModeIsEnabled": ("HF_HUB_OFFLINE is set", "Unset it, or give a file."),
    "LocalEntryNotFoundError": (
        "it is not in the hub's cache, and there is no connection",
        "Check the connection (or HF_HUB_OFFLINE), or give a file.",
    ),
    "LocalTokenNotFoundError": ("no token is known", "Set HF_TOKEN or log in: `hf auth login`."),
}
"""Class of an error of the hub's client -> what it means, and what to do."""


@dataclass(frozen=True)
class Repository:
    """A repository of one model, and the revision that is meant (None: the newest)."""

    name: str  # USER/NAME
    revision: str | None = None

    @classmethod
    def parse(cls, text: str, where: str) -> "Repository":
        """`USER/NAME` or `USER/NAME@REVISION`. Raises UsageError for anything else."""
        name, at, revision = text.partition("@")
        user, _, own = name.partition("/")
        if not (_NAME.fullmatch(user) and _NAME.fullmatch(own)) or (at and not revision):
            raise UsageError(
                f"'{text}' is not a repository on the hub", where=where, remedy="Write USER/NAME or USER/NAME@REVISION."
            )
        return cls(name, revision or None)

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + ("" if self.revision is None else f"@{self.revision}")


def is_hub(path: Path | str) -> bool:
    """Whether a path means the hub; of the two slashes a `Path` leaves one."""
    return str(path).startswith("hf:/")


def hub_model(path: Path | str) -> Path:
    """The model file of a repository, from the hub or its cache; `path` is as `is_hub` takes it.

    Raises UsageError for what is no repository's name, SegadaptError when the file cannot be had.
    """
    import huggingface_hub

    repository = Repository.parse(str(path).removeprefix("hf:").lstrip("/"), where=SCHEME.rstrip("/"))
    with told(repository):
        return Path(
            huggingface_hub.hf_hub_download(
                repository.name, FILE, revision=repository.revision, endpoint=endpoint(), library_name="segadapt"
            )
        )


def endpoint() -> str | None:
    """The hub's address where the environment names another one."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


@contextmanager
def told(repository: Repository) -> Iterator[None]:
    """Context in which whatever the hub's client raises becomes one line. Raises SegadaptError."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)  # it would warn at every retry; what failed is told once
    disable_progress_bars()
    try:
        yield
    except SegadaptError:
        raise
    except Exception as error:  # of the client and of what it stands on
        what, remedy = _said(error)
        raise SegadaptError(what, where=str(repository), remedy=remedy) from error
    finally:
        enable_progress_bars()
        hub_logging.set_verbosity(level)


def _said(error: BaseException) -> tuple[str, str]:
    """What an error means, and a remedy."""
    for kind in type(error).__mro__:
        if kind.__name__ in _WORDS:
            return _WORDS[kind.__name__]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            "the hub refuses it: you are not known there, or may not write",
            "Set HF_TOKEN to a token that may write.",
        )
    if status is not None:
        return f"the hub answers {status}", "Try again later."
    return f"no connection to the hub ({type(error).__name__})", "Check the connection and HF_ENDPOINT."

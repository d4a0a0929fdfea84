"""Text for others to read: without secrets, and without the user's name where it is not needed."""

import getpass
import os
import re
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r"\b(hf_|ghp_|github_pat_|sk-|wandb_)\w{8,}")
_LOGIN = re.compile(r"://[^/@\s]+@")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL", re.I)
_TOO_SHORT = 3  # a shorter name is part of many words
_NO_PERSON = ("root", "user", "ubuntu", "runner", "home", "data")


def redacted(content: Any) -> Any:
    """Plain data with `~` for the home folder, `USER` for the user's name in paths, and no tokens or passwords."""
    if isinstance(content, dict):
        return {key: redacted(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [redacted(value) for value in content]
    return _text(content) if isinstance(content, str) else content


def environment(names: tuple[str, ...], beginnings: tuple[str, ...]) -> dict[str, str]:
    """The set variables with these names or prefixes; for secret ones only that they are set."""
    found = {}
    for name, value in sorted(os.environ.items()):
        if name in names or name.startswith(beginnings):
            found[name] = "(set)" if _SECRET.search(name) else value
    return found


def _text(text: str) -> str:
    home, user = _home_and_user()
    if home is not None:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    if user is not None:
        text = re.sub(rf"(?<=[/\\]){re.escape(user)}(?![\w.-])", "USER", text)
    return _LOGIN.sub("://…@", _TOKEN.sub(r"\1…", text))


def _home_and_user() -> tuple[str | None, str | None]:
    try:
        home = str(Path.home())
    except RuntimeError:
        home = None
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no user with that id
        user = None
    named = user is not None and len(user) >= _TOO_SHORT and user not in _NO_PERSON
    return (home if home not in (None, "/") else None), (user if named else None)

"""Errors for users, in one line: where the problem is, what it is, and how to fix it.

These are raised deliberately, with the reader in mind. Any other exception that escapes is a bug in segadapt.
"""

from pathlib import Path


class SegadaptError(Exception):
    """A failure at run time (exit code 1): a broken image, a full disk, a diverged training.

    `where` is the path or setting concerned, `remedy` what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: Path | str | None = None, remedy: str) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = "" if self.where is None else f"{self.where}: "
        return " ".join(f"{place}{self.what.rstrip('.')}. {self.remedy}".split())

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from loader processes; the default would call the constructor without its keywords.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[SegadaptError], args: tuple[object, ...], state: dict[str, object]) -> SegadaptError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(SegadaptError, ValueError):
    """Misuse (exit code 2): an unknown key, a path that does not exist, a checkpoint of another network."""

    exit_code = 2


class UsageErrors(UsageError):
    """Several misuses found at once (a recipe with three wrong keys): one line each."""

    def __init__(self, errors: list[UsageError]) -> None:
        self.errors = errors
        super().__init__(f"{len(errors)} errors", remedy="")

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class SegadaptErrors(SegadaptError):
    """Several failures of one command (three images that cannot be read): one line each."""

    def __init__(self, errors: list[SegadaptError]) -> None:
        self.errors = errors
        super().__init__(f"{len(errors)} failures", remedy="")

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class RankLost(SegadaptError):
    """Another rank has ended; its message is more informative than this one."""


class Stopped(SegadaptError):
    """SIGINT or SIGTERM, after the work so far was saved; exit code 128 + signal number, as shells expect."""

    def __init__(self, what: str, *, signal_number: int, where: Path | str | None = None, remedy: str) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.exit_code = 128 + signal_number


def nearest(word: str, words: list[str]) -> str:
    """` Did you mean 'x'?` when one of `words` is close to `word`, else the choices; for the end of a remedy."""
    from difflib import get_close_matches

    found = get_close_matches(word, words, n=1, cutoff=0.6)
    if found:
        return f"Did you mean '{found[0]}'?"
    return f"Known: {', '.join(sorted(words))}."

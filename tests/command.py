"""The command line within the tests' own process, and what it must say when something is wrong."""

import sys
from dataclasses import dataclass

import pytest

from segadapt.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The error lines; what else is on stderr is progress."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """`segadapt ARGUMENTS`."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["segadapt", *map(str, arguments)])
        main()
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, said.out, said.err)


def assert_told(outcome: Outcome, code: int, place: str, what: str, remedy: str) -> None:
    """One error line, the last on stderr: the place, what is wrong, how to mend it; no traceback."""
    assert len(outcome.errors) == 1, outcome.err
    line = outcome.err.splitlines()[-1]
    assert line.startswith(f"error: {place}: "), line
    assert what in line and line.endswith(remedy), line
    assert "" not in outcome.err.splitlines()
    assert "Traceback" not in outcome.err and "unexpected" not in line, outcome.err
    assert outcome.code == code, outcome

"""The short form of `make fuzz`: a few inputs for everything that reads, the same each time."""

from pathlib import Path

import pytest

from fuzz_targets import readers
from fuzzing import Hang, Outcome, Reader, fuzz, mutated
from scored_runs import registered

__all__ = ["registered"]
INPUTS = 40


@pytest.mark.usefixtures("registered")
def test_whatever_is_read_is_taken_or_refused_in_words(tmp_path: Path) -> None:
    for reader in readers(tmp_path):
        (tmp_path / "inputs").mkdir(exist_ok=True)
        outcome = fuzz(reader, max(4, round(INPUTS * max(reader.share, 0.5))), tmp_path / "inputs")
        assert not outcome.failure, f"{outcome}: {outcome.content!r}"
        assert outcome.taken + outcome.refused > 0


def test_the_smallest_input_that_fails_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(content: bytes, folder: Path) -> None:
        assert b"\xff\xff" not in content

    outcome = fuzz(Reader("picky", mutated(b"0" * 20), picky), 500, tmp_path)
    assert outcome.failure.startswith("AssertionError") and b"\xff\xff" in outcome.content

    def slow(content: bytes, folder: Path) -> None:
        while True:
            pass

    monkeypatch.setattr("fuzzing.PATIENCE", 0.01)
    assert fuzz(Reader("slow", mutated(b"0"), slow), 1, tmp_path).failure.startswith(Hang.__name__)
    assert str(Outcome("quick", 2, 1)) == "quick: 3 inputs: 2 read, 1 refused, slowest 0.00 s"

"""A run that is killed (kill -9) at random places and gone on with each time must end like an undisturbed one."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MADE = (
    *("*/*.safetensors", "*/contact_sheet.png"),
    *(f"*/{folder}/**/*.png" for folder in ("images", "labels", "argmax", "confidence")),
)
"""What must be the same byte for byte."""
PATIENCE = 600.0
"""Seconds that a run may take to the next place where it is to be killed."""

Say = Callable[[str], None]


def progress(run: Path) -> int:
    """How much a run has done, in steps, pictures and files; it falls a little when one goes on from a checkpoint."""
    lines = 0
    for path in run.glob("*/metrics.jsonl"):
        try:
            lines += path.read_bytes().count(b"\n")
        except OSError:  # just being replaced
            continue
    pictures = sum(1 for pattern in MADE for _ in run.glob(pattern))
    return lines + pictures + sum(1 for _ in run.glob("*/evaluation.json")) + sum(1 for _ in run.glob("*/result.json"))


def killed(command: list[str], run: Path, at: list[int], say: Say = lambda _: None) -> int:
    """Start `segadapt COMMAND`, kill it when its progress reaches each of `at`, at last let it end; gives the kills.

    Raises AssertionError when a run fails by itself.
    """
    kills = 0
    for place in at:
        process = start(command)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and progress(run) < place:
            assert time.monotonic() < deadline, f"no progress in {PATIENCE} s"
            time.sleep(0.005)
        if process.poll() is None:
            process.kill()
            kills += 1
            say(f"killed at {progress(run)} of its steps and files: {unfinished(run)}")
        _, said = process.communicate()
        assert process.returncode in (0, -9), said[-2000:]
    process = start(command)
    _, said = process.communicate()
    assert process.returncode == 0, said[-2000:]
    return kills


def start(command: list[str]) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "segadapt", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def unfinished(run: Path) -> str:
    """The stages that are not done, for a line about a kill."""
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in run.glob("*/stage.json")}
    return ", ".join(f"in {name}" for name, state in states.items() if state != "done") or "between stages"


def places(total: int, kills: int, seed: int) -> list[int]:
    """Random places in a run of that much progress, not at its very end, where it could outrun the one who kills."""
    return sorted(random.Random(seed).sample(range(1, max(kills + 1, int(0.95 * total))), kills))


def differences(run: Path, other: Path) -> list[str]:
    """Files that are not the same in both: weights, pictures, scores, and the numbers of each step."""
    names = {str(path.relative_to(folder)) for folder in (run, other) for m in MADE for path in folder.glob(m)}
    found = [name for name in sorted(names) if not _same_bytes(run / name, other / name)]
    for folder in (run, other):
        names = {str(path.relative_to(folder)) for kind in ("metrics.jsonl", "evaluation.json", "result.json")
                 for path in folder.glob(f"*/{kind}")}  # fmt: skip
        found += [name for name in sorted(names) if numbers(run / name) != numbers(other / name)]
    return list(dict.fromkeys(found))


def numbers(path: Path) -> Any:
    """The content of a file of JSON or JSON lines, without times; None when it is not there."""
    if not path.is_file():
        return None
    if path.suffix == ".json":
        return json.loads(path.read_text())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def _same_bytes(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()

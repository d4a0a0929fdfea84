"""Runs that are killed at random places and resumed: they must end like an undisturbed one and leave nothing.

A kill is -9 to the process or SIGTERM to its group, as a batch system sends it; it comes at a random place of the run's
progress, or exactly before or after a random operation on a file. Loader processes are none, or two.
"""

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forking import Forks, Process
from segadapt.errors import UsageError
from segadapt.pipeline.lock import locked
from tiny_runs import tree, write_data, write_recipe

STAGES: dict[str, dict[str, Any]] = {
    "pretrain": {"method": "source_only", "steps": 6, "evaluate_every": 3},
    "style": {"method": "tgstn", "segmenter": "@pretrain", "steps": 6},
    "stylize": {"method": "stylize", "generator": "@style"},
    "se_gan": {"method": "se_gan", "start": "@pretrain", "extra_source": "@stylize", "steps": 6, "evaluate_every": 4},
    "pseudo": {"method": "pseudo_labels", "model": "@se_gan", "scales": [1.0]},
    "self_train": {"method": "self_training", "start": "@se_gan", "labels": "@pseudo", "steps": 6, "evaluate_every": 0},
    "views": {"method": "evaluate", "model": "@self_train", "mirror": True},
}
LAST, SHORT = "views", 0.2
"""The last stage, and about how many seconds it takes."""
KEEP = 2
"""Checkpoints that a stage keeps."""
MADE = (
    "*.safetensors",
    "contact_sheet.png",
    *(f"{kind}/**/*.png" for kind in ("images", "labels", "argmax", "confidence")),
)
"""What a stage makes that must be the same byte for byte."""
TOLD = ("metrics.jsonl", "evaluation.json", "result.json")
"""What must be the same but for times."""
GONE = 10.0
"""Seconds within which a killed run's loader processes must have noticed: they ask every five."""
ENDED_BY_TERM = (128 + signal.SIGTERM, -signal.SIGTERM)
"""After saving; and where there is nothing to save."""


def write_pipeline(folder: Path) -> Path:
    """Data and recipe of the seven stages."""
    content = tree(write_data(folder / "data"), **STAGES)
    for settings in content["stages"].values():
        if "steps" in settings:
            settings.update(checkpoint_every=2, log_every=1, keep=KEEP, size=[64, 32], evaluate_images=1)
            if settings["method"] == "tgstn":
                del settings["evaluate_images"]
    content["runtime"] = {"device": "cpu", "threads": 1}
    return write_recipe(folder / "recipe.yaml", content)


@dataclass
class Outcome:
    """What came of many kills."""

    kills: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # how and where -> kills
    runs: int = 0  # run folders that were killed again and again, and then ended
    wrong: list[str] = field(default_factory=list)  # differences, what was left behind, exit codes that should not be

    def count(self, *kinds: str) -> None:
        """Note a kill."""
        self.kills += 1
        for kind in kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1


class Killer:
    """Kills runs of one recipe, and holds what comes out against an undisturbed run."""

    def __init__(self, forks: Forks, recipe: Path, folder: Path, seed: int) -> None:
        self.forks, self.recipe, self.folder = forks, recipe, folder
        self.random = random.Random(seed)
        self.outcome = Outcome()
        self.started: list[Process] = []
        self.whole = folder / "whole"
        counted = folder / "operations"
        process = self.start(self.whole, 0, f"counting:{counted}")
        assert process.wait() == 0, process.said.read_text()[-2000:]
        self.operations, self.progress = int(counted.read_text()), progress(self.whole)

    def start(self, out: Path, workers: int, inside: str = "") -> Process:
        """The command, from its beginning or from where it stands."""
        arguments = ["run", str(self.recipe), "--workers", str(workers), "--out", str(out)]
        process = self.forks.start(arguments, self.folder / "said", inside=inside)
        self.started.append(process)
        return process

    def kill(self, kills: int, in_one_run: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
        """So many kills, up to `in_one_run` in each run folder, which then ends undisturbed and is compared."""
        while self.outcome.kills < kills:
            out = self.folder / f"run{self.outcome.runs}"
            for number in range(in_one_run):
                if self.outcome.kills == kills or not self._kill(out, number, in_one_run):
                    break
            process = self.start(out, 0)
            if process.wait() != 0:
                self.outcome.wrong.append(f"{out.name}: ended with {process.code}: {process.said.read_text()[-300:]}")
            self.outcome.wrong += [f"{out.name}: {what}" for what in (*differences(self.whole, out), *left(out))]
            self.outcome.runs += 1
            say(f"{self.outcome.kills} kills, {self.outcome.runs} runs: {len(self.outcome.wrong)} wrong")
        deadline = time.monotonic() + GONE
        while (there := [pid for process in self.started for pid in process.group()]) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.outcome.wrong += [f"process {pid} is still there" for pid in there]
        return self.outcome

    def _kill(self, out: Path, number: int, in_one_run: int) -> bool:
        """Start the run and kill it, somewhere in the next part of it; False when it was at its end before."""
        dice = self.random
        sent = signal.SIGTERM if dice.random() < 0.3 else signal.SIGKILL
        workers, last = dice.choice((0, 2)), number == in_one_run - 1
        at_operation = not last and self.outcome.kills % 2 == 0
        if at_operation:
            where = dice.randint(1, max(2, 2 * self.operations // in_one_run))
            process = self.start(out, workers, f"at_operation:{where}:{int(sent)}:{dice.choice(('before', 'after'))}")
            code = process.wait()
        else:
            where = int(self.progress * (number + dice.random()) / in_one_run)
            process = self.start(out, workers)
            # The last kill is for the last stage, which is short and makes one file: nothing else would find it.
            while process.poll() is None and (stage_of(out) != f"in {LAST}" if last else progress(out) < where):
                time.sleep(0.003)
            time.sleep(dice.random() * SHORT if last else 0)
            if process.poll() is None:
                process.signal(sent, group=sent == signal.SIGTERM)
            code = process.wait()
        if code == 0:
            return False
        self.outcome.count(
            sent.name, f"workers {workers}", "at an operation" if at_operation else "in between", stage_of(out)
        )
        if code not in (ENDED_BY_TERM if sent == signal.SIGTERM else (-signal.SIGKILL,)):
            said = process.said.read_text()[-300:]
            self.outcome.wrong.append(f"{out.name}: {sent.name} with {workers} workers: exit code {code}: {said}")
        return True


def progress(run: Path) -> int:
    """How much a run has done, in steps, pictures and files; it falls a little when one resumes from a checkpoint."""
    lines = 0
    for path in run.glob("*/metrics.jsonl"):
        try:
            lines += path.read_bytes().count(b"\n")
        except OSError:  # just being replaced
            continue
    return lines + sum(1 for name in (*MADE, "evaluation.json", "result.json") for _ in run.glob(f"*/{name}"))


def stage_of(run: Path) -> str:
    """Where a run was killed."""
    states = {}
    for path in run.glob("*/stage.json"):
        try:
            states[path.parent.name] = json.loads(path.read_text())["state"]
        except OSError:  # just being replaced
            continue
    return next((f"in {name}" for name, state in states.items() if state != "done"), "between stages")


def differences(run: Path, other: Path) -> list[str]:
    """Files that are in one of the two only, weights, pictures, scores and numbers that are not the same."""
    names = [{str(path.relative_to(folder)) for path in files_of(folder)} for folder in (run, other)]
    found = [f"{name} is in one run only" for name in sorted(names[0] ^ names[1])]
    for pattern in (*MADE, *TOLD):
        for path in run.glob(f"*/{pattern}"):
            name = path.relative_to(run)
            if str(name) in names[1] and not _same(path, other / name):
                found.append(f"{name} differs")
    return found


def files_of(run: Path) -> list[Path]:
    """All but the checkpoints: which of them are there depends on where a run was stopped."""
    return [path for path in run.rglob("*") if path.is_file() and path.parent.name != "checkpoints"]


def left(run: Path) -> list[str]:
    """What a kill may leave behind: temporary files, checkpoints too many, a lock."""
    found = [f"{path.relative_to(run)} was left" for path in run.rglob(".*") if path.name != ".lock"]
    for folder in run.glob("*/checkpoints"):
        names = sorted(path.name for path in folder.iterdir())
        if len(names) > KEEP or names[-1:] != ["step_00000006.pt"]:
            found.append(f"{folder.parent.name}: checkpoints {names}")
    try:
        with locked(run):
            pass
    except UsageError as error:
        found.append(str(error))
    return found


def numbers(path: Path) -> Any:
    """The content of a file of JSON or JSON lines, without times."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def _same(a: Path, b: Path) -> bool:
    return numbers(a) == numbers(b) if a.name in TOLD else a.read_bytes() == b.read_bytes()

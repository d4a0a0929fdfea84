"""W&B: a run of the project `segadapt` (or WANDB_PROJECT) on its server, or offline (WANDB_MODE=offline) in files.

Its files are in the stage's own folder, `wandb/`. A resumed offline run is several of them, one for each time that the
command was started; `wandb sync` uploads them in their order as one run.
"""

import json
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

from segadapt.tracking.tracker import PREFIXES, Identity, Kind, Line, Pictures, Subject, kind_of, numbers, step_of

PROJECT = "segadapt"
FOLDER = "wandb"
MARKS: Mapping[Kind, str] = {**PREFIXES, "pictures": "predictions/"}
"""How the names of some number, or picture, begin that each entry of a kind has."""
PATIENCE = 10.0
"""Seconds that the end of a run is waited for."""
MAGIC, BLOCK, HEADER = 7, 32_768, struct.Struct("<IHB")
"""Bytes before the first record; of a block; and a chunk's checksum, length and kind: the log format of LevelDB."""
WHOLE, FIRST, LAST = 1, 2, 4
"""Kinds of chunks: all of a record, its beginning, its end."""


class Wandb:
    """Each line is a row of its own with its `step`, which W&B draws it over: its own count of rows only ever grows.

    Rows are written by another process, in blocks: what a kill has lost of them is told again on resuming.
    """

    def __init__(self, subject: Subject, known: Identity | None, from_step: int) -> None:
        self._folder = subject.folder / FOLDER
        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        # Offline there is nothing to ask: not a word. Online W&B may ask for a key, and says where the run is seen.
        settings = wandb.Settings(console="off", silent=offline, quiet=True, save_code=False, disable_git=True)
        self._run: Any = _begun(
            project=known["project"] if known else os.environ.get("WANDB_PROJECT", PROJECT),
            entity=(known or {}).get("entity") or None,
            id=known["run"] if known else None,
            name=subject.name,
            config={**subject.parameters, "recipe": subject.recipe},
            dir=str(subject.folder),
            resume="allow" if known else None,
            reinit="create_new",
            settings=settings,
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        # Offline nobody has an account: the entity is that of whoever uploads the run.
        entity = "" if self._run.offline else str(self._run.entity or "")
        self.identity: Identity = {"entity": entity, "project": self._run.project, "run": self._run.id}
        self.reached: dict[Kind, int] = {}
        if known:
            self.reached = self._in_files() if self._run.offline else self._on_server()

    def _in_files(self) -> dict[Kind, int]:
        """The last step of each kind in the files of this run, also those of times when it was online."""
        found: dict[Kind, int] = {}
        for path in self._folder.glob(f"*run-*/run-{self._run.id}.wandb"):
            for row in rows(path):
                found[kind_of(row)] = max(found.get(kind_of(row), 0), step_of(row))
        return found

    def _on_server(self) -> dict[Kind, int]:
        """The last step of each kind that the server has."""
        run: Any = wandb.Api().run(f"{self._run.entity}/{self._run.project}/{self._run.id}")
        found: dict[Kind, int] = {}
        for kind, prefix in MARKS.items():
            # One name stands for all: a line is sent whole.
            name = next((name for name in run.summary if name.startswith(prefix)), None)
            rows_with = () if name is None else run.scan_history(keys=["step", name])
            found[kind] = max((int(row["step"]) for row in rows_with), default=0)
        return found

    def lines(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log({"step": step_of(line), **numbers(line)})

    def pictures(self, step: int, pictures: Pictures) -> None:
        shown = {name: wandb.Image(picture, caption=name) for name, picture in pictures.items()}
        self._run.log({"step": step, **shown})

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        self._run.log({"step": step, **scores})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
        # The other process may still be writing: whoever resumes reads what is in the file.
        file, end = Path(self._run.settings.sync_dir) / f"run-{self._run.id}.wandb", time.monotonic() + PATIENCE
        while file.is_file() and not _is_closed(file) and time.monotonic() < end:
            time.sleep(0.01)


def _begun(**settings: Any) -> Any:
    """What `wandb.init` gives. Raises RuntimeError, with the remedy, where W&B knows no account and cannot ask."""
    try:
        return wandb.init(**settings)
    except wandb.errors.UsageError as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise RuntimeError(f"{said}, or set WANDB_MODE=offline to keep the run here") from error


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's file, name -> value, up to where a kill cut it short. A picture, which has parts, is None."""
    for record in _records(path):
        if record.HasField("history"):
            named = [(list(item.nested_key) or [item.key], item.value_json) for item in record.history.item]
            yield {keys[0]: json.loads(value) if len(keys) == 1 else None for keys, value in named}


def _is_closed(path: Path) -> bool:
    """Whether the end of the run is in its file."""
    return any(record.HasField("exit") for record in _records(path))


def _records(path: Path) -> Iterator[Any]:
    messages: Any = wandb_internal_pb2  # its classes are made when it is imported
    return map(messages.Record.FromString, _chunks(path.read_bytes()))


def _chunks(content: bytes) -> Iterator[bytes]:
    """The records of a log as they are stored."""
    place, begun = MAGIC, b""
    while place + HEADER.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:  # too little for another chunk: zeros
            place += left
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        chunk = content[place : place + length]
        if len(chunk) < length:
            return
        place += length
        begun = chunk if kind in (WHOLE, FIRST) else begun + chunk
        if kind in (WHOLE, LAST):
            yield begun

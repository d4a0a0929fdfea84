"""metrics.jsonl: one line a step, fetched from the device with an interval so that training never waits for it."""

import json
import time
from pathlib import Path
from typing import Any, TextIO

import torch

from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_failure, write_text
from segadapt.methods.method import Values
from segadapt.plain_data import read_json_lines


class Recorder:
    """Collects named values on the device and writes them as lines; only rank 0 writes."""

    def __init__(self, path: Path, *, writes: bool, from_step: int, tensorboard: bool = False) -> None:
        self.path, self.writes = path, writes
        self.waiting: list[tuple[dict[str, float], Values]] = []
        self.last: dict[str, float] = {}  # the newest fetched line, for the progress display
        self._file: TextIO | None = None
        self._board = board(path.parent / "tensorboard", from_step) if tensorboard and writes else None
        self._clock = time.perf_counter()
        if writes:
            self._keep_until(from_step)
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise write_failure(path, error) from error

    def _keep_until(self, step: int) -> None:
        """Drop lines after `step` (they are computed again) and a last line that a kill cut short."""
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        lines = read_json_lines(self.path)
        kept = [text for text, line in lines if type(line.get("step")) is int and line["step"] <= step]
        write_text(self.path, "".join(f"{text}\n" for text in kept))

    def add(self, step: int, losses: Values, rates: dict[str, float]) -> None:
        """Note a step (1 = after the first update): losses stay on the device until `flush`."""
        now = time.perf_counter()
        line = {"step": step, **{f"lr/{name}": rate for name, rate in rates.items()}, "time/step": now - self._clock}
        self._clock = now
        self.waiting.append((line, losses))

    def flush(self) -> None:
        """Fetch what waits, write it, and keep the newest in `last`."""
        if not self.waiting:
            return
        # One transfer for all; each line has names of its own: a term may begin late, or end.
        fetched = iter(torch.stack([loss for _, losses in self.waiting for loss in losses.values()]).tolist())
        for line, losses in self.waiting:
            # JSON has no NaN: a loss that is not finite is written as null.
            named = {f"loss/{name}": number for name, number in zip(losses, fetched, strict=False)}
            self.last = {"step": line["step"], **named, **line}
            self._write(self.last)
        self.waiting.clear()

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Write an evaluation during training."""
        self.flush()
        self._write({"step": step, **{f"val/{name}": score for name, score in scores.items()}})
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _write(self, line: dict[str, float]) -> None:
        if self._file is None:
            return
        plain = {k: (v if v == v and abs(v) != float("inf") else None) for k, v in line.items()}
        try:
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()
        except OSError as error:
            raise write_failure(self.path, error) from error
        if self._board is not None:
            for name, value in line.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(line["step"]))


def board(folder: Path, from_step: int) -> Any:
    """A TensorBoard writer that hides what an interrupted run wrote after `from_step`."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed",
            where="tensorboard: true",
            remedy="pip install 'segadapt[tensorboard]', or leave it disabled.",
        ) from error
    try:
        return SummaryWriter(str(folder), purge_step=from_step + 1)
    except OSError as error:
        raise SegadaptError(f"cannot be written ({error})", where=folder, remedy="Check the disk.") from error

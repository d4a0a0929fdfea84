"""metrics.jsonl: one line per step, fetched from the device at intervals so that training never waits for it."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import torch

from segadapt.files import write_failure, write_text
from segadapt.methods.method import Values
from segadapt.plain_data import read_json_lines
from segadapt.tracking.tracker import Line
from segadapt.tracking.trackers import Tracking


class Recorder:
    """Collects named values on the device and writes them as lines, which trackers mirror; only rank 0 writes."""

    def __init__(self, path: Path, *, writes: bool, from_step: int, tracking: Tracking | None = None) -> None:
        self.path, self.writes, self.tracking = path, writes, tracking if writes else None
        self.waiting: list[tuple[dict[str, float], Values]] = []
        self.last: dict[str, float] = {}  # the newest fetched line, for the progress display
        self._file: TextIO | None = None
        self._clock = time.perf_counter()
        if writes:
            kept = self._keep_until(from_step)
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise write_failure(path, error) from error
            if self.tracking is not None:
                self.tracking.begin(from_step, kept)

    def _keep_until(self, step: int) -> list[Line]:
        """Drop lines after `step` (they are recomputed) and a last line that a kill cut short; returns the others."""
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return []
        lines = read_json_lines(self.path)
        kept = [(text, line) for text, line in lines if type(line.get("step")) is int and line["step"] <= step]
        write_text(self.path, "".join(f"{text}\n" for text, _ in kept))
        return [line for _, line in kept]

    def add(self, step: int, losses: Values, rates: dict[str, float]) -> None:
        """Note a step (1 = after the first update): losses stay on the device until `flush`."""
        now = time.perf_counter()
        line = {"step": step, **{f"lr/{name}": rate for name, rate in rates.items()}, "time/step": now - self._clock}
        self._clock = now
        self.waiting.append((line, losses))

    def flush(self) -> None:
        """Fetch pending lines, write them, and keep the newest in `last`."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []  # an interrupt while they are written must not write them twice
        # One transfer for all; names differ by line, since a term may begin late, or end.
        fetched = iter(torch.stack([loss for _, losses in waiting for loss in losses.values()]).tolist())
        lines = []
        for line, losses in waiting:
            named = {f"loss/{name}": number for name, number in zip(losses, fetched, strict=False)}
            self.last = {"step": line["step"], **named, **line}
            lines.append(self.last)
        self._write(lines)

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Write an evaluation during training."""
        self.flush()
        self._write([{"step": step, **{f"val/{name}": score for name, score in scores.items()}}])
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._file is not None:
            try:
                self._file.close()  # which writes what a failed write left behind
            except OSError as error:
                raise write_failure(self.path, error) from error

    def _write(self, lines: Sequence[dict[str, float]]) -> None:
        if self._file is None:
            return
        # JSON has no NaN: a loss that is not finite is written as null.
        plain = [{k: (v if math.isfinite(v) else None) for k, v in line.items()} for line in lines]
        try:
            self._file.write("".join(json.dumps(line) + "\n" for line in plain))
            self._file.flush()
        except OSError as error:
            raise write_failure(self.path, error) from error
        if self.tracking is not None:
            self.tracking.lines(plain)

"""Which network of a training is kept: the last, the best on target labels, or one chosen without labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Selection = Literal["last", "best_target", "label_free"]
SELECTED: tuple[Selection, ...] = ("best_target", "label_free")
"""Selections that maximize a score: target mIoU, and a label-free criterion."""


@dataclass(frozen=True)
class Candidate:
    """A network that was the best so far by one criterion."""

    step: int
    score: float


class Selector:
    """Saves the result network whenever a criterion improves; keeps every score for the rank correlation."""

    def __init__(
        self,
        folder: Path,
        save: Callable[[Path, int, Selection], None],
        minimum_miou: float,
        label_free: str = "infomax",  # the score that stands in for target mIoU
    ) -> None:
        self.folder, self.save, self.minimum_miou, self.label_free = folder, save, minimum_miou, label_free
        self.criteria: dict[Selection, str] = {"best_target": "target_miou", "label_free": label_free}
        self.best: dict[Selection, Candidate] = {}
        self.history: list[tuple[int, float, float]] = []  # (step, criterion, target mIoU)

    def path(self, selection: Selection) -> Path:
        """The path of a selection's model."""
        return self.folder / f"model_{selection}.safetensors"

    def consider(self, step: int, scores: dict[str, float]) -> None:
        """Take in an evaluation of the network after `step` updates."""
        scores = {name: score for name, score in scores.items() if not math.isnan(score)}  # no labelled pixels: NaN
        if "target_miou" in scores and self.label_free in scores:
            self.history.append((step, scores[self.label_free], scores["target_miou"]))
        for selection, criterion in self.criteria.items():
            if criterion not in scores or (selection == "best_target" and scores[criterion] <= self.minimum_miou):
                continue
            if selection not in self.best or scores[criterion] > self.best[selection].score:
                self.best[selection] = Candidate(step, scores[criterion])
                self.save(self.path(selection), step, selection)

    def state(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {
            "criterion": self.label_free,
            "best": {name: [c.step, c.score] for name, c in self.best.items()},
            "history": [list(h) for h in self.history],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`; a candidate whose model no longer exists is dropped."""
        best: dict[Selection, tuple[int, float]] = dict(state["best"])
        if state.get("criterion", "infomax") != self.label_free:  # continued with another one
            best.pop("label_free", None)
        there = {name: found for name, found in best.items() if self.path(name).is_file()}
        self.best = {name: Candidate(int(step), float(score)) for name, (step, score) in there.items()}
        self.history = [(int(step), float(infomax), float(miou)) for step, infomax, miou in state["history"]]

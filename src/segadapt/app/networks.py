"""The networks of the app, loaded on first use; a few are kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch

from segadapt.app.choices import Choices
from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import UsageError, nearest
from segadapt.inference.predictor import Predictor
from segadapt.inference.stylizer import USUAL_SIZE, Stylizer
from segadapt.weights.saved import load_any, load_generator

KEPT = 6
"""Number of networks that stay in memory, the most recently used ones."""
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Segmenter:
    """A model ready to predict, with its display name."""

    name: str
    predictor: Predictor
    space: LabelSpace


class Networks:
    """Predictors and stylizers by name. A model file that has been replaced is reloaded.

    Loading is thread-safe; a network must be run by one thread at a time.
    """

    def __init__(self, choices: Choices, device: torch.device) -> None:
        self.choices, self.device = choices, device
        self._kept: OrderedDict[tuple[Path, int], object] = OrderedDict()
        self._lock = threading.Lock()

    def segmenter(self, name: str) -> Segmenter:
        """Raises UsageError for an unknown name, SegadaptError for a damaged file."""

        def load(file: Path) -> Segmenter:
            saved = load_any(file, self.choices.space)
            return Segmenter(name, Predictor(saved.network, saved.header.size, device=self.device), saved.header.space)

        return self._get(self.choices.segmenters, name, load)

    def stylizer(self, name: str) -> Stylizer:
        """Raises UsageError for an unknown name, SegadaptError for a damaged file."""

        def load(file: Path) -> Stylizer:
            saved = load_generator(file)
            return Stylizer(saved.network, saved.header.size or USUAL_SIZE, device=self.device)

        return self._get(self.choices.generators, name, load)

    def _get(self, files: dict[str, Path], name: str, load: Callable[[Path], Loaded]) -> Loaded:
        if name not in files:
            raise UsageError(f"there is no '{name}'", where="models", remedy=nearest(name, list(files)))
        file = files[name]
        try:
            key = file, file.stat().st_mtime_ns
        except OSError as error:
            raise UsageError("no longer exists", where=file, remedy="Restore the file.") from error
        with self._lock:
            if key not in self._kept:
                self._kept[key] = load(file)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return cast(Loaded, self._kept[key])

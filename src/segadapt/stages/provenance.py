"""Whether target labels had a part in a stage: told by the files that it is made from, wherever they come from."""

from pathlib import Path

from segadapt.engine.checkpoints import Checkpoints
from segadapt.references import named_by, paths_in
from segadapt.stages.context import Run
from segadapt.stages.registry import kind_of
from segadapt.weights import provenance
from segadapt.weights.provenance import Answer
from segadapt.weights.starts import STARTS


def used_target_labels(run: Run, name: str) -> Answer:
    """Whether target labels had a part in what this stage is made from; what it names must be there. None: not known.

    Names of initial weights (`vgg16_hub`) are of another task, and a mask of the image plane knows no label.
    """
    settings = run.recipe.stages[name]
    if kind_of(settings).sees_target_labels(settings, run.recipe.data):
        return True
    learned = [key for key, mark in named_by(type(settings)).items() if mark.learned]
    named = [path for key in learned for path in paths_in(settings, key) if path not in STARTS]
    return provenance.either(*(provenance.used_target_labels(run.file_of(path)) for path in named))


def said_by_checkpoint(folder: Path) -> Answer:
    """What the newest checkpoint of a stage says about it: a continued one may have begun with other files."""
    latest = Checkpoints(folder / "checkpoints", 1).latest()
    return False if latest is None else provenance.used_target_labels(latest)

"""Whether target labels had a part in a stage: told by the files that it is made from, wherever they come from."""

from pathlib import Path

from segadapt.engine.checkpoints import Checkpoints
from segadapt.pipeline.context import Run
from segadapt.weights import provenance

FILES = ("start", "stand_in", "segmenter", "model", "generator", "discriminator", "discriminators")
FOLDERS = ("extra_source", "labels")
"""Settings that name what a stage is made from: `@stage`, or files and folders of other runs."""


def used_target_labels(run: Run, name: str) -> bool:
    """Whether target labels had a part in what this stage is made from; what it names must be there."""
    settings = run.recipe.stages[name]
    if settings.method == "target_trained":
        return True
    paths: list[Path] = []
    for key in (*FILES, *FOLDERS):
        value = getattr(settings, key, None)
        named = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
        paths += [run.folder_of(one) if key in FOLDERS else run.file_of(one) for one in named]
    return any(map(provenance.used_target_labels, paths))


def said_by_checkpoint(folder: Path) -> bool:
    """What the newest checkpoint of a stage says about it: a continued one may have begun with other files."""
    latest = Checkpoints(folder / "checkpoints", 1).latest()
    return latest is not None and provenance.used_target_labels(latest)

"""`--continue STAGE`: a training continues from one of its checkpoints with other settings, or for longer.

Nothing of it is silent: stage.json keeps what the updates before were made with, and the fingerprint covers it. Only
where the updates before would have been the same (more steps, and a schedule that does not depend on them) the stage
is what an uninterrupted one would be.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segadapt.engine import checkpoints
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import sha256, write_with
from segadapt.methods.method import Method
from segadapt.pipeline import history
from segadapt.pipeline.stage_folder import StageFolder
from segadapt.quirks import QuirkySettings
from segadapt.stages.shipped import kind_of
from segadapt.stages.stage import StageKind

FLAG = "--continue"


@dataclass(frozen=True)
class Continuation:
    """A stage with all that came before, and the checkpoint that it continues from."""

    kind: StageKind
    stage: StageFolder
    checkpoint: Path
    step: int
    own: bool  # whether it is one of the stage's own checkpoints
    named: bool  # whether the user named it, or it is the newest
    caution: str | None = None  # what a person should know about it

    def said(self) -> str:
        """In words. What was made with others before an earlier continuation is no news."""
        changed = bool(self.stage.parts) and self.stage.parts[-1].until == self.step
        how = "with different settings" if changed else "for longer, as if it had never ended"
        return f"continues from step {self.step} ({self.checkpoint.name}), {how}"

    def read(self) -> dict[str, Any]:
        """The checkpoint's content. Raises UsageError when it was named and is none, else as `checkpoints.read`."""
        with _chosen(self.checkpoint, self.stage.name, self.named):
            return checkpoints.read(self.checkpoint)

    def restore(self, content: dict[str, Any], method: Method, facts: dict[str, Any]) -> None:
        """Put the content into `method`. Raises UsageError when it does not fit."""
        with _chosen(self.checkpoint, self.stage.name, self.named):
            checkpoints.restore(content, method, self.checkpoint, facts)

    def take_over(self) -> None:
        """Make the stage's folder one of a stage that has come to this checkpoint, and no further.

        Killed in between, it is an unfinished stage of the settings before, or one of nobody knows which (what came
        from elsewhere): never one of other settings than it says.
        """
        stage, folder = self.stage, self.stage.folder / "checkpoints"
        if not self.own:
            stage.clear()
            place = checkpoints.path_of(folder, self.step)
            write_with(place, lambda temporary: _copy(self.checkpoint, temporary))
        else:
            stage.mark_unfinished()
            later = [path for path in checkpoints.Checkpoints(folder, 1).all() if checkpoints.step_of(path) > self.step]
            for path in (*self.kind.later_than(stage.folder, self.step), *reversed(later)):
                path.unlink(missing_ok=True)
        stage.mark("running")


def continuation(stage: StageFolder, settings: QuirkySettings, named: str | None) -> Continuation:
    """What `--continue STAGE` (its newest checkpoint) or `--continue STAGE=CHECKPOINT` asks for; nothing is written.

    `named` is a file, or the name of one in the stage's `checkpoints`. Raises UsageError for a stage that is not
    trained, and when there is no such checkpoint or it has more updates than the stage is to have.
    """
    where = f"{FLAG} {stage.name}"
    kind = kind_of(settings)
    if not kind.continuable(settings):
        raise UsageError("the stage is not a training stage", where=where, remedy="Name one that is.")
    folder = stage.folder / "checkpoints"
    known = checkpoints.Checkpoints(folder, 1).all()
    path = _find(named, folder, known)
    if path is None:
        there = ", ".join(one.name for one in known) or "none"
        raise UsageError(
            "there is no checkpoint to continue from" if named is None else f"there is no checkpoint '{named}'",
            where=where,
            remedy=f"{folder} has: {there}. Give a checkpoint from elsewhere by its path: {FLAG} {stage.name}=FILE.",
        )
    with _chosen(path, stage.name, named is not None):
        step = checkpoints.about(path)[0]
    if step > stage.decided["steps"]:
        raise UsageError(
            f"{path.name} is from step {step}, but the stage has only {stage.decided['steps']}",
            where=where,
            remedy=f"Set stages.{stage.name}.steps to more, or name an earlier checkpoint.",
        )
    if path.resolve().parent != folder.resolve():
        return Continuation(
            kind, stage.after((history.Part(step, {}, sha256(path)),)), path, step, own=False, named=True
        )
    before = stage.before() or {"parts": (), "content": {}}
    by_length = kind.depends_on_length(settings)
    parts = history.continued(history.until(before["parts"], before["content"], step), stage.content, by_length)
    caution = None
    if parts and by_length and history.length_differs(parts[-1].content, stage.content):
        caution = (
            "its schedule ends with the training, so a training of this length from the beginning would have made "
            "different first updates; with a constant schedule or `schedule_steps` they are the same"
        )
    return Continuation(kind, stage.after(parts), path, step, own=True, named=named is not None, caution=caution)


@contextmanager
def _chosen(path: Path, stage: str, named: bool) -> Iterator[None]:
    """A file that the user named and that does not serve is told as a wrong choice, not as one to delete."""
    try:
        yield
    except SegadaptError as error:
        if not named:
            raise
        readable = isinstance(error, UsageError)
        raise UsageError(
            f"{path} is not a training checkpoint for this stage: {error.what}",
            where=f"{FLAG} {stage}",
            remedy="Name another one"
            + (", or give it as `start` to begin with the weights that fit." * readable or "."),
        ) from error


def _find(named: str | None, folder: Path, known: list[Path]) -> Path | None:
    if named is None:
        return known[-1] if known else None
    places = (Path(named).expanduser(), folder / named)
    return next((path for path in places if path.is_file()), None)


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)

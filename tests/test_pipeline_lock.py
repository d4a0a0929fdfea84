"""One command at a time in a run folder, whatever happens to the lock."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from segadapt.engine.checkpoints import Checkpoints
from segadapt.engine.trainer import Trainer
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import LONG, write_text
from segadapt.pipeline.lock import locked
from tiny_runs import run, tree, write_data, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    stage = {"method": "source_only", "steps": 3, "checkpoint_every": 1, "evaluate_every": 0, "keep": 2}
    return write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), baseline=stage))


def test_a_process_cannot_hold_a_folder_twice(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with locked(out):
        for folder in (out, tmp_path / "." / "run"):
            with pytest.raises(
                UsageError, match=r"another command is running in this folder \(of this program itself\)"
            ):
                run(recipe, folder)
        with locked(tmp_path / "other"):
            pass
        assert not _free(out)  # the refused attempts have not ended the lock
    with locked(out):
        pass


def _free(folder: Path) -> bool:
    """Whether another process could have the lock."""
    child = os.fork()
    if child == 0:
        with (folder / ".lock").open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_is_removed_stops_the_run(
    again: bool, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next checkpoint appears; also when another command has made a lock of its own."""
    out, after = tmp_path / "run", Trainer._after

    def removing(self: Trainer, done: int, *rest: object) -> None:
        if done == 2:
            (out / ".lock").unlink()
            if again:
                (out / ".lock").touch()
        after(self, done, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_after", removing)
    with pytest.raises(SegadaptError, match="the lock was removed while this command was running") as told:
        run(recipe, out)
    assert told.value.where == out / ".lock"
    assert [path.name for path in (out / "baseline/checkpoints").iterdir()] == ["step_00000001.pt"]
    monkeypatch.undo()
    run(recipe, out)
    assert (out / "baseline/model.safetensors").is_file()


def test_a_file_system_without_locks_is_told_and_the_run_does_its_work(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with pytest.warns(UserWarning, match="this file system has no locks"), locked(tmp_path / "run"):
        write_text(tmp_path / "run/file", "")


def test_what_killed_commands_left_goes_at_the_next(recipe: Path, tmp_path: Path) -> None:
    """Temporary files of earlier versions after a day, in every folder of the run; and a checkpoint too many."""
    out, kept = tmp_path / "run", Checkpoints.prune
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "prune", lambda self: None)
        run(recipe, out)
    checkpoints = out / "baseline/checkpoints"
    assert len(list(checkpoints.iterdir())) == 3 and kept is Checkpoints.prune
    (out / "baseline/model.safetensors").unlink()
    old = checkpoints / ".step_00000002.pt.4711.tmp"
    old.touch()
    os.utime(old, (0, old.stat().st_mtime - 2 * LONG))
    run(recipe, out)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_00000002.pt", "step_00000003.pt"]

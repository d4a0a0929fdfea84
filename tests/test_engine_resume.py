"""n steps at once = k steps, a stop or a kill, and n - k steps: bit for bit."""

import os
import signal
from pathlib import Path

import pytest
import torch

from forking import Forks
from segadapt.engine.runtime import Runtime
from segadapt.engine.trainer import Trainer
from segadapt.engine.updater import Updater
from segadapt.errors import SegadaptError, Stopped
from segadapt.models.segmenter import Segmenter
from tiny_runs import last_checkpoint, metrics, run, same, tree, write_data, write_recipe

SEAN = {"method": "sean", "steps": 6, "checkpoint_every": 2, "evaluate_images": 1}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), sean=SEAN))


def same_results(a: Path, b: Path) -> bool:
    """Weights, optimizer, selection and every logged number, and the model files byte for byte."""
    files = ("model.safetensors", "model_best_target.safetensors", "model_label_free.safetensors")
    assert metrics(a) == metrics(b)
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in files)
    return same(last_checkpoint(a), last_checkpoint(b))


@pytest.mark.parametrize("at", [1, 3])
def test_a_stopped_training_resumes_exactly(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    run(recipe, tmp_path / "whole")
    after = Trainer._after

    def interrupting(self: Trainer, done: int, *rest: object) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)
        after(self, done, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_after", interrupting)
    with pytest.raises(Stopped, match="a checkpoint was saved") as stopped:
        run(recipe, tmp_path / "parts")
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert last_checkpoint(tmp_path / "parts/sean")["step"] == at
    monkeypatch.undo()
    run(recipe, tmp_path / "parts")
    assert same_results(tmp_path / "whole/sean", tmp_path / "parts/sean")


def test_a_killed_training_resumes_exactly(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    """kill -9 after the first checkpoint, and half a line in the metrics file."""
    out = tmp_path / "killed"
    arguments = ["run", str(recipe), "stages.sean.steps=20", "--threads", "1", "--out", str(out)]
    forks.kill_when(lambda: list(out.glob("sean/checkpoints/step_*.pt")), arguments, tmp_path / "said")
    with (out / "sean/metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss/to')
    run(recipe, out, "stages.sean.steps=20", "runtime.threads=1")
    run(recipe, tmp_path / "whole", "stages.sean.steps=20", "runtime.threads=1")
    assert same_results(tmp_path / "whole/sean", out / "sean")


def test_a_broken_validation_image_costs_no_steps(recipe: Path, tmp_path: Path) -> None:
    """The failed evaluation is made up for when the image is mended; twice in a row nothing is lost either."""
    given = {"evaluate_every": 3, "evaluate_images": 2, "checkpoint_every": 100}
    settings = [f"stages.sean.{key}={value}" for key, value in given.items()]
    run(recipe, tmp_path / "whole", *settings)
    image = next(path for path in sorted((tmp_path / "data/cityscapes/leftImg8bit/val").rglob("*.png")))
    content = image.read_bytes()
    image.write_bytes(bytes(len(content)))
    for _ in range(2):
        with pytest.raises(SegadaptError, match="cannot be read as an image") as failure:
            run(recipe, tmp_path / "broken", *settings)
        assert failure.value.where == image
        assert last_checkpoint(tmp_path / "broken/sean")["step"] == 3
        assert [line["step"] for line in metrics(tmp_path / "broken/sean")] == [1, 2, 3]
    image.write_bytes(content)
    run(recipe, tmp_path / "broken", *settings)
    assert same_results(tmp_path / "whole/sean", tmp_path / "broken/sean")


def test_other_threads_than_before_are_told(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what else moves the last bits."""
    monkeypatch.setattr(Trainer, "_evaluate", _save_and_stop)
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "run", "runtime.threads=1")
    monkeypatch.setattr(Runtime, "processor", "an abacus")
    monkeypatch.setattr(Runtime, "need_compiler", lambda runtime: None)
    monkeypatch.setattr(Segmenter, "compile", lambda network: None)  # it would take a minute
    monkeypatch.setattr(Updater, "run", _stop)  # two threads on a core of others wait for each other at work
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "run", "runtime.threads=2", "runtime.compile=true")
    told = " ".join(capfd.readouterr().err.split())
    assert "was written with threads 1, but this run has 2" in told
    assert "was written with compiling False, but this run has True" in told
    assert f"was written with processor {torch.backends.cpu.get_cpu_capability()}, but this run has an abacus" in told


def _save_and_stop(self: Trainer, done: int, recorder: object) -> None:
    self._save(done)
    _stop()


def _stop(*_: object) -> None:
    raise Stopped("stopped", signal_number=15, remedy="")


def test_a_loss_that_is_not_finite_ends_the_training_and_names_its_files(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(SegadaptError) as failure:
        run(
            recipe,
            tmp_path / "run",
            "stages.sean.lr=1.0e+30",
            "stages.sean.checkpoint_every=1",
            "stages.sean.log_every=1",
        )
    text = str(failure.value)
    assert "was not finite at step 2" in text and ".png" in text
    assert "last good checkpoint: step_00000001.pt" in text and "--continue sean" in text


def test_the_remedy_for_a_diverged_training_is_a_tenth_of_a_rate_that_can_be(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segadapt.engine.trainer.not_finite", lambda _: "student")
    with pytest.raises(SegadaptError, match="no longer finite") as failure:
        run(
            recipe, tmp_path / "run", "stages.sean.lr=1e-3", "stages.sean.clip_norm=1", "stages.sean.checkpoint_every=1"
        )
    said = "Lower `lr` (it is 0.001): run the command again with stages.sean.lr=0.0001 --yes to restart the stage."
    assert failure.value.remedy == said

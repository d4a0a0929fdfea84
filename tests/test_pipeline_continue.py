"""`--continue`: a training continues from a checkpoint with other settings, or for longer, and says so for good."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from planning import actions, planned, without_report
from segadapt.errors import SegadaptError, UsageError
from segadapt.pipeline.plan import Choice
from segadapt.weights.saved import load_model
from tiny_runs import last_checkpoint, metrics, run, same, tree, write_data, write_recipe

A = {"method": "source_only", "steps": 4, "checkpoint_every": 2, "keep": 9, "evaluate_images": 1, "lr": 1e-3}
LOWER = "stages.a.lr=1e-4"


def go_on(*continued: str, **more: Any) -> Choice:
    return Choice(continued=continued, **more)


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, its recipe beside it."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder / "recipe.yaml", tree(write_data(folder / "data"), a=A))
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        run(recipe, folder / "run")
    return folder


@pytest.fixture
def recipe(finished: Path) -> Path:
    return finished / "recipe.yaml"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def about(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "a/stage.json").read_text())
    return content


def test_a_finished_stage_is_made_longer_as_if_it_had_not_ended(recipe: Path, out: Path, tmp_path: Path) -> None:
    longer = "stages.a.steps=6"
    with pytest.raises(UsageError, match=r"settings\.steps: 4 -> 6.*--continue a to continue from its last checkpoint"):
        run(recipe, out, longer)
    run(recipe, out, longer, choice=go_on("a"))
    run(recipe, tmp_path / "whole", longer)
    assert metrics(out / "a") == metrics(tmp_path / "whole/a")
    assert same(last_checkpoint(out / "a"), last_checkpoint(tmp_path / "whole/a"))
    for model in ("model.safetensors", "model_best_target.safetensors", "model_label_free.safetensors"):
        assert (out / "a" / model).read_bytes() == (tmp_path / "whole/a" / model).read_bytes()
    assert about(out)["fingerprint"] == about(tmp_path / "whole")["fingerprint"] and "continued" not in about(out)
    assert actions(recipe, out, longer) == ["skip"] == actions(recipe, out, longer, choice=go_on("a"))


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ([], True),
        (["stages.a.schedule=polynomial"], False),
        (["stages.a.schedule=polynomial", "stages.a.schedule_steps=9"], True),
        (["stages.a.method=se_gan"], False),  # its adversarial term decays over the steps
    ],
)
def test_a_schedule_that_ends_with_the_training_is_told(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: list[str], exact: bool
) -> None:
    """Such a stage is one that was continued with different settings."""
    stage = planned(recipe, tmp_path, *change)[1]["a"].stage
    (stage.folder / "checkpoints").mkdir(parents=True)
    (stage.folder / "checkpoints/step_00000004.pt").touch()
    stage.mark("done")
    monkeypatch.setattr("segadapt.engine.checkpoints.about", lambda _: (4, {}))
    one = planned(recipe, tmp_path, *change, "stages.a.steps=8", choice=go_on("a"))[1]["a"]
    assert one.action == "continue" and one.continuation is not None
    assert (one.continuation.caution is None) == exact == (one.stage.parts == ())
    uninterrupted = planned(recipe, tmp_path / "new", *change, "stages.a.steps=8")[1]["a"].stage
    assert (one.stage.fingerprint == uninterrupted.fingerprint) == exact


def test_a_changed_rate_continues_from_the_checkpoint_that_was_named(recipe: Path, out: Path, finished: Path) -> None:
    before = metrics(out / "a")
    choice = go_on("a=step_00000002.pt")
    run(recipe, out, LOWER, choice=choice)
    lines = [line for line in metrics(out / "a") if "lr/network" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr/network"] for line in lines] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert metrics(out / "a")[:2] == before[:2]
    told = about(out)["continued"]
    assert [part["until"] for part in told] == [2] and told[0]["content"]["settings.lr"] == 1e-3
    assert about(out)["content"]["settings.lr"] == 1e-4
    anew = planned(recipe, out.parent / "new", LOWER)[1]["a"].stage
    assert about(out)["fingerprint"] != anew.fingerprint
    assert load_model(out / "a/model.safetensors").header.step == 4
    # The same command again, and the one without the flag, find it done; going back to the old settings does not.
    assert actions(recipe, out, LOWER, choice=choice) == actions(recipe, out, LOWER) == ["skip"]
    assert actions(recipe, out) == ["redo"]
    # A continuation from here, or from where it changed, is told by what differs in it, not by the one before.
    longer = [LOWER, "stages.a.steps=6"]
    for change, checkpoint, said in (
        (longer, "", "step 4 (step_00000004.pt), for longer, as if it had never ended"),
        (longer, "=step_00000002.pt", "step 2 (step_00000002.pt), with different settings"),
        ([*longer, "seed=2"], "", "step 4 (step_00000004.pt), with different settings"),
    ):
        one = planned(recipe, out, *change, choice=go_on(f"a{checkpoint}"))[1]["a"]
        assert one.action == "continue" and one.said() == f"continues from {said}" and one.stage.parts
    assert actions(recipe, finished / "run") == ["skip"]


def test_a_continued_training_that_is_stopped_resumes(recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two of its file operations it is an unfinished stage of the one settings or the other."""
    choice, settings = go_on("a=step_00000002.pt"), (LOWER, "stages.a.steps=6")
    whole = out.parent / "whole"
    shutil.copytree(out, whole)
    run(recipe, whole, *settings, choice=choice)
    unlink = Path.unlink
    for at in range(20):
        calls = iter(range(100))

        def killed(path: Path, missing_ok: bool = False, calls: Any = calls, at: int = at) -> None:
            if "/run/a/" in str(path) and next(calls) == at:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", killed)
        try:
            run(recipe, out, *settings, choice=choice)
        except KeyboardInterrupt:
            monkeypatch.setattr(Path, "unlink", unlink)
            assert not (out / "a/stage.json").read_text().count('"state": "done"')
        else:
            break
    assert at > 2
    assert metrics(out / "a") == metrics(whole / "a")
    assert about(out) == about(whole)
    assert (out / "a/model.safetensors").read_bytes() == (whole / "a/model.safetensors").read_bytes()


def test_a_checkpoint_from_elsewhere_is_told_by_its_hash(recipe: Path, out: Path, finished: Path) -> None:
    given = finished / "run/a/checkpoints/step_00000002.pt"
    choice, new = go_on(f"a={given}"), out.parent / "new"
    run(recipe, new, choice=choice)
    (part,) = about(new)["continued"]
    assert (part["until"], part["content"]) == (2, {}) and len(part["checkpoint"]) == 64
    assert [line["step"] for line in metrics(new / "a") if "lr/network" in line] == [3, 4]
    assert actions(recipe, new, choice=choice) == ["skip"]
    with pytest.raises(UsageError, match=r"would replace what is there.*--yes"):
        run(recipe, out, choice=choice)


@pytest.mark.parametrize(
    ("overrides", "choice", "said"),
    [
        (
            ["stages.a.network=deeplab_small_bn"],
            go_on("a"),
            "network deeplab_small, but the stage has deeplab_",
        ),
        (["stages.a.optimizer=sgd"], go_on("a"), "of a different network, method or optimizer"),
        (
            ["stages.a.optimizer=sgd"],
            go_on("a=step_00000002.pt"),
            "--continue a: .+ is not a training checkpoint for this",
        ),
        (["stages.a.steps=3"], go_on("a"), "is from step 4, but the stage has only 3"),
        ([], go_on("a=step_00000003.pt"), r"no checkpoint 'step_00000003\.pt'.*step_00000002\.pt, step_00000004\.pt"),
        (
            [],
            go_on(f"a={__file__}"),
            r"--continue a: .+\.py is not a training checkpoint .+ or not a PyTorch file\)\. Name",
        ),
        ([], go_on("b"), "--continue: no stage 'b'"),
        ([], go_on("a", fresh=True), "--continue a: --fresh redoes the stage from scratch"),
        (["stages.a.stand_in=x.pth"], go_on("a"), "--continue a: the stage is not a training stage|does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_lost(
    recipe: Path, out: Path, overrides: list[str], choice: Choice, said: str
) -> None:
    before = {path: path.read_bytes() for path in sorted(out.glob("a/**/*")) if path.is_file()}
    with pytest.raises(UsageError, match=said):
        run(recipe, out, *overrides, choice=choice)
    assert {path: path.read_bytes() for path in sorted(out.glob("a/**/*")) if path.is_file()} == before


def test_other_options_of_an_optimizer_are_those_of_the_recipe(recipe: Path, out: Path) -> None:
    run(recipe, out, "stages.a.weight_decay=0.5", "stages.a.steps=5", choice=go_on("a"))
    groups = last_checkpoint(out / "a")["optimizers"]["network"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5] * len(groups)


def test_a_diverged_training_continues_with_the_command_that_its_error_names(recipe: Path, tmp_path: Path) -> None:
    """Twice it is an error, and never a model; with a lower rate it ends well."""
    out, diverged = tmp_path / "run", ["stages.a.lr=1e30", "stages.a.log_every=10", "stages.a.checkpoint_every=5"]
    diverged += ["stages.a.steps=5", "stages.a.evaluate_every=0"]
    for _ in range(2):
        with pytest.raises(
            SegadaptError, match=r"was not finite at step 2 \(.+\.png.*last good checkpoint: none yet"
        ) as failure:
            run(recipe, out, *diverged)
        assert "run the command again with stages.a.lr=RATE --yes to restart the stage." in failure.value.remedy
        assert not list(out.glob("a/checkpoints/*")) and not list(out.glob("a/*.safetensors"))
    lower = "stages.a.lr=1e-3"
    assert actions(recipe, out, *diverged, lower) == ["begin"]  # "redo" where a model was kept: hence --yes
    sick = [*diverged, "stages.a.checkpoint_every=1"]
    with pytest.raises(
        SegadaptError, match=r"run the command again with stages\.a\.lr=RATE --continue a to"
    ) as failure:
        run(recipe, out, *sick)
    assert "last good checkpoint: step_00000001.pt" in failure.value.what
    assert [path.name for path in out.glob("a/checkpoints/*")] == ["step_00000001.pt"]
    assert last_checkpoint(out / "a")["about"]["skipped"] == 0
    assert actions(recipe, out, *sick, lower, choice=go_on("a")) == ["continue"]

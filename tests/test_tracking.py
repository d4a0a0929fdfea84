"""Trackers mirror metrics.jsonl: every step once, through kills too; they fail without ending a training."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image

from command import command
from segadapt.engine.runtime import RuntimeSettings
from segadapt.errors import UsageError
from segadapt.extras import need_package
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.pipeline.plan import Choice
from segadapt.stages.tracked import tracking_of
from segadapt.tracking import trackers
from segadapt.tracking.tracker import Identity, Kind, Line, Pictures, Subject, kind_of, step_of
from segadapt.tracking.trackers import FILE, NAMES, Tracking
from tiny_runs import metrics, run, tree, write_data, write_recipe

INSTALLED = [name for name in NAMES if find_spec(name)]


class Notebook:
    """A tracker that keeps everything in `pages`, by run, as one that survives a kill."""

    pages: dict[str, list[tuple[Kind, int]]] = {}  # noqa: RUF012 - the store of all runs
    values: dict[tuple[str, int], float] = {}  # noqa: RUF012
    broken: str = ""

    def __init__(self, subject: Subject, known: Identity | None, from_step: int) -> None:
        self._fail("open")
        self.identity = known or {"run": f"{subject.name} {len(self.pages)}"}
        self.own = self.pages.setdefault(self.identity["run"], [])
        self.reached: dict[Kind, int] = {kind: max(step for k, step in self.own if k == kind) for kind, _ in self.own}
        self.parameters = subject.parameters

    def lines(self, lines: Sequence[Line]) -> None:
        self._fail("lines")
        for line in lines:
            self.own.append((kind_of(line), step_of(line)))
            self.values |= {(name, step_of(line)): value for name, value in line.items() if value is not None}

    def pictures(self, step: int, pictures: Pictures) -> None:
        self._fail("pictures")
        assert all(picture.mode == "RGB" for picture in pictures.values())
        self.own.append(("pictures", step))

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        self.own.append(("final", step))
        self.values |= {(name, step): value for name, value in scores.items()}

    def close(self, finished: bool) -> None:
        self.own.append(("final" if finished else "pictures", -1))

    def _fail(self, what: str) -> None:
        if self.broken == what:
            raise OSError("the disk is full.\nand more")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> type[Notebook]:
    """In place of all trackers."""
    monkeypatch.setattr(Notebook, "pages", {})
    monkeypatch.setattr(Notebook, "values", {})
    monkeypatch.setattr(Notebook, "broken", "")
    monkeypatch.setattr(trackers, "opened", lambda name: Notebook)
    monkeypatch.setattr("segadapt.extras.find_spec", lambda name: True)
    monkeypatch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)
    return Notebook


def recipe_of(folder: Path, **changes: Any) -> Path:
    stage = {"method": "source_only", "checkpoint_every": 2, "log_every": 1} | changes
    return write_recipe(folder / "r.yaml", tree(write_data(folder / "data"), a=stage))


ALL_STEPS = [("step", 1), ("step", 2), ("evaluation", 2), ("pictures", 2), ("step", 3), ("step", 4)]
ALL_STEPS += [("evaluation", 4), ("pictures", 4), ("final", 4), ("final", -1)]


def test_a_training_is_tracked_from_its_settings_to_its_scores(
    notebook: type[Notebook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path)
    run(recipe, tmp_path / "run", "runtime.trackers=[mlflow]")
    ((name, entries),) = notebook.pages.items()
    assert name == "run/a 0" and entries == ALL_STEPS
    scores = json.loads((tmp_path / "run/a/evaluation.json").read_text())["domains"]["target"]
    assert notebook.values["final/target_miou", 4] == scores["miou"]
    lines = metrics(tmp_path / "run/a")
    assert all(notebook.values[key, line["step"]] == value for line in lines for key, value in line.items())
    run(recipe, tmp_path / "plain")
    assert lines == metrics(tmp_path / "plain/a")  # looking on changes nothing


def test_a_killed_training_goes_on_in_the_same_run_without_repeating_a_step(
    notebook: type[Notebook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 3, with a checkpoint of step 2: step 3 is computed again, and told once."""
    recipe = recipe_of(tmp_path)
    lines = Notebook.lines

    def kill(self: Notebook, new: Sequence[Line]) -> None:
        lines(self, new)
        if step_of(new[-1]) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Notebook, "lines", kill)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run", "runtime.trackers=[trackio]")
    monkeypatch.setattr(Notebook, "lines", lines)
    run(recipe, tmp_path / "run", "runtime.trackers=[trackio]")
    (entries,) = notebook.pages.values()
    assert [entry for entry in entries if entry != ("pictures", -1)] == ALL_STEPS


def test_one_that_comes_late_is_told_all_and_one_that_lost_something_too(
    notebook: type[Notebook], tmp_path: Path
) -> None:
    lines: list[Line] = [{"step": step, "loss/total": 1.0, "time/step": 0.1} for step in (1, 2, 3)]
    subject = Subject("run/a", tmp_path)
    for first in (lines[:1], lines):
        tracking = Tracking(["mlflow"], subject, print)
        tracking.begin(len(first), first)
    assert notebook.pages == {"run/a 0": [("step", 1), ("step", 2), ("step", 3)]}
    (tmp_path / FILE).unlink()  # as where a stage is redone
    Tracking(["mlflow"], subject, print).begin(3, lines)
    assert len(notebook.pages) == 2


@pytest.mark.parametrize("what", ["open", "lines", "pictures"])
def test_a_tracker_that_fails_ends_no_training(
    notebook: type[Notebook], tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    notebook.broken = what
    run(recipe_of(tmp_path), tmp_path / "run", "runtime.trackers=[mlflow]")
    warned = [line for line in capfd.readouterr().err.splitlines() if "mlflow" in line]
    assert warned == ["a: warning: mlflow: the disk is full. The training continues without it"]
    assert (tmp_path / "run/a/model.safetensors").is_file()


def test_a_package_that_is_missing_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path)
    monkeypatch.setattr("segadapt.extras.find_spec", lambda name: None)
    asked = (("runtime.trackers=[mlflow]", "runtime.trackers"), ("stages.a.tensorboard=true", "stages.a.tensorboard"))
    for override, where in asked:
        with pytest.raises(UsageError, match=rf"{where}: .* is not installed. pip install 'segadapt\["):
            run(recipe, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `wandb/` and `mlruns/` in the working folder, which `python -m` looks into."""
    (tmp_path / "nothing_else").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="nothing_else is not installed"):
        need_package("nothing_else", "wandb", "here")


def test_pictures_come_as_often_as_asked(notebook: type[Notebook], tmp_path: Path) -> None:
    settings = ("runtime.trackers=[mlflow]", "runtime.track_images_every")
    recipe = recipe_of(tmp_path)
    for every, expected in ((3, [3]), (0, [])):
        notebook.pages.clear()
        run(recipe, tmp_path / f"run{every}", settings[0], f"{settings[1]}={every}")
        (entries,) = notebook.pages.values()
        assert [step for kind, step in entries if kind == "pictures"] == expected
    notebook.pages.clear()
    stages = {"a": {"method": "source_only"}, "s": {"method": "tgstn", "segmenter": "@a"}}
    style = write_recipe(tmp_path / "s.yaml", tree(tmp_path / "data", **stages))
    run(style, tmp_path / "style", *settings[:1], f"{settings[1]}=4", "stages.s.steps=4")
    assert [("pictures", 4) in entries for entries in notebook.pages.values()] == [True, True]


def test_a_training_continued_under_other_settings_is_another_run_with_the_history_of_both(
    notebook: type[Notebook], tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path)
    run(recipe, tmp_path / "run", "runtime.trackers=[mlflow]")
    changed = ("runtime.trackers=[mlflow]", "stages.a.steps=5", "stages.a.lr=0.01")
    run(recipe, tmp_path / "run", *changed, choice=Choice(continued=("a=step_00000002.pt",)))
    first, second = notebook.pages.values()
    assert first == ALL_STEPS
    assert [step for kind, step in second if kind == "step"] == [1, 2, 3, 4, 5]
    assert [step for kind, step in second if kind == "evaluation"] == [2, 4]


def test_the_command_names_trackers_and_the_recipe_of_the_run_keeps_them(
    notebook: type[Notebook], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run = ("run", recipe_of(tmp_path), "--out", tmp_path / "run", "stages.a.steps=1", "runtime.cuda_graphs=off")
    assert command(capsys, *of_run, "--track", "mlflow", "--track", "trackio").code == 0
    assert len(notebook.pages) == 2
    kept = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["runtime"]
    assert kept["trackers"] == ["mlflow", "trackio"] and kept["cuda_graphs"] == "off"
    told = command(capsys, *of_run, "--track", "nothing")
    assert told.code == 2 and "runtime.trackers" in told.errors[0]


def test_rank_0_alone_has_trackers() -> None:
    settings = SourceOnlySettings(steps=1, tensorboard=True)
    for rank, expected in ((0, ("mlflow", "tensorboard")), (1, ())):
        recipe = SimpleNamespace(runtime=RuntimeSettings(trackers=("mlflow",)), seed=0)
        at: Any = SimpleNamespace(is_main=rank == 0)
        about = SimpleNamespace(folder=Path("run"), recipe=recipe, runtime=at, space=SimpleNamespace(name="x"))
        work: Any = SimpleNamespace(run=about, name="a", settings=settings, folder=Path("run/a"), decided={}, say=print)
        assert tracking_of(work).names == expected


# --- the trackers themselves ---


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where MLflow (as files, without a database) and trackio keep what they are told; W&B has no account."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", (folder / "mlruns").as_uri())
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))  # read when trackio is imported
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_X_DISABLE_STATS", "true")
        yield folder


def written(name: str, stage: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of all numbers that a tracker has of the run of a stage."""
    known = json.loads((stage / FILE).read_text())[name]
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events: Any = EventAccumulator(str(stage / known["folder"]), {"scalars": 0})
        events.Reload()
        return [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=known["uri"])
        names = client.get_run(known["run"]).data.metrics
        return [(m.key, m.step, m.value) for key in names for m in client.get_metric_history(known["run"], key)]
    if name == "wandb":
        from segadapt.tracking.wandb import rows

        files = sorted(stage.glob(f"wandb/offline-run-*/run-{known['run']}.wandb"))
        found = [row for file in files for row in rows(file)]
        values = [(key, row["step"], value) for row in found for key, value in row.items()]
        return [
            each for each in values if isinstance(each[2], (int, float)) and each[0] != "step" and each[0][0] != "_"
        ]
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs(known["project"], known["run"])
    return [(k, log["step"], v) for log in logs for k, v in log.items() if isinstance(v, float)]


@pytest.mark.parametrize("name", INSTALLED)
def test_a_real_tracker_has_every_step_once(
    stores: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Opened, killed without being closed, and opened again with the same steps and more."""
    picture = {"predictions/a b.png": Image.new("RGB", (8, 4))}
    lines: list[Line] = [{"step": step, "loss/total": step / 2, "time/step": 0.5} for step in (1, 2, 3, 4)]
    scores: Line = {"step": 2, "val/target_miou": 40.0, "val/infomax": None}
    subject, said = Subject("run/a", tmp_path, {"lr": 0.1, "augment.mirror": None}, "seed: 0\n"), list[str]()
    first = Tracking([name], subject, said.append)
    first.begin(0, [])
    first.lines(lines[:2])
    first.lines([scores])
    first.pictures(2, lambda: picture)
    first.lines(lines[2:3])
    if name in ("trackio", "wandb"):  # written by a thread, another process; a kill may come after that
        first.close(finished=False)
    second = Tracking([name], subject, said.append)
    second.begin(2, [*lines[:2], scores])
    second.pictures(2, lambda: picture)
    second.lines(lines[2:])
    second.final(4, {"target_iou/traffic light": 41.0})
    second.close(finished=True)
    expected = [("final/target_iou/traffic light", 4, 41.0), ("val/target_miou", 2, 40.0)]
    for line in lines:
        expected += [(key, int(line["step"] or 0), value) for key, value in line.items() if key != "step" and value]
    assert said == [] and sorted(written(name, tmp_path)) == sorted(expected)
    assert capfd.readouterr().out == ""
    if name == "wandb":
        assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/predictions/*.png"))) == 1
    elif name != "tensorboard":
        assert len(list(stores.rglob("*+step+2+*.png" if name == "mlflow" else "trackio/media/**/*.png"))) == 1


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="needs mlflow")
def test_a_run_that_was_deleted_in_mlflow_begins_anew(stores: Path, tmp_path: Path) -> None:
    """And a long history, and many parameters, fit into MLflow's requests."""
    from mlflow import MlflowClient

    subject = Subject("run/a", tmp_path, {f"key{number}": number for number in range(150)}, "")
    lines: list[Line] = [{"step": step, "loss/total": 1.0, "time/step": 0.5} for step in range(1, 700)]
    found = set()
    for _ in range(2):
        Tracking(["mlflow"], subject, print).begin(len(lines), lines)
        known = json.loads((tmp_path / FILE).read_text())["mlflow"]
        client = MlflowClient(tracking_uri=known["uri"])
        assert len(client.get_run(known["run"]).data.params) == 150
        assert len(client.get_metric_history(known["run"], "loss/total")) == len(lines)
        client.delete_run(known["run"])
        found.add(known["run"])
    assert len(found) == 2


KILLED = """
import os, sys
from pathlib import Path
from segadapt.tracking.tracker import Subject
from segadapt.tracking.trackers import Tracking
tracking = Tracking(["wandb"], Subject("run/a", Path(sys.argv[1])), print)
tracking.begin(0, [])
tracking.lines([{"step": step, "loss/total": step / 2, "time/step": 0.5} for step in range(1, 300)])
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif("wandb" not in INSTALLED, reason="needs wandb")
def test_a_kill_costs_wandb_no_step(stores: Path, tmp_path: Path) -> None:
    """Killed with more than a block of rows, of which some are in the file; resumed from a step before them."""
    # Not the service of a test before, in this process.
    own = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, env=own).returncode == -9
    lines: list[Line] = [{"step": step, "loss/total": step / 2, "time/step": 0.5} for step in range(1, 320)]
    said: list[str] = []
    tracking = Tracking(["wandb"], Subject("run/a", tmp_path), said.append)
    tracking.begin(200, lines[:200])
    kept = tracking.trackers["wandb"].reached
    tracking.lines(lines[200:])
    tracking.close(finished=True)
    expected = [
        (key, step, value) for step in range(1, 320) for key, value in (("loss/total", step / 2), ("time/step", 0.5))
    ]
    assert said == [] and kept["step"] >= 100 and sorted(written("wandb", tmp_path)) == sorted(expected)


@pytest.mark.skipif("wandb" not in INSTALLED, reason="needs wandb")
def test_what_wandbs_server_has_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind by the name of one of its numbers: what a `scan_history` of it gives."""
    import wandb

    from segadapt.tracking.wandb import Wandb

    history: list[dict[str, Any]] = [{"step": step, "loss/total": 1.0, "time/step": 0.5} for step in (1, 2, 3)]
    history += [{"step": 2, "val/target_miou": 40.0}, {"step": 2, "predictions/a.png": {"sha256": ""}}]

    def run(path: str) -> Any:
        assert path == "me/segadapt/x1"
        summary = {name: None for row in history for name in row} | {"_runtime": 1}
        return SimpleNamespace(
            summary=summary, scan_history=lambda keys: (row for row in history if all(key in row for key in keys))
        )

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(run=run))
    online: Any = SimpleNamespace(_run=SimpleNamespace(entity="me", project="segadapt", id="x1"))
    found = Wandb._on_server(online)
    assert found == {"step": 3, "evaluation": 2, "final": 0, "pictures": 2}


@pytest.mark.skipif("wandb" not in INSTALLED, reason="needs wandb")
def test_who_has_no_account_is_told_of_the_offline_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def init(**settings: Any) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    said: list[str] = []
    Tracking(["wandb"], Subject("run/a", tmp_path), said.append).begin(0, [])
    assert len(said) == 1 and "`wandb login` to log in, or set WANDB_MODE=offline" in said[0]

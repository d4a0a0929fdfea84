"""Loss terms: some begin late or end, heads of any number share one, counts that differ are refused; long schedules."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from by_hand import CPU
from segadapt.batch import Batch, Images
from segadapt.engine import trainer
from segadapt.engine.checkpoints import not_finite
from segadapt.engine.recorder import Recorder
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.evaluation.label_free import read_metrics
from segadapt.losses import Loss, head_numbers, joint
from segadapt.methods.method import Method, Update
from segadapt.methods.sean import SeanSettings
from segadapt.pipeline.show import Display
from segadapt.report.curves import training_panels
from segadapt.report.records import StageRecord
from test_engine_updater import sean
from tiny_runs import run, tree, write_data, write_recipe


class Curriculum(Method):
    """w² of one optimizer in every step; `other`, another's own objective, from step 2 on, `early` before step 2."""

    domains = ("source",)

    def __init__(self) -> None:
        self.main, self.other = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        self.modules = {"main": self.main, "other": self.other}
        self.optimizers = {n: torch.optim.SGD(m.parameters(), lr=0.1) for n, m in self.modules.items()}

    def step(self, batch: Batch, update: Update) -> None:
        for _ in update.micro_batches(batch):
            seg, late = (module.weight.square().sum() for module in (self.main, self.other))
            update.backward(seg=Loss(seg, 1.0), **({"early": Loss(seg * 2, 1.0)} if batch.step < 2 else {}))
            update.backward(**({"other": Loss(late, 1.0)} if batch.step >= 2 else {}))
        update.step("main", "other")

    @property
    def result(self) -> torch.nn.Module:  # type: ignore[override]
        return self.modules["main"]


def a_batch(step: int) -> Batch:
    return Batch(step, (1, 2), Images(torch.zeros(2, 3, 1, 1), None, ("a", "b")))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_terms_may_begin_late_and_end(tmp_path: Path, accumulate: int) -> None:
    """In the updates, in metrics.jsonl (one fetch for all), on the display and in the report's curves."""
    method = Curriculum()
    update = Updater(method.optimizers, CPU, accumulate, clip_norm=100.0)
    before = method.other.weight.clone()
    recorder = Recorder(tmp_path / "metrics.jsonl", writes=True, from_step=0)
    for step in range(4):
        recorder.add(step + 1, update.run(method, a_batch(step)), {})
        if step == 1:
            assert torch.equal(method.other.weight, before)
    recorder.close()
    assert not torch.equal(method.other.weight, before) and not int(update.skipped)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    names = [{key for key in line if key.startswith("loss/")} for line in lines]
    assert names == [{"loss/total", "loss/seg", "loss/early"}] * 2 + [{"loss/total", "loss/seg", "loss/other"}] * 2
    assert all(line["loss/total"] == pytest.approx(line["loss/seg"] * (3 if line["step"] < 3 else 1)) for line in lines)
    Display(False).training(4, 4, recorder.last)
    stage = StageRecord("a", tmp_path, {}, read_metrics(tmp_path), None, {}, {})
    assert stage.series("loss/other")[0] == [3, 4] and stage.series("loss/early")[0] == [1, 2]
    assert {"Loss: other", "Loss: early", "Loss: seg"} <= {panel.title for panel in training_panels(stage)}


# --- heads and counts ---


def test_the_last_head_is_the_main_one_and_all_others_are_auxiliary() -> None:
    terms = [Loss(torch.tensor(float(10**i)), torch.ones(())) for i in range(3)]
    asked: list[int] = []

    def term(i: int) -> Loss:
        asked.append(i)
        return terms[i]

    assert float(joint(term, 3, 0.5).sum) == 100 + 0.5 * (1 + 10)
    assert float(joint(term, 2, 0.5).sum) == 10 + 0.5 * 1
    asked.clear()
    assert float(joint(term, 3, 0.0).sum) == 100 and asked == [2]
    assert [list(head_numbers(heads)) for heads in (1, 2, 3)] == [[2], [1, 2], [1, 2, 3]]


def test_terms_of_different_counts_are_not_added() -> None:
    for three, four in ((torch.tensor(3.0), torch.tensor(4.0)), (3, 4), (3, torch.tensor(4.0))):
        with pytest.raises(AssertionError, match=r"counts differ: 3.* and .*4"):
            Loss(torch.ones(()), three).plus(Loss(torch.ones(()), four))


class Miscounted(Curriculum):
    """It says another count than its term has, or none, or leaves its gradients where they are."""

    def __init__(self, said: float | None, stepped: bool = True) -> None:
        super().__init__()
        self.said, self.stepped = said, stepped

    def step(self, batch: Batch, update: Update) -> None:
        if self.said is not None:
            update.count(seg=torch.tensor(self.said))
        for _ in update.micro_batches(batch):
            update.backward(seg=Loss(self.main.weight.sum(), torch.tensor(2.0)))
        if self.stepped:
            update.step("main")


def test_a_count_that_is_wrong_or_missing_is_told() -> None:
    """A wrong one would be a wrong gradient in silence."""
    for accumulate, method, told in (
        (1, Miscounted(3.0), "'seg' counted 2, but update.count announced 3"),
        (2, Miscounted(2.0), "'seg' counted 4, but update.count announced 2"),
        (2, Miscounted(None), "count of 'seg' depends on the data: announce it first"),
        (1, Miscounted(2.0, stepped=False), "seg: no optimizer step followed the backward pass"),
    ):
        with pytest.raises(AssertionError, match=told):
            Updater(method.optimizers, CPU, accumulate).run(method, a_batch(0))
    for accumulate, said in ((1, None), (1, 2.0), (2, 4.0)):
        method = Miscounted(said)
        values = Updater(method.optimizers, CPU, accumulate).run(method, a_batch(0))
        assert float(values["seg"]) == pytest.approx(float(values["total"]))


# --- what is not finite, signals, schedules ---


def test_weights_and_moments_that_are_not_finite_are_found() -> None:
    method = sean()
    assert not_finite(method) is None
    parameter = next(iter(method.student.parameters()))
    method.optimizers["student"].state[parameter]["exp_avg_sq"] = torch.full_like(parameter, torch.inf)
    assert not_finite(method) == "the optimizer of student"
    parameter.data[0] = torch.nan
    assert not_finite(method) == "student"


def test_a_second_sigterm_is_the_same_request_and_a_second_ctrl_c_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` sends SIGTERM twice at once, torchrun passes on a Ctrl-C that all have got already."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with trainer.stop_signals(tell=False) as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM]
        now[0] = 60.0
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM]


def test_a_schedule_is_at_least_as_long_as_the_training(tmp_path: Path) -> None:
    given = {"steps": 10, "schedule": "polynomial"}
    with pytest.raises(ValidationError, match=r"schedule_steps is 9, but the stage has 10 steps"):
        SeanSettings.model_validate(given | {"schedule_steps": 9})
    for fine in ({"schedule_steps": 10}, {"schedule_steps": 25}, {"schedule": "constant", "schedule_steps": 9}):
        SeanSettings.model_validate(given | fine)
    stage = {"method": "source_only", "steps": None, "epochs": 4, "schedule": "polynomial", "schedule_steps": 11}
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), a=stage))
    with pytest.raises(UsageError, match=r"stages\.a\.schedule_steps: schedule_steps is 11, but"):
        run(recipe, tmp_path / "run", dry_run=True)

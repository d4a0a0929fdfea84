"""Updates as one graph: which steps are replayed, what is said where none is, what a training does between them."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from again import AHEAD, Again
from by_hand import batch
from forgetful import Forgetful
from segadapt.batch import Batch
from segadapt.engine import trainer
from segadapt.engine.graphs import Graphed
from segadapt.engine.runtime import RuntimeSettings, start
from segadapt.engine.selection import Selector
from segadapt.engine.trainer import Trainer, Training
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.losses import labelled_pixels
from segadapt.methods.method import Update
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings
from tiny_runs import same

Factor = Callable[[Batch, Update], Any]


class Weighted(SourceOnly):
    """`source_only` with a factor of its loss."""

    def __init__(self, factor: Factor = lambda batch, update: 1.0, **settings: Any) -> None:
        torch.manual_seed(0)
        given = {
            "steps": 20,
            "batch": 2,
            "lr": 1e-2,
            "optimizer": "adam",
            "schedule": "polynomial",
            "schedule_steps": 20,
        }
        super().__init__(Forgetful(), SourceOnlySettings.model_validate(given | {"schedule_steps": 20} | settings))
        self.factor, self.given = factor, given | {"schedule_steps": 20} | settings
        AHEAD.place(self.network)

    def step(self, batch: Batch, update: Update) -> None:
        update.count(seg=labelled_pixels(batch.labels("source")))
        for part in update.micro_batches(batch):
            loss = segmentation_loss(self.network, self.network(part.images("source")), part.labels("source"), 0.0)
            update.backward(seg=self.factor(batch, update) * loss)
        update.step("network")


def ran(method: Weighted, steps: int, graphed: bool = True, batches: Callable[[int], Batch] = batch) -> tuple[Any, ...]:
    """What `steps` updates give, what was said, and whether each was replayed."""
    updater, said, replayed = Updater(method.optimizers, AHEAD), list[str](), list[bool]()
    runs = Graphed(method, updater, Again, said.append)
    losses = []
    for step in range(steps):
        replayed.append(graphed and runs.replays)
        losses.append((runs if graphed else updater).run(method, batches(step)))
    return (losses, method.network.state_dict(), updater.lasting()), said, replayed


def test_from_the_seventh_step_on_it_is_replayed() -> None:
    eager, graph = ran(Weighted(), 9, graphed=False), ran(Weighted(), 9)
    assert same(eager[0], graph[0]) and graph[2] == [False] * 6 + [True] * 3
    assert graph[1] == ["each step is one CUDA graph from here on"]


@pytest.mark.parametrize(
    ("factor", "settings", "why"),
    [
        (lambda batch, update: 1 - batch.step / 20, {}, "its step reads the step's number on the host"),
        (lambda batch, update: 2.0 if batch.step == 7 else 1.0, {}, "its step reads the step's number on the host"),
        (lambda batch, update: 2.0 if batch.seeds[0] % 2 else 1.0, {}, "its step reads the samples' seeds on the host"),
        (lambda batch, update: 1.0, {"optimizer_path": "single"}, "its optimizers are not fused (optimizer_path)"),
    ],
)
def test_what_cannot_be_captured_is_launched_as_before(factor: Factor, settings: dict[str, Any], why: str) -> None:
    eager, graph = (ran(Weighted(factor, **settings), 8, graphed=on) for on in (False, True))
    assert same(eager[0], graph[0]) and not any(graph[2])
    assert graph[1] == [f"no CUDA graph, steps stay eager: {why}"]


def test_where_a_graph_is_required_it_is_an_error_that_there_is_none() -> None:
    method = Weighted(lambda batch, update: 1 - batch.step / 20)
    runs = Graphed(method, Updater(method.optimizers, AHEAD), Again, lambda text: None, required=True)
    with pytest.raises(UsageError, match="reads the step's number") as error:
        for step in range(4):
            runs.run(method, batch(step))
    assert error.value.where == "runtime.cuda_graphs"
    with pytest.raises(UsageError, match="there is no GPU"), start(RuntimeSettings(device="cpu", cuda_graphs="on")):
        pass


def test_a_replay_that_computes_something_else_is_found() -> None:
    """A number of the method's own, which the graph has as it was: the first replayed steps are held to the steps."""
    count = iter(range(1, 100))

    class Stale(Again):
        def replay(self) -> Any:
            method.factor = lambda batch, update: 0.5
            try:
                return super().replay()
            finally:
                method.factor = lambda batch, update: next(count)

    method = Weighted(lambda batch, update: 1.0)
    said: list[str] = []
    runs = Graphed(method, Updater(method.optimizers, AHEAD), Stale, said.append)
    for step in range(8):
        runs.run(method, batch(step))
    assert len(said) == 1 and "the replayed step differs" in said[0] and not runs.replays


def test_a_step_that_replaces_what_outlives_it_is_not_captured() -> None:
    def factor(batch: Batch, update: Update) -> float:
        method.network.seen = method.network.seen + 1  # type: ignore[operator, assignment]
        return 1.0

    method = Weighted(factor)
    method.network.register_buffer("seen", torch.zeros(()))
    given, said, replayed = ran(method, 8)
    assert "replaces a tensor that outlives it" in said[0] and len(said) == 1 and not any(replayed)
    assert float(given[1]["seen"]) == 8


def test_batches_that_change_their_size_end_it() -> None:
    def batches(step: int) -> Batch:
        return batch(step, 4 if step == 8 else 2)

    eager, graph = (ran(Weighted(), 10, graphed=on, batches=batches) for on in (False, True))
    assert same(eager[0], graph[0]) and graph[2][7:] == [True, True, False]
    assert "the shapes of its batches change" in graph[1][-1]


def test_what_the_host_decides_anew_is_captured_anew() -> None:
    def factor(batch: Batch, update: Update) -> float:
        return 3.0 if update.choice(lambda step: step >= 8) else 1.0

    eager, graph = (ran(Weighted(factor), 17, graphed=on) for on in (False, True))
    assert same(eager[0], graph[0])
    assert graph[2] == [False] * 6 + [True] * 3 + [False] * 5 + [True] * 3


def test_an_update_that_is_not_finite_is_skipped_in_a_replay_too() -> None:
    def factor(batch: Batch, update: Update) -> Any:
        return update.number(lambda step: math.nan if step == 7 else 1.0)

    eager, graph = (ran(Weighted(factor), 9, graphed=on) for on in (False, True))
    *_, (skipped, first, finite) = graph[0]
    assert (int(skipped), int(first), bool(finite)) == (1, 7, True)
    assert same(eager[0][1:], graph[0][1:])


class Quiet:
    """Whom nothing is shown."""

    def training(self, step: int, steps: int, losses: dict[str, float]) -> None: ...

    def scored(self, step: int, scores: dict[str, float]) -> None: ...

    def say(self, text: str) -> None: ...


def trained(folder: Path, until: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A whole training whose steps are replayed: its losses and its weights; it is resumed where `folder` stands."""
    monkeypatch.setattr(
        trainer, "graphed", lambda method, updater, runtime, say: Graphed(method, updater, Again, say, required=True)
    )
    method = Weighted(checkpoint_every=3)
    settings = SourceOnlySettings.model_validate(method.given)

    def batches(first: int) -> Iterator[Batch]:
        return (batch(step) for step in range(first, until))

    def evaluate() -> dict[str, float]:
        with torch.inference_mode():
            logits = method.network.eval()(batch(0).images("source")).logits
        method.network.train()
        return {"sum": float(logits.sum())}

    selector = Selector(folder, lambda *about: None, -1.0, "infomax")
    folder.mkdir(exist_ok=True)
    about = Training(method, settings, until, folder, batches, evaluate, 4, selector, Quiet())
    Trainer(about, AHEAD).run()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time/step"} for line in lines], method.network.state_dict()


def test_between_replays_a_training_is_evaluated_saved_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit as without graphs, in one go or in two; what is saved says its rates as plain numbers."""
    whole = trained(tmp_path / "whole", 14, monkeypatch)
    trained(tmp_path / "parts", 8, monkeypatch)
    assert same(whole, trained(tmp_path / "parts", 14, monkeypatch))
    saved = torch.load(tmp_path / "whole" / "checkpoints" / "step_00000014.pt", weights_only=True)
    rates = [group["lr"] for group in saved["optimizers"]["network"]["param_groups"]]
    assert rates and all(isinstance(rate, float) and 0 < rate < 1e-2 for rate in rates)

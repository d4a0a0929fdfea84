"""Several players in one update: each has its own terms, its own clipping, and the first one the total."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from by_hand import CPU, batch
from segadapt.batch import Batch
from segadapt.engine.updater import Updater
from segadapt.losses import Loss
from segadapt.methods.method import Method, Update

pytestmark = pytest.mark.numeric

SLOPES = {"first": torch.tensor([3.0, 4.0]), "second": torch.tensor([0.03, 0.04])}


class Game(Method):
    """One linear term each with a known gradient; the second's has its optimizer's name, and so is its own."""

    domains = ("source",)

    def __init__(self, *stepped: str, broken: str = "") -> None:
        self.stepped, self.broken = stepped or tuple(SLOPES), broken
        self.networks = {name: nn.Linear(2, 1, bias=False) for name in SLOPES}
        self.modules = dict(self.networks)
        self.optimizers = {name: SGD(network.parameters(), lr=1.0) for name, network in self.networks.items()}

    def step(self, batch: Batch, update: Update) -> None:
        sums = {name: 2 * (network.weight[0] * SLOPES[name]).sum() for name, network in self.networks.items()}
        if self.broken:
            sums[self.broken] = sums[self.broken] * float("inf")
        for _ in update.micro_batches(batch):
            update.backward(mine=0.5 * Loss(sums["first"], 2))
            if "second" in self.stepped:
                update.backward(second=3.0 * Loss(sums["second"], 2))
            sums = {name: 2 * (network.weight[0] * SLOPES[name]).sum() for name, network in self.networks.items()}
        update.step(*self.stepped)

    @property
    def result(self) -> nn.Module:  # type: ignore[override]
        return self.networks["first"]


def weights(game: Game) -> dict[str, torch.Tensor]:
    return {name: network.weight.detach().clone() for name, network in game.networks.items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_player_is_clipped_by_its_own_norm_and_the_total_is_the_others(accumulate: int) -> None:
    game = Game()
    before = weights(game)
    values = Updater(game.optimizers, CPU, accumulate, clip_norm=1.0).run(game, batch(0, 2))
    mine = float((before["first"][0] * SLOPES["first"]).sum())
    theirs = float((before["second"][0] * SLOPES["second"]).sum())
    expected = {"total": 0.5 * mine, "mine": mine, "second": theirs}
    assert {name: float(value) for name, value in values.items()} == pytest.approx(expected, rel=1e-5)
    moved = {name: (before[name] - weight)[0] for name, weight in weights(game).items()}
    assert torch.allclose(moved["first"], SLOPES["first"] / 5, atol=1e-6)  # of norm 2.5, clipped to 1
    assert torch.allclose(moved["second"], 3 * SLOPES["second"], atol=1e-6)  # of norm 0.15: as it is


def test_a_player_that_is_not_named_stays_where_it_is() -> None:
    game = Game("first")
    before = weights(game)
    values = Updater(game.optimizers, CPU).run(game, batch(0))
    assert set(values) == {"total", "mine"} and torch.equal(weights(game)["second"], before["second"])


def test_one_player_that_is_not_finite_stops_all() -> None:
    game = Game(broken="second")
    before = weights(game)
    update = Updater(game.optimizers, CPU)
    update.run(game, batch(3))
    assert all(torch.equal(weight, before[name]) for name, weight in weights(game).items())
    assert int(update.skipped) == 1 and int(update.first_skipped) == 3

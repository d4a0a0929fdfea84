"""Several players in one update: each has its own terms, its own clipping, and the first one the total."""

from collections.abc import Callable
from itertools import islice

import pytest
import torch
from torch import nn
from torch.optim import SGD

from by_hand import CPU, batch
from segadapt.batch import Batch
from segadapt.engine.updater import GradientUpdater
from segadapt.losses import Loss
from segadapt.methods.method import Terms

pytestmark = pytest.mark.numeric

SLOPES = {"first": torch.tensor([3.0, 4.0]), "second": torch.tensor([0.03, 0.04])}


def players() -> tuple[dict[str, nn.Linear], GradientUpdater]:
    networks = {name: nn.Linear(2, 1, bias=False) for name in SLOPES}
    optimizers = {name: SGD(network.parameters(), lr=1.0) for name, network in networks.items()}
    return networks, GradientUpdater(dict(optimizers), CPU, clip_norm=1.0)


def losses(networks: dict[str, nn.Linear], broken: str = "") -> Callable[[Batch], Terms]:
    """One linear term each with a known gradient; the second player's is weighted too."""

    def of(given: Batch) -> Terms:
        two = torch.tensor(2.0)
        sums = {name: 2 * (network.weight[0] * SLOPES[name]).sum() for name, network in networks.items()}
        if broken:
            sums[broken] = sums[broken] * float("inf")
        yield {"mine": Loss(sums["first"], two, weight=0.5)}
        yield {"theirs": Loss(sums["second"], two, weight=3.0).of("second")}

    return of


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_player_is_clipped_by_its_own_norm_and_the_total_is_the_first_ones(accumulate: int) -> None:
    networks, update = players()
    update.accumulate = accumulate
    before = {name: network.weight.detach().clone() for name, network in networks.items()}
    values = update.minimize(list(networks), losses(networks), batch(0))
    mine = float((before["first"][0] * SLOPES["first"]).sum())
    theirs = float((before["second"][0] * SLOPES["second"]).sum())
    expected = {"total": 0.5 * mine, "mine": mine, "theirs": theirs}
    assert {name: float(value) for name, value in values.items()} == pytest.approx(expected, rel=1e-5)
    moved = {name: (before[name] - network.weight.detach())[0] for name, network in networks.items()}
    assert torch.allclose(moved["first"], SLOPES["first"] / 5, atol=1e-6)  # of norm 2.5, clipped to 1
    assert torch.allclose(moved["second"], 3 * SLOPES["second"], atol=1e-6)  # of norm 0.15: as it is


def test_a_player_that_is_not_named_stays_where_it_is() -> None:
    networks, update = players()
    before = networks["second"].weight.detach().clone()
    values = update.minimize(["first"], lambda given: islice(losses(networks)(given), 1), batch(0))
    assert set(values) == {"total", "mine"} and torch.equal(networks["second"].weight, before)


def test_one_player_that_is_not_finite_stops_all() -> None:
    networks, update = players()
    before = {name: network.weight.detach().clone() for name, network in networks.items()}
    update.minimize(list(networks), losses(networks, broken="second"), batch(3))
    assert all(torch.equal(network.weight, before[name]) for name, network in networks.items())
    assert int(update.skipped) == 1 and int(update.first_skipped) == 3

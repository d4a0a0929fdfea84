"""A step of self-training beside the source (CBST) against its formula, written by hand in float64."""

import copy
from typing import Any

import pytest
import torch

from by_hand import BY_SGD, CPU, EQUAL, Sgd, Toy, batch, caffe, check_weights, cross_entropy, stretched
from segadapt.engine.updater import Updater
from segadapt.methods.cbst import Cbst, CbstSettings

pytestmark = pytest.mark.numeric

SETTINGS: dict[str, Any] = {**BY_SGD, "labels": "pseudo", "auxiliary": 0.3}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("heads", "weight"), [(2, 1.0), (2, 0.25), (1, 1.0), (1, 0.0)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_three_steps_equal_the_hand_written_ones(heads: int, weight: float, accumulate: int) -> None:
    torch.manual_seed(0)
    settings = CbstSettings.model_validate(SETTINGS | {"pseudo_weight": weight, "accumulate": accumulate})
    method = Cbst(Toy(heads), settings)
    network = copy.deepcopy(method.network)
    learned = [p for p in network.parameters() if p.requires_grad]
    of_heads = {id(p) for p in network.head_parameters()}
    sgd = Sgd([(p.data, 1e-1 if id(p) in of_heads else 1e-2) for p in learned], 1e-2)
    update = Updater(method.optimizers, CPU, accumulate)
    for step in range(3):
        given = batch(step, target_labels=True)
        losses = {}
        for name, domain in (("seg", given.source), ("pseudo", given.target)):
            assert domain is not None and domain.labels is not None
            logits = [stretched(h, domain.labels) for h in network.segment(caffe(domain.images)).heads]
            losses[name] = cross_entropy(logits[-1], domain.labels, torch.ones(5))
            if heads == 2:
                losses[name] = losses[name] + 0.3 * cross_entropy(logits[0], domain.labels, torch.ones(5))
        total = losses["seg"] + weight * losses["pseudo"]
        sgd.step(torch.autograd.grad(total, learned))
        values = update.run(method, given)
        for name, loss in {**losses, "total": total}.items():
            assert float(values[name]) == pytest.approx(float(loss.detach()), rel=EQUAL)
    check_weights(method, {"network": dict(network.named_parameters())})


def test_it_has_no_published_form() -> None:
    with pytest.raises(ValueError, match="`official` is not there for cbst"):
        CbstSettings.model_validate(SETTINGS | {"official": True})

"""The official recipes compute what the published programs computed: their recorded losses and weights.

Run as a user runs them: a shipped recipe with overrides, on images and from weights drawn as for the recording. How
close they come, and why, is said in `tolerances.py`.
"""

import os
from pathlib import Path

import pytest
import torch

from recorded import write_micro
from replays import TRACES, Trained, recorded_training, replay
from segadapt.files import write_with
from tolerances import FIRST, MARGIN, SLACK, beyond, distances, rounding


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded images, drawn once."""
    folder = tmp_path_factory.mktemp("micro")
    write_micro(folder)
    return folder


@pytest.fixture(scope="session")
def first_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first steps in float64 are kept, for all processes that share the tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "first_steps"
    folder.mkdir(exist_ok=True)
    return folder


def keep_first_step(trained: Trained, file: Path) -> None:
    """Losses and gradients of the first step; there is one, however many come after it."""
    content = {"losses": trained.losses[:1], "gradients": trained.gradients}
    write_with(file, lambda temporary: torch.save(content, temporary))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", TRACES)
def test_six_steps_in_float64_are_the_recorded_ones(name: str, micro: Path, tmp_path: Path, first_steps: Path) -> None:
    """Every loss of every step, and every parameter after the last: as far from the recording on any CPU."""
    ours = replay(name, micro, tmp_path)
    keep_first_step(ours, first_steps / name)
    assert ours.losses and set(ours.weights) == set(recorded_training(name).weights)
    found = distances(recorded_training(name), ours)
    assert list(beyond(found, rounding(name, "recorded"), times=SLACK, least=1e-8)) == []


@pytest.mark.numeric
@pytest.mark.parametrize("name", TRACES)
def test_three_steps_on_this_cpu_are_the_recorded_ones(
    name: str, micro: Path, tmp_path: Path, first_steps: Path, float64: None
) -> None:
    """Losses beside the recording, and the gradients of the first step beside float64: no sign differs."""
    if not (first_steps / name).exists():  # the test above has not been run
        keep_first_step(replay(name, micro, tmp_path / "truth", steps=1), first_steps / name)
    truth = Trained(weights={}, **torch.load(first_steps / name))
    torch.set_default_dtype(torch.float32)
    ours = replay(name, micro, tmp_path / "ours", steps=3)
    allowed = rounding(name, "float32")
    assert list(beyond(distances(ours, recorded_training(name)), allowed, times=MARGIN, least=FIRST)) == []
    assert list(beyond(distances(ours, truth), allowed, times=MARGIN, least=FIRST)) == []


@pytest.mark.parametrize("name", TRACES)
def test_the_recordings_are_no_further_from_float64_than_rounding_goes(name: str) -> None:
    """What the first test allows is rounding, and no mistake that was measured and written down."""
    recorded = rounding(name, "recorded")
    assert list(beyond(recorded, rounding(name, "float32"), times=MARGIN, least=FIRST)) == []

"""Shared by all tests: the CPU, one thread (SEGADAPT_TEST_THREADS: another number), no user's cache, the slow ones.

The charts of a run's page are plotted, and rendered for the tests of `CHARTS` alone.

They run side by side, each with so many threads, and without a GPU where there is one: they show what is bit for bit
the same, and `auto` must mean one thing.
"""

import os
import sys
import tempfile

if not os.environ.get("SEGADAPT_TEST_GPU"):  # set it to run tests/test_on_gpu.py
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch, here and in the processes that tests start

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from slow import SLOW

if TYPE_CHECKING:
    from forking import Forks

torch.set_num_threads(int(os.environ.get("SEGADAPT_TEST_THREADS", "1")))

if "ATEN_CPU_CAPABILITY" in os.environ:  # torch.compile keeps code by what it computes, not by the CPU it was made for
    kept = Path(tempfile.gettempdir()) / f"torchinductor-{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow ones."""
    for item in items:
        if getattr(item, "originalname", item.name) in SLOW.get(item.path.name, ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


CHARTS = ("test_docs.py", "test_evaluation_report.py", "test_evaluation_report_stages.py", "test_pipeline_run.py")
"""Where the charts of reports are rendered; see `charts.py` for the others."""


@pytest.fixture(autouse=True, scope="module")
def _plotted_charts(request: pytest.FixtureRequest) -> Iterator[None]:
    """All but `CHARTS` have an empty <svg> where a chart would be; what draws it is called all the same."""
    page = sys.modules.get("segadapt.report.stages")  # whoever runs something has imported it
    with pytest.MonkeyPatch.context() as patch:
        if page is not None and request.path.name not in CHARTS:
            from charts import plotted

            patch.setattr(page, "as_svg", plotted)
        yield


@pytest.fixture(scope="session")
def forks() -> "Iterator[Forks]":
    """Commands in processes of their own: one server imports for all tests of this process."""
    from forking import Forks

    with Forks() as server:
        yield server


@pytest.fixture
def own_registries() -> Iterator[None]:
    """What plug-ins register in a test is forgotten at its end."""
    import plugged  # it imports all networks and methods

    with plugged.own_registries():
        yield


@pytest.fixture
def float64() -> Iterator[None]:
    """All that is made in a test is float64, losses and pixels too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)

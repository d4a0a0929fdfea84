"""Shared by all tests: one thread (they run side by side; SEGADAPT_TEST_THREADS is another number), no user's cache."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(int(os.environ.get("SEGADAPT_TEST_THREADS", "1")))

if "ATEN_CPU_CAPABILITY" in os.environ:  # torch.compile keeps code by what it computes, not by the CPU it was made for
    kept = Path(tempfile.gettempdir()) / f"torchinductor-{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def float64() -> Iterator[None]:
    """All that is made in a test is float64, losses and pixels too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)

"""Plug-ins in tests: the files in examples/, and registries that are afterwards what they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segadapt import plugin_loading
from segadapt.data.catalog import LAYOUTS
from segadapt.methods.registry import METHODS
from segadapt.models.networks import NETWORKS

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextmanager
def own_registries() -> Iterator[None]:
    """What is registered in here is forgotten at the end."""
    with pytest.MonkeyPatch.context() as patch:
        registries: tuple[dict[Any, Any], ...] = (METHODS, NETWORKS, LAYOUTS, plugin_loading._files)
        before = [dict(registry) for registry in registries]
        patch.setattr(plugin_loading, "_installed", None)
        yield
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)

"""About how long the stages of a plan take and how much disk they fill, before anything is done."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from segadapt.pipeline.plan import Planned
from segadapt.stages.context import Run
from segadapt.stages.estimate import Estimator
from segadapt.stages.stage import Cost


def costs(run: Run, planned: Sequence[Planned]) -> dict[str, Cost]:
    """Stage -> the cost of what the plan does about it, in bytes what it will hold beyond what its folder holds.

    The state of the random number generators is left as it is.
    """
    found = {one.stage.name: Cost() for one in planned}
    to_do = [one for one in planned if one.to_do]
    if to_do:
        with torch.random.fork_rng(devices=[]):
            estimator = Estimator(run)
            for one in to_do:
                cost = one.kind.cost(one.work(run), estimator)
                there = 0 if one.action == "begin" else folder_size(one.stage.folder)
                found[one.stage.name] = replace(cost, bytes=max(0, cost.bytes - there))
    return found


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free_disk(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free

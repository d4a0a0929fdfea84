"""The plan of a run, as a table or JSON: what is done with each stage and why, roughly how long it takes, what disk."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segadapt.errors import SegadaptError
from segadapt.pipeline.costs import costs, free_disk
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.time_left import duration
from segadapt.stages.context import Run

ShowPlan = Callable[[Run, list[Planned], bool, Sequence[SegadaptError]], None]
"""Prints a plan on stdout: the run, its plan, whether `--yes` was given, downloads that cannot be had."""


def plain_plan(
    run: Run, planned: list[Planned], yes: bool = False, missing: Sequence[SegadaptError] = ()
) -> dict[str, Any]:
    """The plan as JSON has it: seconds and bytes are what is still to be spent, `state` is how the folder stands."""
    found, place = costs(run, planned), run.runtime
    stages = [
        {
            "name": one.stage.name,
            "method": one.settings.method,
            "action": one.action,
            "state": one.state,
            "said": one.said(),
            "why": why(run, one).splitlines(),
            "seconds": found[one.stage.name].seconds,
            "bytes": found[one.stage.name].bytes,
            "cautions": list(one.kind.cautions(one.settings)) if one.to_do else [],
        }
        for one in planned
    ]
    return {
        "folder": str(run.folder),
        "stages": stages,
        "seconds": sum(cost.seconds for cost in found.values()),
        "bytes": sum(cost.bytes for cost in found.values()),
        "free_bytes": free_disk(run.folder),
        "device": str(place.device),
        "ranks": place.ranks,
        "precision": place.precision,
        "threads": place.threads,
        "needs_yes": not yes and any(one.action == "redo" for one in planned),
        "missing_downloads": [str(error) for error in missing],
    }


def as_json_plan(run: Run, planned: list[Planned], yes: bool = False, missing: Sequence[SegadaptError] = ()) -> None:
    """Print the plan as JSON on stdout."""
    print(json.dumps(plain_plan(run, planned, yes, missing), indent=1, allow_nan=False))


def show_plan(run: Run, planned: list[Planned], yes: bool = False, missing: Sequence[SegadaptError] = ()) -> None:
    """Print the table on stdout. Nothing is written into the run folder."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a file or a pipe takes lines of any length
    about = plain_plan(run, planned, yes, missing)
    table = Table("stage", "method", "what", "why", "time", "disk", box=box.SIMPLE_HEAD)
    for one in about["stages"]:
        time, disk = duration(one["seconds"]) if one["seconds"] else "", size(one["bytes"]) if one["bytes"] else ""
        table.add_row(one["name"], one["method"], one["said"], escape("\n".join(one["why"])), time, disk)
    console.print(table)
    for one in about["stages"]:
        for caution in one["cautions"]:
            console.print(f"warning: {one['name']}: {caution}", markup=False)
    if not any(one.to_do for one in planned):
        console.print("Nothing to do.")
    else:
        _print_total(console, about)
    for error in missing:
        console.print(str(error), markup=False, soft_wrap=True)


def _print_total(console: Console, about: dict[str, Any]) -> None:
    """What all of it costs, and what is in the way."""
    where = f"{about['ranks']} × {about['device']}" if about["ranks"] > 1 else about["device"]
    wanted, free = about["bytes"], about["free_bytes"]
    console.print(
        f"Total: about {duration(about['seconds'])} on {where} ({about['precision']}, threads: {about['threads']}) "
        f"and about {size(wanted)} of disk space; {size(free)} are free."
    )
    if wanted > free:
        console.print(f"Not enough disk space for {about['folder']}: about {size(wanted - free)} more are needed.")
    if about["needs_yes"]:
        console.print("Results would be deleted: pass --yes to allow it.")


def why(run: Run, one: Planned) -> str:
    """The reason for what is done with a stage, a line each."""
    if not one.to_do:
        return ""
    if one.state == "changed":
        caution = None if one.continuation is None else one.continuation.caution
        return "\n".join([*one.stage.changes(), *([caution] if caution else [])])
    return "--fresh" if one.action == "redo" else one.kind.progress(one.work(run))


def size(count: int) -> str:
    """950 kB, 3.4 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"

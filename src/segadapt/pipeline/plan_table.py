"""The plan of a run as a table: what is done with each stage and why, roughly how long it takes, and how much disk."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segadapt.pipeline.costs import costs, free_disk
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.time_left import duration
from segadapt.stages.context import Run


def show_plan(run: Run, planned: list[Planned], yes: bool = False) -> None:
    """Print the table on stdout. Nothing is written into the run folder."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a file or a pipe takes lines of any length
    found = costs(run, planned)
    table = Table("stage", "method", "what", "why", "time", "disk", box=box.SIMPLE_HEAD)
    for one in planned:
        cost = found[one.stage.name]
        time, disk = duration(cost.seconds) if cost.seconds else "", size(cost.bytes) if cost.bytes else ""
        table.add_row(one.stage.name, one.settings.method, one.said(), escape(why(run, one)), time, disk)
    console.print(table)
    for one in planned:
        if one.to_do:
            for caution in one.kind.cautions(one.settings):
                console.print(f"warning: {one.stage.name}: {caution}", markup=False)
    if not any(one.to_do for one in planned):
        console.print("Nothing to do.")
        return
    place, wanted, free = run.runtime, sum(cost.bytes for cost in found.values()), free_disk(run.folder)
    where = f"{place.ranks} × {place.device}" if place.ranks > 1 else f"{place.device}"
    console.print(
        f"Total: about {duration(sum(cost.seconds for cost in found.values()))} on {where} ({place.precision}, "
        f"threads: {place.threads}) and about {size(wanted)} of disk space; {size(free)} are free."
    )
    if wanted > free:
        console.print(f"Not enough disk space for {run.folder}: about {size(wanted - free)} more are needed.")
    if not yes and any(one.action == "redo" for one in planned):
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

"""The plan of a run as a table: what is done with each stage and why, about how long it takes, and how much disk."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segadapt.methods.settings import TrainingSettings
from segadapt.pipeline.context import Run
from segadapt.pipeline.estimate import Estimator, checkpoint_step, free_disk, made
from segadapt.pipeline.plan import Planned
from segadapt.pipeline.time_left import Cost, duration


def show_plan(run: Run, planned: list[Planned], yes: bool = False) -> None:
    """Print the table on stdout. Nothing is written into the run folder."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a file or a pipe takes lines of any length
    busy = any(one.action not in ("leave", "skip") for one in planned)
    estimator = Estimator(run) if busy else None
    costs = [Cost() if estimator is None else estimator.cost(one) for one in planned]
    table = Table("stage", "method", "what", "why", "time", "disk", box=box.SIMPLE_HEAD)
    for one, cost in zip(planned, costs, strict=True):
        time, disk = duration(cost.seconds) if cost.seconds else "", size(cost.bytes) if cost.bytes else ""
        table.add_row(one.stage.name, one.settings.method, one.said(), escape(why(one)), time, disk)
    console.print(table)
    for one in planned:
        if one.action not in ("leave", "skip") and isinstance(one.settings, TrainingSettings):
            for caution in one.settings.cautions():
                console.print(f"warning: {one.stage.name}: {caution}", markup=False)
    if not busy:
        console.print("Nothing to do.")
        return
    place, wanted, free = run.runtime, sum(cost.bytes for cost in costs), free_disk(run.folder)
    where = f"{place.ranks} × {place.device}" if place.ranks > 1 else f"{place.device}"
    console.print(
        f"In all about {duration(sum(cost.seconds for cost in costs))} on {where} ({place.precision}, "
        f"threads: {place.threads}), and about {size(wanted)} of disk; {size(free)} are free."
    )
    if wanted > free:
        console.print(f"The disk of {run.folder} is too small: about {size(wanted - free)} more are needed.")
    if not yes and any(one.action == "redo" for one in planned):
        console.print("Results would be deleted: pass --yes to allow it.")


def why(one: Planned) -> str:
    """The reason for what is done with a stage, a line each."""
    settings, stage = one.settings, one.stage
    if one.action in ("leave", "skip"):
        return ""
    if one.state == "changed":
        caution = None if one.continuation is None else one.continuation.caution
        return "\n".join([*stage.changes(), *([caution] if caution else [])])
    if one.action == "redo":
        return "--fresh"
    stand_in = getattr(settings, "stand_in", None)
    if stand_in is not None:
        return f"{stand_in} stands in"
    steps, images = stage.decided.get("steps"), sum(n for key, n in stage.decided.items() if key.startswith("images."))
    if one.action == "begin":
        return f"{images} images" if steps is None else f"{steps} steps"
    if steps is not None:
        return f"step {checkpoint_step(stage.folder)} of {steps}"
    there = made(one)
    return f"{there} of {images} images" if there else ""


def size(count: int) -> str:
    """950 kB, 3.4 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"

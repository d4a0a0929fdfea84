"""The verb `compare`."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segadapt.cli.output import AsJson, OutputFile, console_beside, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from segadapt.report.compare import Comparison, Row
    from segadapt.report.seeds import Spread

FIGURES = (".svg", ".pdf", ".png")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders; those of one recipe are grouped as its seeds.")
    ],
    metric: Annotated[
        str,
        typer.Option(help="Score for differences and gap: miou, dice, pixel_accuracy, mean_accuracy, a class, …"),
    ] = "miou",
    stages: Annotated[str | None, typer.Option(help="Only these stages, comma-separated.")] = None,
    domain: Annotated[str, typer.Option(help="target, source, or one of several targets as target.NAME.")] = "target",
    split: Annotated[
        str | None,
        typer.Option(
            help="Scores on this split alone, for instance test: those of `evaluate` stages count for the stages "
            "whose models they score."
        ),
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Allow runs that were scored at different input sizes or views.")
    ] = False,
    as_json: AsJson = False,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="FILE.csv, .json, .md, .svg, .pdf or .png; - prints CSV."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="The figure shows the IoU of each class.")] = False,
) -> None:
    """Put runs and their stages side by side; runs that differ in the seed only become mean ± standard deviation.

    segadapt compare runs/seed0 runs/seed1 runs/seed2
    segadapt compare runs/dacs runs/mic --stages dacs,mic --split test --out figure.svg
    """
    from segadapt.errors import UsageError
    from segadapt.report.compare import compare as put_together
    from segadapt.report.records import read_run

    output = None if out is None else OutputFile.parse(out, "--out", (".csv", ".json", ".md", *FIGURES))
    if per_class and (output is None or output.suffix not in FIGURES):
        raise UsageError(
            "applies to a figure only", where="--per-class", remedy=f"Give --out FILE{FIGURES[0]} with it."
        )
    if as_json and output is not None and output.path is None:
        raise UsageError("and --out - both go to standard output", where="--json", remedy="Leave one out.")
    chosen = None if stages is None else [name.strip() for name in stages.split(",") if name.strip()]
    compared = put_together(
        [read_run(run) for run in runs], metric=metric, stages=chosen, domain=domain, split=split, mixed=mixed
    )
    if as_json:
        typer.echo(json.dumps(compared.plain(), indent=1, allow_nan=False))
    else:
        _print(console_beside(output), compared)
    for note in compared.notes:
        say(f"note: {note}", err=True)
    if output is not None:
        _write(output, compared, per_class)
        output.written(err=as_json)


def _write(output: OutputFile, compared: "Comparison", per_class: bool) -> None:
    """CSV, JSON, Markdown or a figure, as the suffix says."""
    from segadapt.evaluation.pictures import as_figure
    from segadapt.files import write_json, write_text
    from segadapt.report.compare_figures import classes_figure, scores_figure
    from segadapt.report.compare_markdown import as_markdown

    with output.file() as path:
        if output.suffix == ".csv":
            write_text(path, as_csv(compared))
        elif output.suffix == ".json":
            write_json(path, compared.plain())
        elif output.suffix == ".md":
            write_text(path, as_markdown(compared))
        else:
            as_figure(path, (classes_figure if per_class else scores_figure)(compared))


def _print(console: "Console", compared: "Comparison") -> None:
    """A table of the scores, one of what was gained, one of the classes."""
    from segadapt.report.compare import MEANS, metric_title
    from segadapt.report.seeds import LEVEL

    on, shown = compared.scored_on, dict.fromkeys([*MEANS, compared.metric])
    digits = 1 if any(len(row.seeds) > 1 for row in compared.rows) else 2
    console.print(
        f"{compared.domain} {on['split']}, {on['images']} images, {compared.label_space}; percent", style="bold"
    )
    _print_rows(
        console,
        compared,
        [metric_title(key) for key in shown],
        [[_spread(row.scores.get(key), digits) for key in shown] for row in compared.rows],
    )
    gains = [(_interval(row.difference, "+.2f"), _interval(row.gap, "z.0f", " %")) for row in compared.rows]
    if any(row.difference is not None for row in compared.rows):
        title = f"{compared.metric_title} above source-only"
        _print_rows(console, compared, [title, "share of the gap closed"], gains)
    if any(row.used_target_labels for row in compared.rows):
        console.print("* the model used target labels")
    if any(len(row.seeds) > 1 for row in compared.rows):
        console.print(
            f"± is the standard deviation over seeds, [ ] the {100 * LEVEL:.0f} % interval of a mean over seeds "
            "(Student's t)"
        )
    else:
        console.print("one seed: nothing here says what another one would give")
    _print_classes(console, compared)


def _print_rows(
    console: "Console", compared: "Comparison", titles: "Sequence[str]", cells: "Sequence[Sequence[str]]"
) -> None:
    """A line per stage, those of a recipe together."""
    from rich import box
    from rich.table import Table

    several = len(compared.groups) > 1
    table = Table(highlight=False, box=box.SIMPLE, pad_edge=False)
    for title in (*["recipe"] * several, "stage"):
        table.add_column(title, no_wrap=True)
    for title in ("n", *titles):
        table.add_column(title, justify="right")
    for number, (row, own) in enumerate(zip(compared.rows, cells, strict=True)):
        if number and row.group != compared.rows[number - 1].group:
            table.add_section()
        mark = "*" if row.used_target_labels else ""
        table.add_row(*[row.group] * several, f"{row.stage}{mark}", str(len(row.seeds)), *own)
    console.print(table)


def _print_classes(console: "Console", compared: "Comparison") -> None:
    from rich import box
    from rich.table import Table

    several, across = len(compared.groups) > 1, max(1, (console.width - 16) // 16)
    for first in range(0, len(compared.rows), across):
        rows = compared.rows[first : first + across]
        table = Table(highlight=False, box=box.SIMPLE, pad_edge=False)
        table.add_column("IoU", no_wrap=True)
        for row in rows:
            table.add_column(f"{row.group}\n{row.stage}" if several else row.stage, justify="right", overflow="fold")
        for name in compared.classes:
            table.add_row(name, *(_spread(row.scores.get(f"iou {name}"), 1) for row in rows))
        console.print(table)


def _spread(spread: "Spread | None", digits: int) -> str:
    return "–" if spread is None else spread.text(digits)


def _interval(spread: "Spread | None", form: str, unit: str = "") -> str:
    """The mean and its interval; of one seed the value alone."""
    if spread is None:
        return "–"
    mean, *ends = (f"{value:{form}}" for value in (spread.mean, *(spread.interval or ())))
    return f"{mean}{unit} [{', '.join(ends)}]" if ends else f"{mean}{unit}"


def as_csv(compared: "Comparison") -> str:
    """A line per row; the standard deviation and the interval beside each mean, empty of one seed."""
    lines = [_line(row, compared) for row in compared.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(row: "Row", compared: "Comparison") -> dict[str, Any]:
    line: dict[str, Any] = {
        "recipe": row.group,
        "stage": row.stage,
        "method": row.method,
        "used_target_labels": row.used_target_labels,
        "seeds": " ".join(str(seed) for seed in row.seeds),
        "n": len(row.seeds),
    }
    for key, spread in row.scores.items():
        line[key], line[f"{key} sd"] = (None, None) if spread is None else (spread.mean, spread.sd)
    for key, spread in ((f"{compared.metric} - source-only", row.difference), ("gap closed", row.gap)):
        line[key] = None if spread is None else spread.mean
        interval = (None, None) if spread is None or spread.interval is None else spread.interval
        line[f"{key} low"], line[f"{key} high"] = interval
    return line

"""The verb `report`."""

from pathlib import Path
from typing import Annotated

import typer

from segadapt.cli.output import OutputFile
from segadapt.cli.views import Device


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="The page; default RUN/report.html; - prints it.")
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Target images to show.")] = 4,
    sample: Annotated[
        int | None,
        typer.Option(
            min=0, help="Images of a target without labels to predict, for what can be said without labels: 16."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Show the scores of another run too, such as another seed; may be repeated."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write a self-contained HTML page about a run: scores, curves, images; stages or data may be missing."""
    from segadapt.devices import choose_device
    from segadapt.report.page import SAMPLE, write_report

    output = OutputFile.parse(out or run / "report.html", "--out", (".html", ".htm"))
    with output.file() as path:
        write_report(
            run,
            path,
            images=images,
            sample=SAMPLE if sample is None else sample,
            device=str(choose_device(device)),
            beside=beside or (),
        )
    if output.path is not None:
        typer.echo(output.path)

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
    device: Device = "auto",
) -> None:
    """Write a self-contained HTML page about a run: scores, curves, images; stages or data may be missing."""
    from segadapt.devices import choose_device
    from segadapt.report.page import write_report

    output = OutputFile.parse(out or run / "report.html", "--out", (".html", ".htm"))
    with output.file() as path:
        write_report(run, path, images=images, device=str(choose_device(device)))
    if output.path is not None:
        typer.echo(output.path)

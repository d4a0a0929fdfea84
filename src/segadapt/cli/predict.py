"""The verb `predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from segadapt.cli.output import need_folder_name
from segadapt.cli.views import (
    MODEL,
    Device,
    ExifOption,
    Formats,
    LabelSpaceOption,
    Mirror,
    Official,
    PrecisionName,
    Scales,
    Size,
    Views,
    Window,
    load_segmenter,
    parse_exif,
    progress_bar,
)


def predict(
    model: Annotated[Path, typer.Argument(help=f"A {MODEL}.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images and folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the predictions.")],
    formats: Formats = "colour",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also do what already exists.")] = False,
    label_space: LabelSpaceOption = None,
    scales: Scales = None,
    mirror: Mirror = None,
    window: Window = None,
    size: Size = None,
    official: Official = False,
    exif: ExifOption = "turn",
    device: Device = "auto",
    precision: PrecisionName = "fp32",
) -> None:
    """Write the predicted classes of images as PNG. Folders keep their structure; a second run adds what is missing.

    segadapt predict runs/gta5 street.jpg frames/ -o out/ --format overlay,label_id
    """
    from segadapt.inference.formats import output_paths, parse_formats, picture
    from segadapt.inference.streams import Flow, Job, find_images, readers, run_stream

    need_folder_name(out)
    views = Views.parse(scales, mirror, window, size, official, device, precision)
    forms, turning = parse_formats(formats), parse_exif(exif)
    jobs = [Job(image, output_paths(out, place, forms)) for image, place in find_images(inputs, out)]
    saved = load_segmenter(model, label_space)
    predictor, space = views.predictor(saved), saved.header.space

    def pictures(image: Any) -> list[Any]:
        labels = predictor.labels(image)
        return [picture(labels, space, form, image) for form in forms]

    with progress_bar("predict") as progress:
        flow = Flow(threads=readers(predictor.device), overwrite=overwrite, progress=progress)
        done = run_stream(jobs, pictures, flow, turning)
    there = f", {done.skipped} were already done" if done.skipped else ""
    typer.echo(f"{done.written} images predicted{there}: {out}")

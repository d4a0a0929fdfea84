"""The verb `predict`."""

from pathlib import Path
from typing import Annotated

import typer

from segadapt.cli.output import need_folder_name, say
from segadapt.cli.predict_video import (
    PLAIN,
    Beside,
    Encoder,
    Every,
    Fps,
    Inputs,
    Out,
    PictureFormats,
    Seconds,
    Smooth,
    VideoOptions,
    ViewName,
    predict_frames,
    predict_video,
)
from segadapt.cli.views import (
    MODEL,
    Batch,
    Device,
    ExifOption,
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
    inputs: Inputs,
    out: Out,
    formats: PictureFormats = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also do what already exists.")] = False,
    view: ViewName = None,
    beside: Beside = None,
    every: Every = 1,
    smooth: Smooth = 0.0,
    fps: Fps = None,
    seconds: Seconds = None,
    encoder: Encoder = None,
    label_space: LabelSpaceOption = None,
    scales: Scales = None,
    mirror: Mirror = None,
    window: Window = None,
    size: Size = None,
    batch: Batch = None,
    official: Official = False,
    exif: ExifOption = "turn",
    device: Device = "auto",
    precision: PrecisionName = "fp32",
) -> None:
    """Write the predicted classes of images as PNG, or of a video as a video. Folders keep their structure; a second
    run adds what is missing.

    segadapt predict runs/gta5 street.jpg frames/ -o out/ --format overlay,label_id

    segadapt predict runs/gta5 drive.mp4 -o predicted.mp4 --view side-by-side
    """
    need_folder_name(out)
    views = Views.parse(scales, mirror, window, size, official, device, precision, batch)
    options = VideoOptions.parse(
        view, beside, every, smooth, fps, encoder, seconds, overwrite, parse_exif(exif), label_space
    )
    if options.writes_video(out):
        predict_video(model, inputs, out, formats, options, views)
        return
    images = predict_frames(model, inputs, out, formats, options, views)
    if images:
        _predict_images(model, images, out, formats or PLAIN, options, views)


def _predict_images(
    model: Path, inputs: list[str], out: Path, formats: str, options: VideoOptions, views: Views
) -> None:
    """Images that have nothing to do with one another."""
    from segadapt.inference.formats import output_paths, parse_formats
    from segadapt.inference.label_pictures import label_pictures
    from segadapt.inference.streams import Flow, Job, readers
    from segadapt.video.inputs import images_of

    forms = parse_formats(formats)
    jobs = [Job(image, output_paths(out, place, forms)) for image, place in images_of(inputs, out)]
    saved = load_segmenter(model, options.label_space)
    predictor = views.predictor(saved)
    with progress_bar("predict") as progress:
        threads = readers(predictor.device)
        flow = Flow(predictor.batch, threads=threads, overwrite=options.overwrite, progress=progress)
        done = label_pictures(jobs, predictor, saved.header.space, forms, flow, options.exif)
    there = f", {done.skipped} were already done" if done.skipped else ""
    say(f"{done.written} images predicted{there}: {out}")

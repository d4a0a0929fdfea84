"""The verb `stylize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segadapt.cli.data import parse_size
from segadapt.cli.output import OutputFile, need_folder_name, say
from segadapt.cli.views import Device, ExifOption, PrecisionName, checked, parse_exif, placing

if TYPE_CHECKING:
    from segadapt.data.orientation import Exif


def stylize(
    generator: Annotated[
        Path, typer.Argument(help="A run or stage folder, a generator's file, or a published transformer_net.")
    ],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images and folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the stylized copies.")],
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="The generator's input size; default: its own, else 1024x512.")
    ] = None,
    output_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the copies; default: each image's own.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size of the generator.")] = 2,
    png_level: Annotated[int, typer.Option(help="Compression, 0 (fastest) to 9.")] = 1,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write an image that shows a few originals beside their copies; - prints PNG."
        ),
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Folder of target images to show on the sheet.")] = None,
    official: Annotated[
        bool, typer.Option("--official", help="Truncate pixels to whole numbers, as the published program does.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also do what already exists.")] = False,
    exif: ExifOption = "turn",
    device: Device = "auto",
    precision: PrecisionName = "fp32",
) -> None:
    """Write images in the target's style, as PNG with the same names. Folders keep their structure; a second run does
    what is missing.

    segadapt stylize runs/se_gan/style GTA5/images -o stylized/ --sheet sheet.png --target Cityscapes/leftImg8bit/train
    """
    from segadapt.inference.model import find_generator
    from segadapt.inference.streams import find_images
    from segadapt.stages.stylize import StylizeSettings, stylize_images, write_result

    settings = checked(
        StylizeSettings, generator=str(generator), size=None if size is None else parse_size(size, "--size"),
        output_size=None if output_size is None else parse_size(output_size, "--output-size"),
        batch=batch, png_level=png_level, official=official,
    )  # fmt: skip
    page = _page(sheet, target)
    need_folder_name(out)
    turning, images, file = parse_exif(exif), find_images(inputs, out), find_generator(generator)
    targets = [] if target is None else [image for image, _ in find_images([target])]
    with placing(device, precision, "stylize") as (runtime, display):
        done = stylize_images(runtime, file, images, out, settings, display, overwrite, turning)
        runtime.barrier()
        if runtime.is_main:
            write_result(out, file, len(images), settings)
            there = f", {done.skipped} were already done" if done.skipped else ""
            text = f"{done.written} images stylized{there}: {out}"
            if page is None:
                say(text)
            else:
                _write_sheet(page, images, out, targets, turning)
                page.say(text)


def _page(sheet: str | None, target: Path | None) -> OutputFile | None:
    """What `--sheet` names. Raises UsageError for what is no picture's name, and for `--target` without a sheet."""
    from segadapt.errors import UsageError
    from segadapt.inference.formats import PICTURES

    if target is not None and sheet is None:
        raise UsageError("applies to --sheet only", where="--target", remedy="Give --sheet FILE with it.")
    return None if sheet is None else OutputFile.parse(sheet, "--sheet", PICTURES)


def _write_sheet(
    page: OutputFile, images: list[tuple[Path, Path]], out: Path, targets: list[Path], turning: "Exif"
) -> None:
    """A few originals with their copies, and targets."""
    from segadapt.inference.formats import save_picture
    from segadapt.stages.stylize import stylized_sheet

    with page.file() as path:
        save_picture(path, stylized_sheet(images, out, targets, (turning, turning)))

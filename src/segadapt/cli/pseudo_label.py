"""The verb `pseudo-label`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from segadapt.cli.data import parse_size
from segadapt.cli.output import need_folder_name, say
from segadapt.cli.views import (
    MODEL,
    PUBLISHED_SCALES,
    Batch,
    Device,
    ExifOption,
    LabelSpaceOption,
    PrecisionName,
    Size,
    checked,
    load_segmenter,
    parse_exif,
    parse_scales,
    placing,
)
from segadapt.verbosity import quiet

Select = Annotated[
    str | None, typer.Option(help="class_confidence: the most confident pixels of each class; or all, as --official.")
]

Refine = Annotated[
    int | None, typer.Option(help="Iterations that refine the labels along the image's edges; PAMR has 10.")
]


def pseudo_label(
    model: Annotated[Path, typer.Argument(help=f"A {MODEL}.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images and folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for labels, confidences and a contact sheet.")],
    scales: Annotated[str, typer.Option(help="Input scales to average over.")] = PUBLISHED_SCALES,
    mirror: Annotated[bool, typer.Option(help="Average over the image and its mirror image.")] = True,
    size: Size = None,
    batch: Batch = None,
    refine: Refine = None,
    select: Select = None,
    keep: Annotated[float, typer.Option(help="Share of each class's pixels to keep: the most confident ones.")] = 0.5,
    certain: Annotated[float, typer.Option(help="Confidence from which a pixel is kept in any case.")] = 0.9,
    mask: Annotated[
        Path | None, typer.Option(help="Mask image whose black pixels get no label, stretched to fit each image.")
    ] = None,
    border: Annotated[int, typer.Option(help="Width in pixels of the border of a label map that gets no label.")] = 0,
    flat: Annotated[
        bool,
        typer.Option(
            "--flat", help="Write all labels into one folder as NAME_PseudoLabel.png, for the published self-training."
        ),
    ] = False,
    official: Annotated[
        bool, typer.Option("--official", help="Like the published program: its views, and a label for every pixel.")
    ] = False,
    label_space: LabelSpaceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also do what already exists.")] = False,
    exif: ExifOption = "turn",
    device: Device = "auto",
    precision: PrecisionName = "fp32",
) -> None:
    """Write a model's predictions as labels to train with: OUT/labels (train ids, 255 where it is not confident
    enough), OUT/confidence, OUT/argmax. A second run skips images that have been through the network already.

    segadapt pseudo-label runs/gta5 Cityscapes/leftImg8bit/train -o pseudo/ --keep 0.3 --border 8
    """
    from rich.console import Console

    from segadapt.inference.model import find_model
    from segadapt.inference.streams import find_images
    from segadapt.stages.pseudo_labels import PseudoLabelsSettings, make_pseudo_labels, shares_table, write_summary

    need_folder_name(out)
    chosen: dict[str, Any] = {} if select is None else {"select": select}
    settings = checked(
        PseudoLabelsSettings, model=str(model), scales=list(parse_scales(scales)), mirror=mirror, refine=refine,
        size=None if size is None else parse_size(size, "--size"), keep=keep, certain=certain,
        mask=mask, border=border, flat=flat, official=official, **chosen,
    )  # fmt: skip
    turning = parse_exif(exif)
    images, saved = find_images(inputs, out), load_segmenter(model, label_space)
    space = saved.header.space
    with placing(device, precision, "pseudo-label", batch) as (runtime, display):
        found = make_pseudo_labels(runtime, saved, space, images, out, settings, display, overwrite, turning)
        if runtime.is_main:
            write_summary(out, find_model(model), saved, images, space, settings, found, turning)
            if not quiet():
                Console(highlight=False).print(shares_table(found))
            say(f"{len(images)} images labelled: {out}")

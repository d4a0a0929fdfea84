"""The verb `export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segadapt.cli.export_onnx import (
    CalibrateOption,
    CheckOption,
    EvaluateOption,
    JsonOption,
    LayoutOption,
    LeastOption,
    OnnxOptions,
    OutputsOption,
    PrecisionOption,
    RootOption,
    SizeOption,
    SplitOption,
)
from segadapt.cli.output import OutputFile
from segadapt.cli.views import LabelSpaceOption

if TYPE_CHECKING:
    from segadapt.models.segmenter import Segmenter
    from segadapt.models.style_transfer import StyleTransfer


def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A run folder, stage folder, model.safetensors or (--discriminator) step_N.pt."
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="FILE.onnx, or FILE.pth as published.")],
    start_file: Annotated[
        bool,
        typer.Option(
            "--start-file",
            help="ResNet-101: write it as the file of initial weights that the published programs start from.",
        ),
    ] = False,
    discriminator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Export the discriminator of this name from a training checkpoint."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="KIND", help="Export only its encoder, in this format: dinov2, dinov2_hub, …")
    ] = None,
    label_space: LabelSpaceOption = None,
    precision: PrecisionOption = None,
    calibrate: CalibrateOption = None,
    check: CheckOption = None,
    outputs: OutputsOption = None,
    size: SizeOption = None,
    least_agreement: LeastOption = None,
    evaluate: EvaluateOption = False,
    layout: LayoutOption = None,
    root: RootOption = None,
    split: SplitOption = None,
    json: JsonOption = None,
) -> None:
    """Write a network in a format for other programs, chosen by the suffix.

    .onnx: a complete program from pixels to labels for ONNX Runtime and others, checked against PyTorch before it is
    written. .pth: as the published programs save theirs; networks that they would read but run differently are refused:
    trained without quirk aspp, or from ImageNet weights.

    segadapt export runs/gta5 -o model.onnx --check street.jpg
    segadapt export runs/gta5 -o model_int8.onnx --precision int8 --calibrate frames/ --evaluate
    segadapt export runs/sean_gta5_cityscapes_official/sean -o seanet.pth
    """
    published = {"--start-file": start_file, "--discriminator": discriminator, "--encoder": encoder}
    onnx = OnnxOptions(precision, calibrate, check, outputs, size, least_agreement, evaluate, layout, root, split, json)
    output = OutputFile.parse(out, "--out", (".pth", ".onnx"))
    if output.suffix == ".onnx":
        need_none(published, ".pth", output)
        onnx.export(model, label_space, output)
    else:
        need_none(onnx.given(), ".onnx", output)
        _export_published(model, output, start_file, discriminator, encoder, label_space)
        output.written()


def need_none(options: Mapping[str, object], suffix: str, output: OutputFile) -> None:
    """Raise UsageError when one of the options is given, which are for files of another suffix."""
    from segadapt.errors import UsageError

    if given := next((name for name, value in options.items() if value), None):
        raise UsageError(
            f"applies to {suffix} files, but the output is {output.suffix}",
            where=given,
            remedy="Leave one of them out.",
        )


def _export_published(
    model: Path,
    output: OutputFile,
    start_file: bool,
    discriminator: str | None,
    encoder: str | None,
    label_space: str | None,
) -> None:
    """A file as the published programs save theirs."""
    from segadapt.errors import UsageError
    from segadapt.weights.published import export_discriminator, export_encoder, export_published

    if encoder is not None and (start_file or discriminator is not None):
        other = "--start-file" if start_file else "--discriminator"
        raise UsageError(
            f"is a different kind of file from {other}", where="--encoder", remedy="Leave one of them out."
        )
    if discriminator is not None:
        if start_file:
            raise UsageError(
                "applies to ResNet-101 only", where="--start-file", remedy="Leave it out beside --discriminator."
            )
        with output.file() as path:
            export_discriminator(model, discriminator, path)
        return
    network = exported_network(model, label_space)
    with output.file() as path:
        if encoder is not None:
            export_encoder(need_segmenter(network), path, encoder)
        else:
            export_published(network, path, start_file=start_file)


def need_segmenter(network: "Segmenter | StyleTransfer") -> "Segmenter":
    """The network, if it has an encoder. Raises UsageError for a generator."""
    from segadapt.errors import UsageError
    from segadapt.models.segmenter import Segmenter

    if not isinstance(network, Segmenter):
        raise UsageError("a generator has no encoder", where="--encoder", remedy="Leave it out.")
    return network


def exported_network(model: Path, label_space: str | None) -> "Segmenter | StyleTransfer":
    """The network that a path means: a segmenter, or a generator where a stage or file of one is named."""
    from segadapt.cli.views import load_segmenter
    from segadapt.inference.model import find_model
    from segadapt.weights.checkpoint_files import identify
    from segadapt.weights.saved import load_generator

    file = find_model(model)
    if identify(file).kind in ("generator", "style_transfer"):
        return load_generator(file).network
    return load_segmenter(file, label_space).network

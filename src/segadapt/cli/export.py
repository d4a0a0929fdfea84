"""The verb `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="FILE.pth.")],
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
) -> None:
    """Write a network in a format for other programs, chosen by the suffix: .pth as the published programs save it.

    Networks that they would read but run differently are refused: trained without quirk aspp, or from ImageNet weights.

    segadapt export runs/sean_gta5_cityscapes_official/sean -o seanet.pth
    """
    from segadapt.errors import UsageError
    from segadapt.weights.published import export_discriminator, export_encoder, export_published

    if encoder is not None and (start_file or discriminator is not None):
        other = "--start-file" if start_file else "--discriminator"
        raise UsageError(
            f"is a different kind of file from {other}", where="--encoder", remedy="Leave one of them out."
        )
    output = OutputFile.parse(out, "--out", (".pth",))
    if discriminator is not None:
        if start_file:
            raise UsageError(
                "applies to ResNet-101 only", where="--start-file", remedy="Leave it out beside --discriminator."
            )
        with output.file() as path:
            export_discriminator(model, discriminator, path)
    else:
        network = exported_network(model, label_space)
        with output.file() as path:
            if encoder is not None:
                export_encoder(need_segmenter(network), path, encoder)
            else:
                export_published(network, path, start_file=start_file)
    output.written()


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

"""The verb `push`."""

from pathlib import Path
from typing import Annotated

import typer


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder, stage folder or model.safetensors.")],
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="A repository on the Hugging Face hub; also USER/NAME@BRANCH.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    license_id: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The hub's name of a licence, for the model card.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Commit message.")] = "A model of segadapt",
    with_files: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Another file to push, such as an .onnx; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the folder that would be pushed, and stop.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="With --dry-run: the folder; default NAME.")
    ] = None,
) -> None:
    """Put a model on the Hugging Face hub, with a model card that is written from its run.

    The token is taken from HF_TOKEN or `hf auth login`. `hf://USER/NAME` is then a model for every verb, and for
    `segadapt.load`.

    segadapt push runs/gta5 anna/sean-gta5 --private
    segadapt push runs/gta5/sean anna/sean-gta5 --dry-run -o look
    """
    from segadapt.cli.output import need_folder_name, say
    from segadapt.errors import UsageError
    from segadapt.export import hub
    from segadapt.files import need_file
    from segadapt.weights.hub import Repository

    place = Repository.parse(repository, "USER/NAME")
    others = [need_file(path, "the file to go with it") for path in with_files or []]
    if dry_run:
        folder = need_folder_name(out or Path(place.name.partition("/")[2]))
        for path in hub.write_folder(model, place, folder, license_id):
            typer.echo(f"{path}  {path.stat().st_size:,} bytes")
        for other in others:
            typer.echo(f"{other}  {other.stat().st_size:,} bytes, pushed with it")
        return
    if out is not None:
        raise UsageError("applies to --dry-run only", where="--out", remedy="Add it, or leave this out.")
    done = hub.push(model, place, private=private, message=message, license_id=license_id, others=others)
    say(f"pushed: {done.url}")
    say(f'segadapt.load("{done.repository}") loads exactly this version')

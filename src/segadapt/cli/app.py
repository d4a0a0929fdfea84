"""The verb `app`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from segadapt.cli.output import say
from segadapt.cli.views import Device, LabelSpaceOption


def app(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN|MODEL] ...",
            help="Run folders, stage folders, model files, hf://USER/NAME; default: the runs in runs/.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: everybody in the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 7860,
    opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    upload: Annotated[int, typer.Option("--max-upload", min=1, metavar="MB", help="Largest file to take.")] = 200,
    seconds: Annotated[float, typer.Option("--max-seconds", min=1, help="Longest part of a clip to predict.")] = 60,
    label_space: LabelSpaceOption = None,
    device: Device = "auto",
) -> None:
    """Show models and runs in the browser: try images and clips, look at scores, curves and pictures.

    segadapt app runs/gta5 --open
    """
    from segadapt.app.server import need_gradio

    need_gradio()
    from segadapt.app import server
    from segadapt.app.choices import find_choices
    from segadapt.app.temporary import temporary_folder
    from segadapt.data.label_spaces import load_label_space
    from segadapt.devices import choose_device

    limits = server.Limits(upload, seconds)
    place = choose_device(device)
    space = None if label_space is None else load_label_space(label_space, "--label-space")
    choices = find_choices(runs or [], lambda text: typer.echo(f"warning: {text}.", err=True), space)
    with server.listening(host, port) as bound, temporary_folder() as folder:
        from segadapt.app.interface import Interface, style
        from segadapt.app.networks import Networks

        page = Interface(choices, Networks(choices, place), limits, folder)
        url = server.address(bound, host)

        def ready() -> None:
            say(f"segadapt app: {url}  (Ctrl-C ends it)")
            if host not in server.LOOPBACK:
                typer.echo("warning: everybody who reaches this address can use it, without a password.", err=True)
            if opened:
                server.show(url)

        with suppress(KeyboardInterrupt):  # the usual end
            try:
                server.serve(server.web_app(page.blocks(), limits, host, style()), bound, ready)
            finally:
                page.stop_all()

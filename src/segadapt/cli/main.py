"""The command line: verbs are mounted here, and whatever goes wrong becomes one line and an exit code.

Exit codes: 0 done, 1 a failure while working, 2 a misuse, 128 + n stopped by signal n (after saving).
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from segadapt.cli import app as web_app
from segadapt.cli import (
    compare,
    data,
    doctor,
    evaluate,
    export,
    init,
    predict,
    pseudo_label,
    push,
    recipes,
    report,
    run,
    stylize,
)
from segadapt.cli.telling import accounted, begin_telling, tell_causes
from segadapt.errors import RankLost, SegadaptError, UsageError
from segadapt.plugin_loading import load_installed, load_plugin
from segadapt.version import __version__

ANYWHERE = ("--debug", "--quiet", "--verbose")
"""Flags that may stand anywhere in a command."""
STOPPED = 130
"""Exit code of Ctrl-C, as shells expect it."""
PATIENCE = 5.0
"""Seconds that a rank waits for the one that has more to say: torchrun ends all ranks when one has ended."""

app = typer.Typer(
    name="segadapt",
    help="Adapt a semantic segmenter from a labelled domain to an unlabelled one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# click's UsageError: since 0.29 typer carries a copy of click of its own, so the class is found through typer.
CLICK_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segadapt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Tell warnings and errors alone, no progress; may appear anywhere.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Tell more: progress as lines, logs of libraries, causes of errors, cost; may appear anywhere.",
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may appear anywhere in the command.")
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE.py",
            help="Load your own methods, networks and layouts from a file; may appear anywhere and be repeated.",
        ),
    ] = None,
) -> None:
    """Adapt a semantic segmenter from a labelled domain to an unlabelled one."""


app.command("init")(init.init)
app.command("run")(run.run)
app.command("recipes")(recipes.recipes)
app.command("quirks")(recipes.quirks)
app.command("schema")(recipes.schema)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("stylize")(stylize.stylize)
app.command("pseudo-label")(pseudo_label.pseudo_label)
app.command("export")(export.export)
app.command("push")(push.push)
app.command("report")(report.report)
app.command("app")(web_app.app)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; never returns."""
    arguments = sys.argv[1:]
    flags = {flag for flag in ANYWHERE if flag in arguments}
    debug = "--debug" in flags
    # Anywhere, not only before the verb: one adds it at the end of the command that failed.
    arguments = [argument for argument in arguments if argument not in ANYWHERE]
    try:
        begin_telling(flags)
        _need_values(arguments)
        plugins, arguments = plugin_files(arguments)
        if any(not argument.startswith("-") for argument in arguments) and "--help" not in arguments:
            load_installed(_warn)
            for file in plugins:
                load_plugin(file)
        with accounted(arguments):
            code = app(args=arguments, prog_name="segadapt", standalone_mode=False)
        if code == STOPPED:  # typer turns Ctrl-C into an exit of its own
            _tell("stopped.")
        sys.exit(code if isinstance(code, int) else 0)
    except SegadaptError as error:
        if debug:
            raise
        _tell(str(error), 2 * PATIENCE if isinstance(error, RankLost) else 0)
        tell_causes(error)
        sys.exit(error.exit_code)
    except CLICK_USAGE_ERROR as error:
        _tell_usage(error)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _tell("stopped.")
        sys.exit(STOPPED)
    except BrokenPipeError:
        # The reader (head, less) has gone: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _tell(_in_words(error))
        tell_causes(error)
        sys.exit(1)


def plugin_files(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The files of all `--plugin FILE` and `--plugin=FILE`, and the other arguments."""
    files, others, left = [], [], iter(arguments)
    for argument in left:
        if argument == "--plugin":
            file = next(left, "")
        elif argument.startswith("--plugin="):
            file = argument.removeprefix("--plugin=")
        else:
            others.append(argument)
            continue
        if not file or file.startswith("--"):
            raise UsageError("needs a file", where="--plugin", remedy="Give it as --plugin FILE.py.")
        files.append(file)
    return files, others


def _warn(text: str) -> None:
    """From rank 0 alone: all have the same packages."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}.", file=sys.stderr)


def _need_values(arguments: list[str]) -> None:
    """Raise UsageError for an empty argument (`-o ""`, `--root=`), which would mean the current folder as a path."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option = argument[:-1] if argument.startswith("--") and argument.endswith("=") else before
        if not argument or (option != before and "=" not in option):
            raise UsageError(
                "is empty",
                where=option if option.startswith("-") else "an argument of the command",
                remedy="Give it a value, or leave it out.",
            )


def _in_words(error: Exception) -> str:
    """One line about an unforeseen error."""
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check the path and its permissions; --debug shows the traceback."
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in first:
        return (
            f"out of memory ({first}). For training, set checkpointing: true, accumulate (if batch is more than 1), "
            "precision bf16 or a smaller size; for evaluation, use --window."
        )
    if first.startswith("DataLoader worker"):  # raised by torch from a signal, at any place
        return (
            "a loader process was killed, most likely because memory ran out. Run the same command again with fewer "
            "--workers."
        )
    return f"unexpected {type(error).__name__}: {first}. Run it again with --debug for the traceback, and tell us."


def _tell(text: str, patience: float = 0) -> None:
    """Errors go to stderr, from rank 0 and from any rank that fails alone."""
    time.sleep(patience or (PATIENCE if os.environ.get("RANK", "0") != "0" else 0))
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _tell_usage(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return
    command = error.ctx.command_path if error.ctx is not None else "segadapt"
    said = " ".join(error.format_message().split())
    _tell(f"{said if said.endswith('?') else said.rstrip('.') + '.'} See `{command} --help`.")

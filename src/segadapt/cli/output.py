"""Where a verb writes its one file (`--out`, `--sheet`): a path whose suffix says the form, or `-`, standard output."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segadapt.verbosity import quiet, verbose

if TYPE_CHECKING:
    from rich.console import Console

STANDARD_OUTPUT = Path("-")
SEPARATORS = os.sep + (os.altsep or "")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; everything else goes to stderr.")]
PATHS_OF_IT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


@dataclass(frozen=True)
class OutputFile:
    """The one file that a verb writes."""

    path: Path | None  # None: standard output
    suffix: str  # of the path, in lower case: the form of what is written

    @classmethod
    def parse(cls, value: Path | str, option: str, suffixes: Iterable[str]) -> "OutputFile":
        """From an option's value, as it was typed; on standard output the form is the first of `suffixes`.

        Raises UsageError for another suffix, for what is not a regular file (a device, a link, a folder),
        and where nothing can be written: before hours of work, not after.
        """
        from segadapt.errors import UsageError
        from segadapt.files import need_regular, need_writable

        forms, path = tuple(suffixes), Path(value)
        if path == STANDARD_OUTPUT:
            return cls(None, forms[0])
        suffix = path.suffix.lower()
        if str(path) in PATHS_OF_IT:
            raise UsageError("is standard output", where=path, remedy="Give - instead.")
        if str(value).endswith(tuple(SEPARATORS)):  # which a Path drops
            raise UsageError(
                f"{value} is a folder, but a file path is expected", where=option, remedy="Give a file's path."
            )
        need_regular(path)  # a device or a folder is told as one, whatever its suffix
        if suffix not in forms:
            known = " or ".join([", ".join(forms[:-1]), forms[-1]] if len(forms) > 1 else forms)
            raise UsageError(
                f"{path} ends in '{suffix}', but only {known} can be written" if suffix else f"{path} has no suffix",
                where=option,
                remedy=f"Let its name end in {known}, or give - for standard output.",
            )
        need_writable(path)
        return cls(path, suffix)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The path to write to; for standard output a temporary one, whose content is then printed as it is."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"output{self.suffix}"
            yield temporary
            sys.stdout.flush()
            stream = typer.get_binary_stream("stdout")
            stream.write(temporary.read_bytes())
            stream.flush()

    def say(self, text: str) -> None:
        """A line for a person: on stderr where the file itself is on stdout."""
        say(text, err=self.path is None)

    def written(self, err: bool = False) -> None:
        """Say where the file is; on stderr where something else is on stdout."""
        if self.path is not None:
            say(f"written: {self.path}", err=err)


def say(text: str, err: bool = False) -> None:
    """A line about what was done, which `--quiet` leaves out; a verb's result is printed by `typer.echo`."""
    if not quiet():
        typer.echo(text, err=err)


def console_beside(output: OutputFile | None) -> "Console":
    """The console for tables: stdout, unless the verb's file goes there."""
    from rich.console import Console

    return Console(highlight=False, stderr=output is not None and output.path is None)


def need_folder_name(out: Path, option: str = "--out") -> Path:
    """`out`, where a verb writes many files. Raises UsageError for `-`, and for the name of one picture."""
    from segadapt.data.catalog import IMAGE_SUFFIXES
    from segadapt.errors import UsageError
    from segadapt.files import is_folder

    if out == STANDARD_OUTPUT:
        raise UsageError(
            "'-' is standard output, but a folder is expected",
            where=option,
            remedy="Give a folder.",
        )
    if out.suffix.lower() in {*IMAGE_SUFFIXES, ".gif"} and not is_folder(out):
        raise UsageError(
            f"'{out}' is the name of a picture, but a folder is expected",
            where=option,
            remedy=f"Give a folder: {out.with_suffix('')}/.",
        )
    return out


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, gone when it is done; yields the function to call with (done, all).

    Not where stderr is no terminal; with --verbose a line each second there.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, spoken = Console(stderr=True), time.monotonic()
    shown = console.is_terminal and not quiet()
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(description, total=None)

        def update(done: int, total: int) -> None:
            nonlocal spoken
            progress.update(task, completed=done, total=total)
            if verbose() and not shown and time.monotonic() - spoken > 1:
                spoken = time.monotonic()
                typer.echo(f"{description}  {done}/{total}", err=True)

        yield update

"""Packages that only an extra brings along: looked for when they are needed."""

from importlib import import_module
from importlib.util import find_spec

from segadapt.errors import UsageError


def need_package(
    name: str, extra: str, where: str, *, title: str | None = None, least: int | None = None, otherwise: str = ""
) -> None:
    """Raise UsageError when a package (its import name) is not installed, or its first number is below `least`.

    `title` is what people call it. The remedy names the extra, and goes on with `otherwise` (", or leave it out").
    Nothing is imported unless `least` is given.
    """
    title, remedy = title or name, f"'segadapt[{extra}]'{otherwise}."
    try:
        spec = find_spec(name)
        # Without a file of its own it is a folder of that name in the working folder, as W&B leaves one.
        there = spec is not None and getattr(spec, "origin", "") is not None
        found = import_module(name) if there and least is not None else None
    except (ImportError, ValueError):  # broken, or None in the place of a module
        there, found = False, None
    if not there:
        raise UsageError(f"{title} is not installed", where=where, remedy=f"pip install {remedy}")
    if least is not None and found is not None and int(str(found.__version__).split(".")[0]) < least:
        raise UsageError(
            f"needs {title} {least} or newer, and this is {found.__version__}",
            where=where,
            remedy=f"pip install --upgrade {remedy}",
        )

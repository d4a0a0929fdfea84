"""Plug-ins: Python files and installed packages that register your own methods, networks and layouts.

Importing a plug-in is enough: it calls `register_method`, `register_network`, `register_layout`. A file is loaded
because the user names it (`--plugin FILE.py`, `segadapt.load_plugin`), an installed package because it declares an
entry point in the group `segadapt.plugins`. A recipe or a model alone never runs code.
"""

import hashlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from segadapt.errors import SegadaptError, UsageError, nearest
from segadapt.files import need_file, user_path

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "segadapt.plugins"
"""Of entry points."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was loaded."""

    name: str  # of the file without its suffix, or of the package's module
    file: Path | None  # None for a package that is no file
    sha256: str | None  # of the file as it was run
    package: str | None = None  # name and version; None for a file that was named
    module: str = ""  # that was imported

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"plug-in {self.name if self.file is None or self.package else self.file.name}"

    @property
    def version(self) -> str:
        """What changes with its code, as far as that can be told: of a package its version and the module's hash."""
        return " ".join(part for part in (self.package, self.sha256) if part is not None)

    def defines(self, kind: type) -> bool:
        """Whether a class, or one that it is derived from, is of this file, or of this package."""
        own = self.module.partition(".")[0]
        return any(base.__module__.partition(".")[0] == own for base in kind.__mro__)

    def as_dict(self) -> dict[str, str]:
        """What there is to know, as plain data."""
        found = {"name": self.name, "package": self.package, "file": self.file, "sha256": self.sha256}
        return {key: str(value) for key, value in found.items() if value is not None}


_files: dict[Path, Plugin] = {}
_installed: dict[str, Plugin] | None = None  # None: not looked for yet


def load_plugin(path: Path | str) -> ModuleType:
    """Run the plug-in in a Python file and return its module. Loading an unchanged file again does nothing.

    Raises UsageError if it is not a Python file, or fails.
    """
    file = need_file(user_path(path), "the plug-in")
    if file.suffix != ".py":
        raise UsageError("is not a Python file", where=file, remedy="Give a plug-in's path, as --plugin my_method.py.")
    place = file.resolve()
    name = f"segadapt_plugin_{file.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if place in _files and _files[place].sha256 == sha256:
        return sys.modules[name]
    before = sys.modules.get(name)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise UsageError(
            f"cannot be loaded as a plug-in ({_in_words(error)})",
            where=_place(error, file),
            remedy="Fix it; --debug shows the traceback.",
        ) from error
    _files[place] = Plugin(file.stem, place, sha256, module=name)
    return module


def load_installed(tell: Callable[[str], None] = warnings.warn) -> None:
    """Import the plug-ins of installed packages, once; `tell` gets a line about each that fails."""
    global _installed
    if _installed is not None:
        return
    from importlib.metadata import entry_points  # not for `--help`

    _installed = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        try:
            point.load()
        except (Exception, SystemExit) as error:
            tell(
                f"plug-in '{point.name}' of {package} cannot be loaded ({_in_words(error)}). "
                "Its methods, networks and layouts are unavailable; fix or uninstall it"
            )
        else:
            _installed[point.name] = _of_package(point, package)


def _of_package(point: "EntryPoint", package: str) -> Plugin:
    file = getattr(sys.modules[point.module], "__file__", None)
    if file is None or not Path(file).is_file():
        return Plugin(point.module, None, None, package, point.module)
    return Plugin(point.module, Path(file), hashlib.sha256(Path(file).read_bytes()).hexdigest(), package, point.module)


def loaded() -> list[Plugin]:
    """The plug-ins that are at work in this process."""
    return [*(_installed or {}).values(), *_files.values()]


def plugins_of(kinds: Iterable[type]) -> dict[str, str]:
    """The plug-ins that some classes come from: title -> version."""
    kinds = list(kinds)
    return {plugin.title: plugin.version for plugin in loaded() if any(plugin.defines(kind) for kind in kinds)}


class Loaded:
    """The plug-ins of this process, for another one: put before what needs them, pickled beside it, it loads them."""

    def __reduce__(self) -> tuple[object, ...]:
        return _load_again, (list(_files), bool(_installed))


def _load_again(files: list[Path], installed: bool) -> Loaded:
    if installed:
        load_installed()
    for file in files:
        load_plugin(file)
    return Loaded()


def known(word: str, words: list[str]) -> str:
    """The remedy for a method, network or layout that is not known; it may be a plug-in's."""
    return (
        f"{nearest(word, words)} If it is your own, load its plug-in: --plugin FILE.py, in Python segadapt.load_plugin."
    )


def _in_words(error: BaseException) -> str:
    """One line without the place."""
    if isinstance(error, SegadaptError):
        return str(error).rstrip(".")
    text = error.msg if isinstance(error, SyntaxError) else (str(error).splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException, file: Path) -> str:
    """The file with the line where it failed."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f"{file}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)

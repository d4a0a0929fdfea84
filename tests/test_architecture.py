"""Arrows point down: who may import whom, as docs/architecture.md has it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import typer

from segadapt.cli.main import app
from segadapt.methods.registry import METHODS
from segadapt.stages.shipped import KINDS
from segadapt.version import __version__
from slow import SLOW

PACKAGE = Path(__file__).parents[1] / "src" / "segadapt"
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
SHARED = {
    *("errors", "files", "plain_data", "settings", "references", "quirks", "devices", "version", "processes"),
    *("batch", "batch_norm", "gpu_kernels", "gpu_depthwise", "losses", "schedules", "ema", "noise", "pseudo_labels"),
    "refinement",
    *("hashing", "sample_randomness", "counting", "plugin_loading", "verbosity", "extras"),
}
ROOMS = {
    *("augment", "data", "sample", "models", "weights", "methods", "engine", "inference", "evaluation"),
    *("tracking", "stages", "config", "report", "pipeline", "export", "video", "setup", "app", "cli"),
}

ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in SHARED},
    "augment": set(),
    "data": set(),
    "sample": {"data.parallel"},
    "models": set(),
    "weights": {"models", "data.label_spaces"},
    "methods": {"augment", "models", "data.samplers", "data.transforms", "data.views"},
    "tracking": set(),
    "engine": {"models", "weights.checkpoint_files", "methods.method", "methods.settings", "tracking"},
    "inference": {"data", "models", "weights", "methods.registry"},
    "evaluation": {"data", "models", "weights", "inference"},
    "stages": {"augment", "data", "models", "weights", "methods", "engine", "inference", "evaluation", "tracking"},
    "config": {"data", "engine.runtime", "stages.shipped"},
    "report": {"data", "models", "weights", "inference", "evaluation", "stages.shipped", "stages.stage"},
    "pipeline": {
        *("data", "engine", "config", "report", "inference.model", "methods.method"),
        *("weights.provenance", "weights.starts"),
        *("stages.context", "stages.domains", "stages.estimate", "stages.shipped", "stages.stage"),
    },
    "export": {"data", "sample", "models", "weights", "inference", "evaluation"},
    "video": {"data", "inference", "weights"},
    "setup": {
        *("data", "models", "weights", "engine", "inference", "config", "pipeline"),
        *("stages.context", "stages.shipped"),
    },
    "app": {"data", "inference", "evaluation", "report", "video", "weights"},
    "cli": ROOMS,
    "plugin": {"augment", "data.catalog", "methods", "models"},
    # When first used:
    "__init__": {
        *(
            "data.catalog",
            "evaluation.own_images",
            "inference.model",
            "methods.registry",
            "models.networks",
            "pipeline",
        ),
        "setup.adapt",
        "video.predict",
    },
    "__main__": {"cli.main"},
}
"""Room or file -> what it may import beside itself and the shared files: rooms, or single files of rooms."""


@cache
def modules() -> tuple[str, ...]:
    """Dotted names below segadapt of all its files."""
    return tuple(sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")))


@cache
def known() -> frozenset[str]:
    """Dotted names of all that can be imported as a module."""
    return frozenset(f"segadapt.{name}" for name in ({name.removesuffix(".__init__") for name in modules()} | ROOMS))


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """All of a file's syntax tree."""
    text = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    return tuple(ast.walk(ast.parse(text)))


def imports(module: str) -> Iterator[str]:
    """Dotted names of all that a file imports anywhere in it, inside functions and for type checkers too."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{module}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known() else node.module


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    room = module.split(".")[0]
    allowed = {room} | SHARED | ALLOWED[room]
    for name in imports(module):
        top, _, inside = name.partition(".")
        assert top != "torchvision", f"{module} imports torchvision"
        if top != "segadapt" or not inside:
            continue
        assert any(inside == a or inside.startswith(f"{a}.") for a in allowed), f"{module} imports {name}"


def test_functions_fit_on_a_page() -> None:
    """One that does not is a sign that a part of it wants a name of its own."""
    for module in modules():
        for node in nodes(module):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 60, f"{module}: {node.name}"


def test_the_page_names_every_room_and_what_it_may_import() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("\n## Contracts")[0]  # extras have rows, too, further below
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", table, re.M))
    for room in ROOMS - {"cli"}:
        assert set(re.findall(r"`([\w.]+)`", rows[room])) == ALLOWED[room]
    shared = re.search(r"^\| shared files: (.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert shared is not None and set(re.findall(r"`(\w+)`", shared[1])) == SHARED
    assert {path.stem for path in PACKAGE.glob("*.py")} == SHARED | {"__init__", "__main__", "plugin"}
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()} == ROOMS


VERBS = [
    "",
    *("run", "recipes", "quirks", "schema", "evaluate", "predict", "report", "compare", "stylize"),
    *("pseudo-label", "export", "push", "app"),
    *("init", "doctor"),
    *("data", "data check", "data prepare", "data sample", "data spaces"),
]

PROGRAM = """
import sys
from segadapt.cli import main as cli

for arguments in {commands!r}:
    sys.argv = ["segadapt", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        assert ended.code == 0, (arguments, ended.code)
loaded = {{"torch", "numpy", "matplotlib", "PIL", "safetensors", "huggingface_hub", "gradio"}} & set(sys.modules)
assert not loaded, loaded
"""


def test_help_and_version_import_nothing_heavy() -> None:
    program = PROGRAM.format(commands=[["--version"], *([*verb.split(), "--help"] for verb in VERBS)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("segadapt ") and done.stdout.count("Usage: segadapt") == len(VERBS)


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "segadapt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"segadapt {__version__}\n"


def test_these_are_all_verbs() -> None:
    command: Any = typer.main.get_command(app)
    data = command.commands["data"]
    assert set(VERBS) == {"", *command.commands, *(f"data {verb}" for verb in data.commands)}


@pytest.mark.parametrize("file", SLOW)
def test_the_slow_tests_are_there(file: str) -> None:
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    for name in SLOW[file]:
        assert f"\ndef {name}(" in text, f"tests/slow.py names {name}, which {file} has not"


@cache
def constants(module: str) -> frozenset[str]:
    """All whole strings in a file."""
    return frozenset(n.value for n in nodes(module) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def test_no_file_but_its_own_knows_a_method() -> None:
    """Neither by its name nor by an import: a method of one's own can do whatever a shipped one can.

    But a method may be built on another, or be put on it, as MIC on DAFormer; and networks, which import no method,
    have parts of the same name (DAFormer's decoder).
    """
    homes = {name: method.__module__ for name, method in METHODS.items()}
    for module in modules():
        if f"segadapt.{module}" in homes.values() or module.startswith(("models.", "weights.")):
            continue
        used = set(imports(module))
        for name, home in homes.items():
            if f"segadapt.{module}" not in (home, "segadapt.methods.registry"):
                assert name not in constants(module), f"{module} names the method '{name}'"
                assert home not in used, f"{module} imports {home}"


def test_only_the_room_of_stages_and_verbs_know_a_kind_of_stage() -> None:
    """`segadapt.evaluate` is a function that is called as one."""
    for module in modules():
        room = module.split(".")[0]
        for name in KINDS if room not in ("stages", "cli", "__init__") else ():
            assert name not in constants(module), f"{module} names the kind '{name}'"


def test_files_make_no_circle() -> None:
    """Not even for types alone."""
    here = set(modules())
    below = {
        module: {used for name in imports(module) if (used := name.removeprefix("segadapt.")) in here - {module}}
        for module in here
    }
    assert len(list(TopologicalSorter(below).static_order())) == len(here)  # raises CycleError


def test_no_room_is_large_and_rooms_make_no_circle() -> None:
    lines = dict.fromkeys(ROOMS, 0)
    below: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in modules():
        room = module.split(".")[0]
        if room in ROOMS:
            lines[room] += (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8").count("\n")
            tops = {name.split(".")[1] for name in imports(module) if name.startswith("segadapt.")}
            below[room] |= (tops & ROOMS) - {room}
    large = {room: count for room, count in lines.items() if count > 0.2 * sum(lines.values())}
    assert not large, f"of {sum(lines.values())} lines"
    assert len(list(TopologicalSorter(below).static_order())) == len(ROOMS)  # raises CycleError

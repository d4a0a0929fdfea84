"""Plug-ins: found anywhere in a command, loaded once, told about when they fail, carried to other processes."""

import importlib.metadata
import json
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import segadapt
from command import assert_told, command
from planning import planned, without_report
from plugged import EXAMPLES
from segadapt import UsageError, plugin
from segadapt.config.load import load_recipe
from segadapt.data.catalog import LAYOUTS, Layout
from segadapt.data.loader import Steps
from segadapt.methods.registry import METHODS
from segadapt.plugin_loading import Loaded, load_installed, load_plugin, loaded
from tiny_runs import run, tree, write_data, write_recipe

LAYOUT = """
from segadapt.plugin import Layout, register_layout

class Mine(Layout):
    pass

register_layout(Mine("mine", "my rig", images="{images}", labels=None, encoding=None))
"""


pytestmark = pytest.mark.usefixtures("own_registries")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A plug-in with a layout `mine`."""
    file = tmp_path / "mine.py"
    file.write_text(LAYOUT.replace("{images}", "pictures"))
    return file


def test_a_plug_in_is_loaded_once_and_again_when_it_has_changed(mine: Path) -> None:
    module = load_plugin(mine)
    assert LAYOUTS["mine"].images == "pictures" and load_plugin(str(mine)) is module
    assert [one.as_dict()["file"] for one in loaded()] == [str(mine)]
    before = loaded()[0].sha256
    mine.write_text(LAYOUT.replace("{images}", "photographs"))
    with pytest.raises(UsageError, match=r"mine\.py:7: cannot be loaded .* a layout named 'mine' already exists"):
        load_plugin(mine)
    assert load_plugin is segadapt.load_plugin and loaded()[0].sha256 == before


@pytest.mark.parametrize("place", range(4))
def test_the_option_may_stand_anywhere(capsys: pytest.CaptureFixture[str], mine: Path, place: int) -> None:
    given: list[object] = ["data", "check", "mine", mine.parent]
    given[place:place] = ["--plugin", mine] if place % 2 else [f"--plugin={mine}"]
    assert_told(command(capsys, *given), 2, str(mine.parent), "layout 'mine' expects a folder pictures", "a tree).")


def test_help_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--plugin", "gone.py", "--help"], ["run", "--plugin", "gone.py", "--help"], ["--version"]):
        assert command(capsys, *arguments).code == 0


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("1 = 2", ":1", "SyntaxError: cannot assign to literal"),
        ("\nimport nowhere", ":2", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def f():\n    g()\n\nf()", ":2", "NameError: name 'g' is not defined"),
        ("raise SystemExit(3)", ":1", "SystemExit: 3"),
        ("import segadapt\nsegadapt.register_method(int)", ":2", "<class 'int'> is not a subclass of segadapt.plugin"),
    ],
)
def test_one_that_fails_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, line: str, told: str
) -> None:
    file, modules = tmp_path / "own.py", set(sys.modules)
    file.write_text(text)
    said = command(capsys, "schema", "--plugin", file)
    assert_told(said, 2, f"{file}{line}", told, "--debug shows the traceback.")
    assert not loaded() and not {name for name in set(sys.modules) - modules if "_own_" in name}
    with pytest.raises(UsageError):
        command(capsys, "schema", "--debug", "--plugin", file)


def test_what_is_no_plug_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for given, place, what in (
        (tmp_path / "gone.py", tmp_path / "gone.py", "the plug-in does not exist"),
        (tmp_path / "notes.txt", tmp_path / "notes.txt", "is not a Python file"),
        ("--yes", "--plugin", "needs a file"),
    ):
        said = command(capsys, "schema", "--plugin", given)
        assert said.code == 2 and said.errors == [said.err.strip()], said
        assert said.err.startswith(f"error: {place}: ") and what in said.err
    assert command(capsys, "schema", "--plugin").errors == [
        "error: --plugin: needs a file. Give it as --plugin FILE.py."
    ]


def test_installed_packages_declare_theirs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is broken is a warning, once, and no more."""
    points = [EntryPoint(name, name, "segadapt.plugins") for name in ("mine", "broken_plugin")]
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_plugin.py").write_text("import nowhere")
    said = command(capsys, "schema")
    assert said.code == 0 and "mine" in LAYOUTS
    assert [line for line in said.err.splitlines() if line.startswith("warning:")] == [
        "warning: plug-in 'broken_plugin' of an unknown package cannot be loaded (ModuleNotFoundError: No module named "
        "'nowhere'). Its methods, networks and layouts are unavailable; fix or uninstall it."
    ]
    load_installed()
    assert asked == ["segadapt.plugins"] and [plugin.name for plugin in loaded()] == ["mine"]
    sys.modules.pop("mine")


def test_what_is_not_known_may_be_a_plug_ins(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    hint = "If it is your own, load its plug-in: --plugin FILE.py, in Python segadapt.load_plugin."
    for stage in ({"method": "class_mix"}, {"method": "source_only", "network": "two_scales"}):
        recipe = write_recipe(tmp_path / "recipe.yaml", tree(tmp_path, one=stage))
        with pytest.raises(UsageError) as caught:
            load_recipe(str(recipe), [])
        assert caught.value.remedy.endswith(hint)
    assert hint in command(capsys, "data", "check", "rig", tmp_path).err


def test_a_recipe_alone_runs_no_code(tmp_path: Path, mine: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(tmp_path, a={"method": "source_only"}) | {"plugin": str(mine)})
    with pytest.raises(UsageError, match="unknown key 'plugin'"):
        load_recipe(str(recipe), [])
    assert "mine" not in LAYOUTS


def test_a_process_of_its_own_loads_them_before_what_needs_them(mine: Path) -> None:
    """As processes that are spawned get what they work with."""
    load_plugin(mine)
    own: Any = LAYOUTS["mine"]
    items = object.__new__(Steps)
    items.source = own  # in the place of a data set of a plug-in's class
    sent = pickle.dumps(items) + pickle.dumps((Loaded(), own))
    program = "import pickle, sys; f = sys.stdin.buffer; print(pickle.load(f).source, pickle.load(f)[1], sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True)
    steps, job = done.stdout.decode().splitlines()
    assert steps == job and job.startswith("Mine(name='mine', summary='my rig'")


METHOD = """
from typing import Literal

import segadapt
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings

class Settings(SourceOnlySettings):
    method: Literal["mine"] = "mine"

class Mine(SourceOnly):
    settings_type = Settings

segadapt.register_method(Mine)
"""


def test_a_stage_that_a_plug_in_made_before_it_was_changed_is_said_to_be_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_report(monkeypatch)
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(METHOD)
    load_plugin(file)
    stages = {"mine": {"method": "mine", "steps": 1}, "plain": {"method": "source_only", "steps": 1}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), **stages))
    run(recipe, out)
    assert "plugins" not in json.loads((out / "plain/stage.json").read_text())
    assert planned(recipe, out)[1]["mine"].said() == "done already, skipped"
    file.write_text(METHOD + "# a comment\n")
    load_plugin(file)
    for _ in range(2):  # what is skipped is not taken for new
        capfd.readouterr()
        run(recipe, out)
        said = [line for line in capfd.readouterr().err.splitlines() if "mine.py" in line]
        assert len(said) == 1 and "mine: done already, skipped; plug-in mine.py has changed" in said[0]
    one = planned(recipe, out)[1]["mine"]
    one.stage.mark("running")  # as when it is resumed
    assert planned(recipe, out)[1]["mine"].stage.changed_plugins() == ["plug-in mine.py"]
    one.stage.clear()
    one.stage.mark("running")
    assert planned(recipe, out)[1]["mine"].stage.changed_plugins() == []


# --- what can be registered ---


class Half(plugin.Method):
    """No step."""

    settings_type = plugin.SegmenterSettings
    domains = ("source",)

    @property
    def result(self) -> plugin.Segmenter:
        raise NotImplementedError


class Whole(Half):
    def step(self, batch: plugin.Batch, update: plugin.Update) -> None:
        pass


def named(**facts: object) -> type[plugin.Method]:
    return type("Named", (Whole,), {"__module__": f"elsewhere{len(facts)}", **facts})


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (lambda: Half, "method Half lacks step"),
        (lambda: Whole, "SegmenterSettings needs `method: Literal"),
        (lambda: named(settings_type=dict), "needs `settings_type`, a subclass of SegmenterSettings"),
        (lambda: named(settings_type=METHODS["sean"].settings_type, domains=()), "needs `domains`, as"),
        (lambda: named(settings_type=METHODS["sean"].settings_type), "a method named 'sean' already exists"),
        (lambda: 3, "3 is not a subclass of segadapt.plugin.Method"),
    ],
)
def test_what_is_no_whole_method_is_refused(method: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        segadapt.register_method(method())  # type: ignore[operator]


def test_a_class_that_is_defined_anew_takes_its_own_place() -> None:
    """A notebook's cell is run twice."""
    load_plugin(EXAMPLES / "own_method.py")
    again = type("ClassMix", (METHODS["class_mix"],), {"__module__": METHODS["class_mix"].__module__})
    assert segadapt.register_method(again) is again is METHODS["class_mix"]
    with pytest.raises(ValueError, match="is not a segadapt"):
        segadapt.register_layout("rig")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'gta5' already exists"):
        segadapt.register_layout(Layout("gta5", "", "images", "labels", None))


def test_the_module_for_authors_says_what_it_has() -> None:
    assert all(hasattr(plugin, name) for name in plugin.__all__)
    names = {"register_method", "register_network", "register_layout", "load_plugin"}
    assert names <= set(dir(segadapt)) and all(callable(getattr(segadapt, name)) for name in names)


NETWORK = """
import segadapt
from segadapt.models.small import DeepLabSmall

class Inner(DeepLabSmall):
    pass

segadapt.register_network("mine_inside", Inner)
"""


def test_a_stage_knows_the_plug_in_of_the_network_inside_its_network(tmp_path: Path) -> None:
    file = tmp_path / "inner.py"
    file.write_text(NETWORK)
    load_plugin(file)
    inside: dict[str, object] = {"name": "hrda", "of": "mine_inside"}
    of_each = {"inside": inside, "itself": "mine_inside", "none": {"name": "hrda", "of": "segformer"}}
    stages = {name: {"method": "source_only", "steps": 1, "network": network} for name, network in of_each.items()}
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), **stages))
    plans = planned(recipe, tmp_path / "run")[1]
    assert {name: list(plan.stage.plugins) for name, plan in plans.items()} == {
        "inside": ["plug-in inner.py"],
        "itself": ["plug-in inner.py"],
        "none": [],
    }

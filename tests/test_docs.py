"""The documentation says what is so: links, commands, recipes, tables of keys and quirks; marked blocks run."""

import ast
import re
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from layouts import NAMES, write_layout
from pages import CODE, PAGES, ROOT, anchors, blocks, commands, links, name, named_commands, read, rows, section, words
from segadapt.cli.main import app, main, plugin_files
from segadapt.config.load import load_recipe
from segadapt.config.recipe_files import read_tree, shipped_recipes
from segadapt.data.label_spaces import load_label_space
from segadapt.data.sides import DataSettings
from segadapt.methods.settings import TrainingSettings
from segadapt.plugin_loading import load_plugin
from segadapt.stages.estimate import Estimator
from segadapt.version import __version__
from test_docs_settings import open_keys

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=name)


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {path}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {path}#{anchor}"


def without_global_options(whole: list[str]) -> list[str]:
    """Without those that may stand anywhere in a command."""
    return plugin_files([word for word in whole if word != "--debug"])[1]


def command_of(verbs: list[str]) -> tuple[Any, list[str]]:
    """The command that these words call and the words that are left for it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and verbs and not verbs[0].startswith("-"):
        assert verbs[0] in command.commands, f"no verb '{verbs[0]}'"
        command, verbs = command.commands[verbs[0]], verbs[1:]
    return command, verbs


@EACH_PAGE
def test_commands_parse(page: Path) -> None:
    for whole in commands(page):
        command, rest = command_of(without_global_options(whole))
        with command.make_context("segadapt", rest) as context:
            assert command.name in whole and context is not None


@EACH_PAGE
def test_commands_in_prose_exist(page: Path) -> None:
    for whole in named_commands(page):
        command, rest = command_of(without_global_options(whole))
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in rest:
            assert not word.startswith("--") or word in known, f"{name(page)}: {' '.join(whole)}"


def recipe_files(folder: Path) -> dict[str, Path]:
    """The YAML blocks of all pages that begin with `# NAME.yaml`, written to a folder."""
    found = {}
    for page in PAGES:
        for block in blocks(page, "yaml"):
            if title := re.match(r"# (\w+\.yaml)\n", block.text):
                found[title[1]] = folder / title[1]
                found[title[1]].write_text(block.text, encoding="utf-8")
    return found


@pytest.mark.usefixtures("own_registries")
def test_recipes_and_overrides_in_commands_are_valid(tmp_path: Path) -> None:
    written, seen = recipe_files(tmp_path), set()
    for page in PAGES:
        for verb, *rest in commands(page):
            plugins, rest = plugin_files(rest)
            if verb != "run" or not rest[0].islower():  # RECIPE, RUN/recipe.yaml: placeholders
                continue
            for file in plugins:
                if (ROOT / file).exists():
                    load_plugin(ROOT / file)
            overrides = [word for word in rest[1:] if "=" in word[1:]]
            some = bool({"--only", "--from"} & set(rest))  # what other stages need may stay open
            load_recipe(str(written.get(rest[0], rest[0])), overrides, keep_open=some)
            seen.add(rest[0])
    assert {"harbour.yaml", "mine.yaml", "demo", "sean_gta5_cityscapes_official"} <= seen


@EACH_PAGE
def test_yaml_blocks_are_valid(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "yaml")):
        content, file = yaml.safe_load(block.text), tmp_path / f"{number}.yaml"
        file.write_text(block.text, encoding="utf-8")
        if isinstance(content, list) or "classes" in content:  # a list of names is a label space
            load_label_space(file)
        elif "stages" in content:
            load_recipe(str(file), [])
        else:
            other = {"layout": "folder", "root": "."}
            DataSettings.model_validate({"source": other, "target": other} | content["data"])


@EACH_PAGE
def test_python_blocks_import_what_there_is(page: Path) -> None:
    for block in blocks(page, "python"):
        for statement in ast.parse(block.text).body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)) and "h5py" not in ast.unparse(statement):
                exec(ast.unparse(statement), {})


def test_the_recipes_are_all_named_and_no_others() -> None:
    shipped = set(shipped_recipes())
    listed = {
        recipe for row in rows(section("docs/recipes.md", "The shipped recipes")) for recipe in CODE.findall(row[0])
    }
    assert listed == shipped
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"\b(?:sean|source_only|se_gan|adaptsegnet)_\w+_cityscapes(?:_official)?\b", text)
        assert set(named) <= shipped


# --- commands that are run ---

ONE_THREAD = "runtime.threads=1"
"""As all tests have it, whatever a recipe says: two threads on a core wait for each other, and work at it."""


@pytest.fixture
def quiet() -> Iterator[None]:
    """A run shows warnings its own way; what is done after it shall not."""
    before = warnings.showwarning
    yield
    warnings.showwarning = before


def segadapt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The command line, in this process; must end well."""
    monkeypatch.setattr(sys, "argv", ["segadapt", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, arguments


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash runnable")], ids=name)
def test_runnable_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "bash runnable"):
        for program, *arguments in words(block):
            assert program == "segadapt", "only segadapt commands are run"
            segadapt(monkeypatch, *arguments, *([ONE_THREAD] if arguments[0] == "run" else []))
    if page.name == "README.md":
        assert all(Path(made).exists() for made in ("look/val.png", "runs/first/report.html"))
        assert len(list(Path("out").rglob("*.png"))) == 4


SPLITS = {
    "cityscapes": ("leftImg8bit/{}", "gtFine/{}"),
    "camvid": ("{}", "{}annot"),
    "acdc": ("rgb_anon/*/{}", "gt/*/{}"),
    "dark_zurich": ("rgb_anon/{}", "gt/{}"),
}


def tiny_data(root: Path, layout: str) -> Path:
    """Three pairs in a real layout, in every split that it has."""
    write_layout(root, layout)
    for folder in SPLITS.get(layout, ()):
        for train in root.glob(folder.format("train")):
            for split in ("val", "test"):
                shutil.copytree(train, train.with_name(train.name.replace("train", split)))
    return root


SMALLEST: dict[str, dict[str, Any]] = {
    "segformer": {"size": "b0"},
    "dinov2": {"size": "s"},
    "hrda": {"of": {"name": "segformer", "size": "b0"}},
}
"""Network -> the options that make it small."""


def small(network: Any) -> Any:
    """The smallest of a network's kind, with all other options that a recipe has."""
    given = network if isinstance(network, dict) else {"name": network}
    return {**given, **SMALLEST[given["name"]]} if given["name"] in SMALLEST else network


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    """What was counted, by what it was counted for."""
    return {}


@pytest.fixture
def counted_once(counted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many recipes have the same stages: each network, and each method over it, is counted once, over small networks.

    The rate of this machine is given.
    """
    step, one, network = Estimator.step, Estimator._counted, Estimator.network

    def once(key: str, count: Callable[[], Any]) -> Any:
        if key not in counted:
            counted[key] = count()
        return counted[key]

    def step_once(self: Estimator, settings: TrainingSettings) -> tuple[float, int]:
        found: tuple[float, int] = once(
            settings.model_dump_json(include={"method", "network"}), lambda: step(self, settings)
        )
        return found

    def network_once(self: Estimator, reference: Any) -> tuple[float, int]:
        found: tuple[float, int] = once(str(reference), lambda: one(self, reference))
        return found

    monkeypatch.setattr(Estimator, "step", step_once)
    monkeypatch.setattr(Estimator, "_counted", network_once)
    monkeypatch.setattr(Estimator, "network", lambda self, which, *more: network(self, small(which), *more))
    monkeypatch.setattr("segadapt.stages.estimate.conv_rate", lambda _: 1e11)


@pytest.mark.usefixtures("quiet", "counted_once")
@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_shipped_recipe_plans_its_stages(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = read_tree(shipped_recipes()[recipe])
    (tmp_path / "start.pth").write_bytes(b"weights")
    monkeypatch.setattr("segadapt.stages.train.need_fitting_files", lambda *_: None)  # start.pth is no weights
    given = [ONE_THREAD, *(["data.source.holdout=1"] if tree["data"]["source"].get("holdout") else [])]
    given += ["data.target.labelled=1"] if tree["data"]["target"].get("labelled") else []
    if tree["data"]["source"]["layout"] == "folder":
        given += ["data.source.images=pictures", "data.source.labels=truth"]
    for key in open_keys(tree):
        if key.endswith(".root"):
            domain = key.split(".")[1]
            given.append(f"{key}={tiny_data(tmp_path / domain, tree['data'][domain]['layout'])}")
        elif key.endswith("_list"):
            listed = tmp_path / f"{key}.txt"
            listed.write_text("".join(f"{name}\n" for name in NAMES["folder"]))
            given.append(f"{key}={listed}")
        else:
            assert key.endswith(".start")
            given.append(f"{key}={tmp_path / 'start.pth'}")
    segadapt(monkeypatch, "run", recipe, *given, "--out", str(tmp_path / "run"), "--dry-run")
    said = capsys.readouterr().out
    assert re.findall(r"^ +(\w+) +\w+ +to do ", said, re.M) == [n for n, stage in tree["stages"].items() if stage], said
    assert not (tmp_path / "run").exists()


# --- other claims ---

MESSAGES = (
    "If it is your own, load its plug-in", "cannot be loaded as a plug-in",
    "unknown key '", "must be given", "give exactly one of `steps` and `epochs`", "is not a stage before",
    "no recipe of this name, and no file", "cannot be split over", "made with different settings",
    "the folder is not empty and is not a run", "another command is running in this folder", "is expected here",
    "was written with", "differ in rounding from those of an uninterrupted run",
    "the checkpoint cannot be read", "expects a folder", "is a colour image", "is not a 16-bit RGB PNG",
    "comes without a split 'val'", "has no label", "but there is no image", "this prepared copy",
    "could not be downloaded from", "the Caffe VGG-16 weights", "is not the known '",
    "holds Python objects", "is damaged or incomplete", "is not a file of weights",
    "the loss or its gradient was not finite at step", "no network was selected by", "a checkpoint was saved",
    "does not say which parameters its heads have", ", which lacks ",
    " is not installed", "no space left on the disk", "Run it again with --debug for the traceback",
)  # fmt: skip


def test_the_messages_of_the_troubleshooting_page_are_real() -> None:
    page = " ".join(read("docs/troubleshooting.md").split())
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for message in MESSAGES:
        assert message in code, message
        assert message in page or message.split(" from")[0] in page, message


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    own, extras = section("docs/architecture.md", "Dependencies").split("| extra |")
    names = [re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]]
    assert [row[0] for row in rows(own)] == names
    listed = {row[0].strip("`"): row[1].split(", ") for row in rows("| extra |" + extras)}
    wanted = {
        extra: [re.split(r"[<>=]", requirement)[0] for requirement in requirements]
        for extra, requirements in project["optional-dependencies"].items()
    }
    assert {extra: set(packages) for extra, packages in listed.items()} == {
        extra: set(packages) for extra, packages in wanted.items()
    }


def test_the_readme_knows_the_makefile() -> None:
    makefile = read("Makefile")
    for variable, default, _ in rows(section("README.md", "Install")):
        assert re.search(rf"^{variable.strip('`')} \?= {re.escape(default.strip('`'))}$", makefile, re.M), variable
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\bmake ([a-z-]+)\b(?=`|  )", read(page)):
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_citation_file() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == __version__ and citation["license"] == "MIT"
    assert [reference["year"] for reference in citation["references"]] == [2019, 2018, 2022]
    assert f"## {__version__}" in read("CHANGELOG.md")

"""At the shell: completion, JSON, how much is told, colours; all in process."""

import io
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from command import assert_told, command
from segadapt.cli.completion import methods
from segadapt.config.recipe import stage_types
from segadapt.config.recipe_files import shipped_recipes
from segadapt.pipeline import show
from segadapt.verbosity import set_level
from tiny_runs import tree, write_data, write_recipe

CapSys = pytest.CaptureFixture[str]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe of two stages, in the current folder."""
    monkeypatch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segadapt.verbosity._level", "usual")
    content = tree(write_data(tmp_path / "data"), plain={"method": "source_only"}, adapted={"method": "sean"})
    write_recipe(tmp_path / "mine.yaml", content)
    return "mine.yaml"


# --- completion ---


def offered(capsys: CapSys, *words: str, bash: bool = False) -> list[str]:
    """What Tab offers after `segadapt WORDS`, the last of which is incomplete."""
    line = " ".join(["segadapt", *words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_SEGADAPT_COMPLETE", "complete_bash" if bash else "complete_fish")
        patch.setenv("COMP_WORDS", line)
        patch.setenv("COMP_CWORD", str(len(words)))
        patch.setenv("_TYPER_COMPLETE_ARGS", line)
        patch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        said = command(capsys)
    return [line.split("\t")[0] for line in said.out.splitlines() if line]


def test_verbs_recipes_and_stages_are_offered(recipe: str, capsys: CapSys) -> None:
    assert offered(capsys, "pre") == ["predict"]
    shipped = [name for name in shipped_recipes() if name.startswith("sean_")]
    assert offered(capsys, "run", "sean_") == offered(capsys, "recipes", "sean_") == shipped != []
    assert offered(capsys, "run", "mi") == [*(n for n in shipped_recipes() if n.startswith("mi")), recipe]
    for option in ("--only", "--from", "--continue"):
        assert offered(capsys, "run", recipe, option, "") == ["plain", "adapted"]
    assert offered(capsys, "run", recipe, "--only", "a") == ["adapted"]
    assert offered(capsys, "run", "no.yaml", "--only", "a") == []
    assert offered(capsys, "data", "check", "citys") == ["cityscapes"]


def test_keys_and_methods_are_offered(recipe: str, capsys: CapSys) -> None:
    assert methods() == sorted(stage_types())
    assert offered(capsys, "run", recipe, "se") == ["seed="]
    below = offered(capsys, "run", recipe, "stages.a")  # one stage: what is below it
    assert below == offered(capsys, "run", recipe, "stages.adapted.") and "stages.adapted.lr=" in below
    assert "stages.adapted.augment." in below
    assert offered(capsys, "run", recipe, "stages.plain.method=sea") == ["stages.plain.method=sean"]
    assert offered(capsys, "run", recipe, "stages.plain.method", "=", "sea", bash=True) == ["sean"]
    assert offered(capsys, "run", recipe, "runtime.device", "=", bash=True) == ["auto", "cpu", "cuda"]
    assert offered(capsys, "run", recipe, "seed", "=", "1", "runtime.pre", bash=True) == ["runtime.precision="]


def test_values_of_options_are_offered(recipe: str, capsys: CapSys) -> None:
    assert offered(capsys, "evaluate", "m", "--domain", "t") == ["target"]
    assert offered(capsys, "predict", "m", "i", "--format", "overlay,") == [
        f"overlay,{name}" for name in ("train_id", "label_id", "colour")
    ]
    assert offered(capsys, "run", recipe, "--track", "t") == ["tensorboard", "trackio"]
    assert "cityscapes19" in offered(capsys, "evaluate", "m", "--label-space", "c")


# --- JSON ---


def test_a_plan_and_its_run_as_json(recipe: str, capsys: CapSys) -> None:
    run = ("run", recipe, "-o", "out", "stages.adapted.steps=2", "--json")
    plan = json.loads(command(capsys, *run, "--dry-run").out)
    assert [(one["name"], one["method"], one["action"]) for one in plan["stages"]] == [
        ("plain", "source_only", "begin"),
        ("adapted", "sean", "begin"),
    ]
    assert (
        plan["seconds"] > 0 and plan["bytes"] == sum(one["bytes"] for one in plan["stages"]) and not plan["needs_yes"]
    )
    assert not Path("out").exists()
    done = command(capsys, *run)
    found = json.loads(done.out)
    assert [one["state"] for one in found["stages"]] == ["done", "done"] and "step 2" in done.err
    assert Path(found["stages"][1]["model"]).is_file() and found["stages"][1]["scores"]["target"] >= 0
    again = json.loads(command(capsys, *run, "--dry-run", "stages.plain.lr=0.5").out)
    assert again["needs_yes"] and again["stages"][0]["why"] == ["settings.lr: 0.001 -> 0.5"]


def test_a_data_set_that_was_checked_as_json(recipe: str, capsys: CapSys) -> None:
    check = ("data", "check", recipe, "--json", "--out", "look")
    outcome = command(capsys, *check)
    found = json.loads(outcome.out)
    assert outcome.code == 0 and found["usable"] and found["problems"] == 0
    assert [one["name"] for one in found["domains"]] == ["source", "target"]
    split = found["domains"][0]["splits"][0]
    assert (split["split"], split["images"], split["sizes"]) == (
        "train", 6, [{"width": 128, "height": 64, "images": 6}],
    )  # fmt: skip
    road = next(one for one in split["classes"] if one["name"] == "road")
    assert 0 < road["percent_of_pixels"] < 100 and road["percent_of_images"] == 100
    next(Path("data/gta5/images").iterdir()).write_bytes(b"no picture")
    outcome = command(capsys, *check)
    found = json.loads(outcome.out)
    assert outcome.code == 1 and len(outcome.errors) == 1 and found["problems"] == 1 and not found["usable"]


# --- how much is told ---


def test_quiet_tells_warnings_and_errors_alone(recipe: str, capsys: CapSys) -> None:
    quiet = command(capsys, "run", recipe, "-o", "out", "--only", "plain", "stages.plain.steps=2", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    refused = command(
        capsys, "run", recipe, "-o", "out", "--only", "plain", "stages.plain.steps=2", "stages.plain.lr=0.5", "--quiet"
    )
    assert refused.code == 2 and len(refused.errors) == 1 == len(refused.err.splitlines())
    drawn = command(capsys, "--quiet", "data", "sample", "drawn", "--train", 1, "--val", 1, "--size", "128x64")
    assert (drawn.code, drawn.out, drawn.err) == (0, "", "") and Path("drawn/gta5").is_dir()
    set_level("quiet")
    show.Display().say("a: warning: something")
    show.Display().say("a: something")
    assert capsys.readouterr().err == "a: warning: something\n"


def test_verbose_tells_progress_costs_and_causes(recipe: str, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "EVERY_VERBOSE", 0.0)
    told = command(
        capsys, "--verbose", "run", recipe, "-o", "out", "--only", "plain", "stages.plain.steps=2"
    ).err.splitlines()
    assert told[0].startswith("segadapt ") and told[-1].startswith("took ") and "GB of memory" in told[-1]
    assert [line.split()[1] for line in told if line.startswith("plain  ")][:3] == ["1/2", "2/2", "step"]
    Path("broken.yaml").write_text("stages: {")
    failed = command(capsys, "run", "broken.yaml", "--verbose")
    assert failed.code == 2 and any(line.startswith("caused by ") for line in failed.err.splitlines())
    assert_told(
        command(capsys, "recipes", "--quiet", "--verbose"), 2, "--quiet", "cannot be combined", "Leave one of them out."
    )


class Terminal(io.StringIO):
    """A terminal, for whoever asks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_colour", "quiet"), [(False, False), (True, False), (False, True)])
def test_a_terminal_has_progress_and_colours_unless_told_otherwise(
    recipe: str, capsys: CapSys, monkeypatch: pytest.MonkeyPatch, no_colour: bool, quiet: bool
) -> None:
    """And a pipe has neither (the tests above compare all that is written there)."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        display = show.Display()
        set_level("quiet" if quiet else "usual")
        with display.showing("a"):
            display.training(1, 2, {"loss/total": 1.0})
    set_level("usual")
    assert ("a" in screen.getvalue()) != quiet
    assert bool(COLOUR.search(screen.getvalue())) == (not no_colour and not quiet)


def test_pipes_get_neither_colours_nor_bars(recipe: str, capsys: CapSys) -> None:
    outcomes = [command(capsys, *words) for words in (("run", recipe, "-o", "out", "--dry-run"), ("--help",))]
    outcomes.append(command(capsys, "run", recipe, "-o", "out", "--only", "plain", "stages.plain.steps=2"))
    outcomes.append(command(capsys, "evaluate", "out/plain", "--domain", "target"))
    assert all(outcome.code == 0 and "\x1b" not in outcome.out + outcome.err for outcome in outcomes)


def test_what_libraries_log_is_told_by_a_verbose_command_alone(capsys: CapSys) -> None:
    log = logging.getLogger("some.library")
    for flags, told in ((["--verbose"], True), ([], False)):
        command(capsys, "recipes", *flags)
        log.info("loading")
        assert ("some.library: loading" in capsys.readouterr().err) == told

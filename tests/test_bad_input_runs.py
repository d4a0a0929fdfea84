"""Runs that are stopped, damaged or changed, commands that make no sense, and images that only look wrong."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from command import assert_told, command
from forking import Forks
from segadapt.cli import main as command_line
from segadapt.errors import RankLost, SegadaptError
from spoilt import SIZE, World

CapSys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)
    return made.copy(tmp_path)


def test_ctrl_c_saves_and_says_how_to_go_on(forks: Forks, world: World, tmp_path: Path, capsys: CapSys) -> None:
    arguments = world.train("stages.baseline.steps=500", "stages.baseline.log_every=1")
    process = forks.start([*arguments], tmp_path / "said")
    metrics = world.out / "baseline/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.signal(signal.SIGINT)
    code, said = process.wait(), process.said.read_text()
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert code == 130 and "Traceback" not in said and "finishing this step and saving" in said
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert errors == [
        f"error: {world.out / 'baseline'}: stopped after step {steps[-1]} of 500; a checkpoint was saved. "
        "Run the same command to resume."
    ]
    assert (world.out / f"baseline/checkpoints/step_{steps[-1]:08d}.pt").is_file()
    assert "resumes where it stopped" in command(capsys, *arguments, "--dry-run").out


def test_ctrl_c_anywhere_else_is_one_line(world: World, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segadapt.inference.label_pictures.label_pictures", interrupted)
    outcome = command(capsys, *world.predict(world.model))
    assert (outcome.code, outcome.err) == (130, "error: stopped.\n")


def test_changed_settings_need_yes(world: World, capsys: CapSys) -> None:
    changed = world.go_on("stages.baseline.lr=0.002")
    before = world.model.read_bytes()
    planned = command(capsys, *changed, "--dry-run").out
    assert "made with different settings" in planned and "settings.lr: 0.001 -> 0.002" in planned
    remedy = "--continue baseline to continue from its last checkpoint, or another --out to keep it."
    assert_told(command(capsys, *changed), 2, str(world.stage), "settings.lr: 0.001 -> 0.002", remedy)
    assert world.model.read_bytes() == before
    assert command(capsys, *changed, "--yes").code == 0
    assert world.model.read_bytes() != before


def test_a_lost_result_is_made_again_from_the_checkpoint(world: World, capsys: CapSys) -> None:
    before = world.model.read_bytes()
    outcome = command(capsys, *world.lose_result().go_on())
    assert outcome.code == 0 and "resumed from step 1" in outcome.err
    assert world.model.read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "null", '{"fingerprint": 1, "state": "done"}'])
def test_a_damaged_or_lost_stage_file_is_told(world: World, capsys: CapSys, content: str | None) -> None:
    file = world.stage / "stage.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    what = f"stage.json {'is missing' if content is None else 'cannot be read'}"
    assert_told(command(capsys, *world.go_on()), 2, str(world.stage), what, "or another --out to keep it.")
    assert command(capsys, *world.go_on(), "--yes").code == 0


def test_what_left_nothing_begins_anew_without_yes(world: World, capsys: CapSys) -> None:
    world.lose_checkpoint()
    for file in [*world.stage.glob("*.safetensors"), world.stage / "evaluation.json"]:
        file.unlink()
    assert command(capsys, *world.go_on("stages.baseline.lr=0.002")).code == 0


def test_lines_that_are_none_do_not_stop_a_run(world: World, capsys: CapSys) -> None:
    line = world.metrics.read_text()
    world.metrics.unlink()
    world.metrics.write_bytes(line.encode() + b'\xff\xfe\n3\n[]\n{"step": null}\n{"step": 1, "loss/to')
    assert command(capsys, *world.lose_result().go_on()).code == 0
    assert world.metrics.read_text() == line


def test_an_image_that_a_loader_process_cannot_read(world: World, capsys: CapSys) -> None:
    outcome = command(capsys, *world.cut(world.image).train(), "--workers", "1")
    assert_told(outcome, 1, str(world.image), "cannot be read as an image", "finds all such files.")


def test_several_errors_are_a_line_each(world: World, capsys: CapSys) -> None:
    outcome = command(capsys, *world.set(lr=-1, stepz=3).train("sed=1"))
    assert outcome.code == 2 and outcome.err.splitlines() == outcome.errors
    wrong = ("'stages.baseline.lr' is -1", "'stages.baseline.stepz'", "'sed'")
    assert len(outcome.errors) == 3 and all(what in line for what, line in zip(wrong, outcome.errors, strict=True))


@pytest.mark.parametrize(
    ("arguments", "what", "verb"),
    [
        (["trian"], "'trian'", "segadapt"),
        (["run"], "Missing argument", "segadapt run"),
        (["run", "x", "--stpes", "3"], "--stpes", "segadapt run"),
        (["data", "prepare", "gta5", "x"], "Missing option '--size'", "segadapt data prepare"),
        (["report", "x", "--images", "-1"], "'--images'", "segadapt report"),
    ],
)
def test_commands_that_make_no_sense(capsys: CapSys, arguments: list[str], what: str, verb: str) -> None:
    outcome = command(capsys, *arguments)
    assert outcome.code == 2 and outcome.err.splitlines() == outcome.errors and len(outcome.errors) == 1
    assert what in outcome.err and outcome.err.endswith(f"See `{verb} --help`.\n")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), SIZE])
def test_images_of_other_modes_and_of_one_pixel_are_fine(
    world: World, capsys: CapSys, mode: str, size: tuple[int, int]
) -> None:
    image = world.folder / f"odd.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new(mode, size).save(image)
    assert command(capsys, *world.predict(world.model, image=image)).code == 0
    with Image.open(world.out / "odd.png") as predicted:
        assert predicted.size == size


def test_a_report_of_half_a_run(world: World, capsys: CapSys) -> None:
    world.metrics.unlink()
    world.cut(world.model)
    (world.run / "recipe.yaml").unlink()
    (world.run / "recipe.yaml").write_text("stages: {baseline: 3, other: null}\ndata: [1]\nlabel_space: 4\n")
    assert command(capsys, "report", world.run).code == 0
    assert "What is missing here" in (world.run / "report.html").read_text()


def test_an_error_that_nobody_has_foreseen(world: World, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> str:
        def fails(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("segadapt.inference.label_pictures.label_pictures", fails)
        outcome = command(capsys, *world.predict(world.model))
        assert outcome.code == 1 and len(outcome.errors) == 1
        return outcome.errors[0]

    assert failing(KeyError("x")).startswith("error: unexpected KeyError: 'x'. Run it again with --debug")
    assert failing(PermissionError(13, "Permission denied", "/a/b")).startswith("error: /a/b: Permission denied. ")
    assert failing(MemoryError("8 GB")).startswith("error: out of memory (8 GB). For training, set checkpointing: true")
    with pytest.raises(MemoryError):
        command(capsys, *world.predict(world.model), "--debug")


@pytest.mark.parametrize(
    ("rank", "error", "patience"),
    [
        ("0", SegadaptError("x", remedy="y"), 0),
        ("1", SegadaptError("x", remedy="y"), command_line.PATIENCE),
        ("0", RankLost("x", remedy="y"), 2 * command_line.PATIENCE),
    ],
)
def test_the_rank_that_knows_why_speaks_first(
    capsys: CapSys, monkeypatch: pytest.MonkeyPatch, rank: str, error: SegadaptError, patience: float
) -> None:
    """torchrun ends all ranks when one has ended: those that know less wait for that."""

    def fails(*_: object, **__: object) -> None:
        raise error

    slept: list[float] = []
    monkeypatch.setitem(os.environ, "RANK", rank)
    monkeypatch.setattr("segadapt.cli.main.time.sleep", slept.append)
    monkeypatch.setattr("segadapt.pipeline.run.find_recipe", fails)
    assert command(capsys, "run", "x").code == 1
    assert slept == [patience]

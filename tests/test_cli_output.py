"""What `--out` may replace, standard output, and the form that a suffix says; every failed file is named."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from command import assert_told, command
from segadapt.cli.views import Views
from segadapt.data.label_spaces import FOLDER
from segadapt.errors import SegadaptError, SegadaptErrors, UsageError
from segadapt.files import write_text
from segadapt.weights.saved import load_model
from spoilt import World

CapSys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path)


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("kept")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    for name in ("link", "dangling", "pipe", "folder"):
        with pytest.raises(UsageError):
            write_text(tmp_path / name, "new")
    assert before == {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    assert (tmp_path / "real").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("pipe", "is not a regular file", "Choose another path."),
        ("link.json", "is a link and would be replaced by a file", "or remove the link."),
    ],
)
def test_a_verb_says_so_before_its_work(world: World, capsys: CapSys, name: str, what: str, remedy: str) -> None:
    os.mkfifo(world.folder / "pipe")
    (world.folder / "link.json").symlink_to("pipe")
    outcome = command(capsys, *world.evaluate("--out", str(world.folder / name)))
    assert_told(outcome, 2, str(world.folder / name), what, remedy)
    assert outcome.out == ""
    outcome = command(capsys, *world.evaluate("--out", "/dev/stdout"))
    assert_told(outcome, 2, "/dev/stdout", "is standard output", "Give - instead.")


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.html"])
def test_content_follows_the_suffix(world: World, capsys: CapSys, name: str) -> None:
    outcome = command(capsys, *world.evaluate("--out", str(world.folder / name)))
    assert_told(outcome, 2, "--out", "", "or give - for standard output.")
    assert not (world.folder / name).exists()


@pytest.mark.parametrize("name", ["scores.json", "scores.csv"])
def test_a_path_that_ends_in_a_slash_is_a_folder(world: World, capsys: CapSys, name: str) -> None:
    outcome = command(capsys, *world.evaluate("--out", f"{world.folder / name}/"))
    assert_told(outcome, 2, "--out", f"{name}/ is a folder, but a file path is expected", "Give a file's path.")
    assert not (world.folder / name).exists()


def test_scores_as_csv_and_on_standard_output(world: World, capsys: CapSys) -> None:
    scores, table = world.folder / "scores.json", world.folder / "scores.csv"
    assert command(capsys, *world.evaluate("--out", str(scores))).code == 0
    record = json.loads(scores.read_text())
    assert command(capsys, *world.evaluate("--out", str(table))).code == 0
    (row,) = csv.DictReader(io.StringIO(table.read_text()))
    target = record["domains"]["target"]
    assert (row["stage"], row["domain"], row["split"]) == ("baseline", "target", "train")
    assert float(row["miou"]) == target["miou"] and float(row["dice"]) == target["dice"]
    assert {name: row[f"iou {name}"] for name in record["classes"]} == {
        name: "" if score is None else str(score) for name, score in target["per_class"].items()
    }
    for options in (("--out", "-"), ("--json",), ("--json", "--out", "-"), ("--json", "--out", str(table))):
        printed = command(capsys, *world.evaluate(*options))
        assert printed.code == 0 and json.loads(printed.out) == record and "mIoU" in printed.err
    page = command(capsys, "report", world.run, "--images", 0, "--out", "-")
    assert page.code == 0 and page.out.startswith("<!") and page.out.rstrip().endswith("</html>")


def test_a_folder_is_no_standard_output(world: World, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    for arguments in (world.predict(world.model, out=Path("-")), world.train(out=Path("-"))):
        assert_told(command(capsys, *arguments), 2, "--out", "'-' is standard output", "Give a folder.")
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["predict", "m", "i", "-o", ""], "-o"),
        (["evaluate", "m", "--root="], "--root"),
        (["predict", "", "i", "-o", "x"], "an argument of the command"),
    ],
)
def test_an_empty_value_is_an_error(capsys: CapSys, arguments: list[str], place: str) -> None:
    assert_told(command(capsys, *arguments), 2, place, "is empty", "or leave it out.")


def test_every_failed_image_is_named(world: World, capsys: CapSys) -> None:
    broken = sorted((world.source / "images").iterdir())[:2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:50])
    outcome = command(capsys, *world.predict(world.model, image=world.source / "images"))
    assert outcome.code == 1
    assert [line.split(":")[1].strip() for line in outcome.errors] == [str(path) for path in broken]
    fine = {path.name for path in (world.source / "images").iterdir()} - {path.name for path in broken}
    assert {path.name for path in world.out.iterdir()} == fine
    assert len(fine) == 1 and "the other image is done" in outcome.errors[-1]


def test_several_failures_are_a_line_each() -> None:
    both = SegadaptErrors([SegadaptError("a", where="x", remedy="b."), SegadaptError("c", where="y", remedy="d.")])
    assert str(both).splitlines() == ["x: a. b.", "y: c. d."] and both.exit_code == 1


def test_a_run_is_scored_from_any_folder(
    world: World, capsys: CapSys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)
    monkeypatch.chdir(world.folder)
    tree = world.tree()
    tree["data"]["source"]["root"], tree["data"]["target"]["root"] = "gta5", "cityscapes"
    Path("own.yaml").write_text((FOLDER / "cityscapes19.yaml").read_text())
    tree["label_space"] = "own.yaml"
    world.write(tree)
    assert command(capsys, "run", "recipe.yaml", "--out", "mine").code == 0
    Path("own.yaml").unlink()  # the model has its classes in its header
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert command(capsys, "evaluate", world.folder / "mine/baseline", "--domain", "target").code == 0
    monkeypatch.chdir(world.folder / "mine/baseline")
    assert command(capsys, "evaluate", "model.safetensors", "--domain", "target").code == 0


def test_an_image_list_says_what_is_scored(world: World, capsys: CapSys) -> None:
    (world.folder / "some.txt").write_text("00002.png\n")
    scores = world.folder / "scores.json"
    listed = ("--list", str(world.folder / "some.txt"), "--out", str(scores))
    own = ["evaluate", world.model, "--layout", "gta5", "--root", world.source]
    for arguments in ([*own, *listed], ["evaluate", world.run, "--domain", "source", *listed]):
        assert command(capsys, *arguments).code == 0
        (domain,) = json.loads(scores.read_text())["domains"].values()
        assert domain["images"] == 1 and domain["list"] == str(world.folder / "some.txt")
    own = ["evaluate", world.model, "--layout", "gta5", "--root", os.path.relpath(world.source)]
    told = command(capsys, *own, "--list", os.path.relpath(world.folder / "some.txt"), "--out", "-")
    (domain,) = json.loads(told.out)["domains"].values()
    assert domain["list"] == str(Path.cwd() / os.path.relpath(world.folder / "some.txt"))
    assert "1 images of some.txt" in told.err and Path(domain["root"]).is_absolute()
    both = command(capsys, "evaluate", world.run, *listed)
    assert_told(both, 2, "--list", "lists images of a single domain", "or --domain source.")
    (world.folder / "some.txt").write_text("no.png\n")
    assert_told(command(capsys, *own, *listed), 2, f"{world.folder}/some.txt:1", "names no.png", "or add the file.")


def test_official_sets_the_published_views(world: World, capsys: CapSys) -> None:
    scores = world.folder / "scores.json"

    def views(*options: str) -> tuple[list[float], bool, list[str]]:
        assert command(capsys, *world.evaluate("--size", "32x24", "--out", str(scores), *options)).code == 0
        target = json.loads(scores.read_text())["domains"]["target"]
        return target["scales"], target["mirror"], target["rules"]

    assert views() == ([1.0], False, [])
    rules = ["quadrants", "softmax_order", "sum_at_input"]
    assert views("--official") == ([1.0, 0.75, 1.25, 1.5], True, rules)
    assert views("--official", "--scales", "1,0.5", "--no-mirror") == ([1.0, 0.5], False, rules)


def test_official_runs_in_the_corner_rule_of_the_published_program(world: World) -> None:
    """A stage may have been trained with another one; the published views have the network's own."""
    saved = load_model(world.model)
    own = type(saved.network).align_corners
    saved.network.align_corners = not own
    for official, expected in ((False, not own), (True, own)):
        Views.parse("1", False, None, None, official, "cpu", "fp32").predictor(saved)
        assert saved.network.align_corners is expected

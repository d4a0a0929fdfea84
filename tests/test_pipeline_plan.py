"""What a run is going to do: the plan and its costs, chosen stages, --fresh, the lock."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from command import assert_told, command
from planning import actions, finish, planned, recipe_of, without_report
from segadapt.errors import UsageError
from segadapt.pipeline import plan_table
from segadapt.pipeline.costs import costs
from segadapt.pipeline.lock import locked
from segadapt.pipeline.plan import Choice
from segadapt.pipeline.time_left import duration
from segadapt.stages.estimate import Counter, Estimator
from tiny_runs import last_checkpoint, run, same


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


@pytest.fixture
def recipe(finished: Path) -> Path:
    return finished / "recipe.yaml"


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path -> time of its last change and content."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


# --- the table ---


def test_a_dry_run_shows_what_would_be_done_and_writes_nothing(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(recipe, tmp_path / "run", dry_run=True)
    said = capfd.readouterr().out
    for name, method, why in (("source_only", "source_only", "2 steps"), ("views", "evaluate", "2 images")):
        assert re.search(rf"^ *{name} +{method} +to do +{why} +\d+ s", said, re.M), said
    assert re.search(
        r"Total: about \d+ s on cpu \(fp32, threads: \d+\) and about .+MB of disk space; .+ are free", said
    )
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_changed_settings_names_them_and_leaves_the_run_as_it_is(
    finished: Path, recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = everything(finished / "run")
    run(recipe, finished / "run", "stages.sean.lr=0.5", "stages.sean.ema=0.9", dry_run=True)
    said = capfd.readouterr().out
    assert re.search(r"source_only +source_only +done already, skipped", said)
    assert re.search(r"sean +sean +made with different settings, redone +settings\.lr: 0\.001 -> 0\.5", said)
    assert "settings.ema: 0.99 -> 0.9" in said and "@sean (model) has changed" in said and "--yes" in said
    run(recipe, finished / "run", dry_run=True)
    assert "Nothing to do" in capfd.readouterr().out
    assert everything(finished / "run") == before


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("data.source.encoding=train", "data.source.encoding: not set -> train"),
        ("data.target.unknown_ids=ignore", "data.target.unknown_ids: not set -> ignore"),
        ("data.target.size_mismatch=stretch", "data.target.size_mismatch: not set -> stretch"),
    ],
)
def test_how_labels_are_read_is_part_of_what_a_stage_is_made_with(
    finished: Path, recipe: Path, override: str, change: str
) -> None:
    assert actions(recipe, finished / "run") == ["skip"] * 3
    stage = planned(recipe, finished / "run", override)[1]["source_only"]
    assert stage.state == "changed" and stage.stage.changes() == [change]


def test_a_default_that_is_written_out_changes_nothing(finished: Path, recipe: Path) -> None:
    usual = ["data.source.encoding=cityscapes", "data.target.encoding=cityscapes", "data.target.unknown_ids=error"]
    assert actions(recipe, finished / "run", *usual) == ["skip"] * 3


def test_how_labels_are_read_changes_no_stage_that_reads_none(finished: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, finished, copies={"method": "stylize", "generator": str(finished / "recipe.yaml")})
    usual, other = (
        planned(recipe, tmp_path / "run", *change)[1]["copies"].stage for change in ([], ["data.source.encoding=train"])
    )
    assert usual.content == other.content


def test_the_table_says_when_the_disk_is_too_small(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_table, "free_disk", lambda _: 1_000_000)
    run(recipe, tmp_path / "run", dry_run=True)
    assert re.search(r"Not enough disk space for .*run: about \d+\.\d MB more are needed", capfd.readouterr().out)


def test_times_and_sizes_in_words() -> None:
    assert [duration(s) for s in (0.2, 59, 61, 3599, 12_000, 187_200)] == [
        *("1 s", "59 s", "1 min", "1 h 0 min", "3 h 20 min", "2 d 4 h"),
    ]
    sizes = [plan_table.size(n) for n in (900, 2_500_000, 3_400_000_000, 2 * 10**12)]
    assert sizes == ["1 kB", "2.5 MB", "3.4 GB", "2.0 TB"]


# --- the estimate ---


def test_a_resumed_stage_is_estimated_from_its_own_steps(finished: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, finished, a={"method": "source_only", "steps": 4, "checkpoint_every": 2})
    run(recipe, tmp_path / "run")
    stage = tmp_path / "run/a"
    (stage / "model.safetensors").unlink()
    (stage / "checkpoints/step_00000004.pt").unlink()
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.update({"time/step": 5000.0} if "time/step" in line else {})
    (stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    about, stages = planned(recipe, tmp_path / "run")
    assert stages["a"].action == "resume" and plan_table.why(about, stages["a"]) == "step 2 of 4"
    assert costs(about, [stages["a"]])["a"].seconds == pytest.approx(2 * 5000, rel=0.05)


def test_operations_are_counted_and_grow_with_pixels_steps_and_views(recipe: Path, tmp_path: Path) -> None:
    about, stages = planned(recipe, tmp_path, "stages.views.scales=[1, 2]", "stages.views.mirror=true")
    estimator = Estimator(about)
    work = estimator.forward("deeplab_small", (96, 48))
    assert work > 1e6 and estimator.forward("deeplab_small", (192, 96)) == pytest.approx(4 * work, rel=0.01)
    views = stages["views"]
    assert views.kind.cost(views.work(about), estimator).seconds == pytest.approx(2 * 10 * work / estimator.rate)
    _, longer = planned(recipe, tmp_path, "stages.sean.steps=2002", "stages.sean.evaluate_every=0")
    _, short = planned(recipe, tmp_path, "stages.sean.evaluate_every=0")
    each = [one["sean"].kind.cost(one["sean"].work(about), estimator).seconds for one in (longer, short)]
    more = each[0] - each[1]
    # a batch of two: the student forward and backward on both domains, the teacher forward on one
    assert more == pytest.approx(2000 * 2 * 7 * work / estimator.rate, rel=0.2)


def test_an_evaluation_during_training_costs_a_ranks_share_of_the_images(recipe: Path, tmp_path: Path) -> None:
    about, often = planned(recipe, tmp_path, "stages.sean.evaluate_every=1")
    _, never = planned(recipe, tmp_path, "stages.sean.evaluate_every=0")
    estimator = Estimator(about)
    each = estimator.forward("deeplab_small", (96, 48)) / estimator.rate
    steps = often["sean"].work(about).decided["steps"]
    for ranks, share in ((1, 4), (2, 2), (3, 2), (8, 1)):  # two val images of each domain
        run = replace(about, runtime=replace(about.runtime, ranks=ranks))
        costs = [one["sean"].kind.cost(one["sean"].work(run), estimator).seconds for one in (often, never)]
        assert costs[0] - costs[1] == pytest.approx(steps * share * each)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_backward_pass_of_a_convolution_counts_twice_its_forward_pass(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], groups: int
) -> None:
    convolution, activations = kind(8, 16, 3, 2, groups=groups), torch.zeros(2, 8, 9, 9, requires_grad=True)
    with Counter() as forward:
        convolved = convolution(activations)
    with Counter() as backward:
        convolved.sum().backward()
    positions = 2 * (4 * 4 if kind is nn.Conv2d else 9 * 9)
    assert forward.operations == 2 * positions * 8 * 16 // groups * 9
    assert backward.operations == 2 * forward.operations


def test_the_disk_estimate_is_about_what_a_run_takes(finished: Path, recipe: Path, tmp_path: Path) -> None:
    about, stages = planned(recipe, tmp_path / "new")
    wanted = sum(cost.bytes for cost in costs(about, list(stages.values())).values())
    took = sum(path.stat().st_size for path in (finished / "run").glob("*/**/*") if path.is_file())
    assert 0.6 * took < wanted < 1.7 * took


# --- chosen stages ---


def test_only_and_from_choose_stages(finished: Path, recipe: Path, tmp_path: Path) -> None:
    new, done = tmp_path / "run", finished / "run"
    assert actions(recipe, new, choice=Choice(("source_only",))) == ["begin", "leave", "leave"]
    assert actions(recipe, new, choice=Choice(("sean", "source_only"))) == ["begin", "begin", "leave"]
    assert actions(recipe, done, choice=Choice(first="sean")) == ["leave", "skip", "skip"]
    assert actions(recipe, done, choice=Choice(("views",), fresh=True)) == ["leave", "leave", "redo"]
    changed = "stages.sean.lr=0.5"
    assert actions(recipe, done, changed, choice=Choice(("source_only",))) == ["skip", "leave", "leave"]
    assert actions(recipe, done, changed, choice=Choice(first="sean")) == ["leave", "redo", "redo"]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(("sena",)), r"--only: no stage 'sena'\. Did you mean 'sean'\?"),
        (Choice(first="x"), r"--from: no stage 'x'\. Known: sean, source_only, views"),
        (Choice(("sean",), "sean"), r"--from: --only and --from cannot be combined"),
        (Choice(("sean",)), r"--only sean: stage 'sean' uses 'source_only', which is not begun\. Run it first: --only"),
        (Choice(first="views"), r"--from views: stage 'views' uses 'sean', which is not begun"),
    ],
)
def test_choices_that_make_no_sense(recipe: Path, tmp_path: Path, choice: Choice, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(recipe, tmp_path / "run", choice=choice)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "stages.sean.start: is '@source_only', whose network has no attention; that of method sean has some"),
        (
            ["stages.source_only.method=sean", "stages.sean.method=source_only"],
            "has attention; .* source_only has none",
        ),
    ],
)
def test_a_start_that_lacks_attention_is_told_before_anything_begins(
    recipe: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(recipe, tmp_path / "run", "stages.sean.fresh_head=false", *overrides)
    assert not list(tmp_path.glob("run/*/*"))
    assert actions(recipe, tmp_path / "run", *overrides) == ["begin"] * 3  # with fresh_head


@pytest.mark.parametrize(
    "overrides", [["stages.sean.start=FILE"], ["stages.sean.method=daformer", "stages.sean.feature_start=FILE"]]
)
def test_a_start_file_that_will_not_do_is_told_before_anything_begins(
    recipe: Path, tmp_path: Path, overrides: list[str]
) -> None:
    """That of the second stage: the one before could take hours."""
    start = tmp_path / "start.safetensors"
    page, other = b"<html>not found</html>", save({"backbone.weight": torch.zeros(2)})
    for content, said in ((page, "is not a file of weights"), (other, "of unknown origin")):
        start.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            run(recipe, tmp_path / "run", *(text.replace("FILE", str(start)) for text in overrides))
        assert not list(tmp_path.glob("run/*/*"))


def test_the_flags_of_the_command(
    finished: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_new = ("run", recipe, "--dry-run", "--out", tmp_path / "run")
    said = command(capsys, *plan_new, "--only", "sean", "--only", "source_only").out
    assert re.findall(r"(\w+) +\w+ +left alone", said) == ["views"]
    said = command(capsys, "run", recipe, "--dry-run", "--out", finished / "run", "--fresh", "--from", "sean").out
    assert (
        re.findall(r"(\w+) +\w+ +redone from scratch +--fresh", said) == ["sean", "views"]
        and "pass --yes to allow it" in said
    )
    told = command(capsys, *plan_new, "--from", "views")
    assert_told(told, 2, "--from views", "stage 'views' uses 'sean'", "or --from sean to run all stages from there on.")


def test_a_stage_whose_reference_was_made_with_other_settings_is_not_begun(finished: Path, recipe: Path) -> None:
    with pytest.raises(UsageError, match="'views' uses 'sean', which is made with different settings"):
        run(recipe, finished / "run", "stages.sean.lr=0.5", choice=Choice(("views",)), yes=True)


def test_stages_one_by_one_make_the_same_run(finished: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(recipe, out, choice=Choice(("source_only",)))
    assert not (out / "sean").exists() and not (out / "views").exists()
    run(recipe, out, choice=Choice(first="sean"))
    for name in ("source_only/model.safetensors", "sean/model.safetensors", "views/evaluation.json"):
        assert (out / name).read_bytes() == (finished / "run" / name).read_bytes()


def test_fresh_wants_yes_and_deletes_what_stages_make_alone(
    finished: Path, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run(recipe, out)
    (out / "source_only/notes.txt").write_text("mine")
    before = everything(out)
    with pytest.raises(UsageError, match=r"--fresh deletes what is there.*Pass --yes"):
        run(recipe, out, choice=Choice(("source_only",), fresh=True))
    assert {path: content for path, (_, content) in everything(out).items()} == {
        path: content for path, (_, content) in before.items()
    }
    weights = last_checkpoint(out / "source_only")
    capfd.readouterr()
    run(recipe, out, choice=Choice(("source_only",), fresh=True), yes=True)
    assert "source_only: redone from scratch" in capfd.readouterr().err
    assert (out / "source_only/model.safetensors").stat().st_mtime_ns > before[str(out / "source_only/stage.json")][0]
    assert same(weights, last_checkpoint(out / "source_only"))
    assert (out / "source_only/notes.txt").read_text() == "mine"
    assert actions(recipe, out) == ["skip", "skip", "skip"]


def test_a_link_to_elsewhere_and_a_folder_that_is_no_run_are_left_alone(
    finished: Path, recipe: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run(recipe, out, choice=Choice(("source_only",)))
    (out / "source_only").rename(elsewhere)
    (out / "source_only").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="is a link, and its target will not be deleted"):
        run(recipe, out, choice=Choice(("source_only",), fresh=True), yes=True)
    assert (elsewhere / "model.safetensors").is_file()
    (tmp_path / "other disk").mkdir()
    (out / "sean").symlink_to(tmp_path / "other disk")
    run(recipe, out, choice=Choice(("sean",)))
    assert (tmp_path / "other disk/model.safetensors").is_file()
    mine = tmp_path / "mine"
    (mine / "source_only").mkdir(parents=True)
    (mine / "source_only/model.safetensors").write_bytes(b"mine")
    (mine / "recipe.yaml").write_text("a recipe of one's own is no run")
    with pytest.raises(UsageError, match="not empty and is not a run"):
        run(recipe, mine, choice=Choice(fresh=True), yes=True)
    assert (mine / "source_only/model.safetensors").read_bytes() == b"mine"


# --- one command at a time ---

HOLDER = """
import sys
from pathlib import Path
from segadapt.pipeline.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_command_in_the_folder_is_refused_and_a_kill_frees_it(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(
        UsageError, match=rf"another command is running in this folder \(process {holder.pid} on "
    ) as told:
        run(recipe, out, choice=Choice(("source_only",)))
    assert told.value.exit_code == 2 and [path.name for path in out.iterdir()] == [".lock"]
    run(recipe, out, dry_run=True)
    holder.kill()
    holder.communicate()
    with locked(out):
        pass

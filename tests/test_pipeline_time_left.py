"""The time that a run still takes: estimates, corrected by what was measured; and where a person sees it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from planning import planned
from segadapt.errors import SegadaptError
from segadapt.pipeline import run_page, show
from segadapt.pipeline.costs import costs
from segadapt.pipeline.show import Display
from segadapt.pipeline.time_left import TimeLeft
from segadapt.report.page import Underway, is_underway, write_report
from segadapt.stages.context import Run
from segadapt.stages.evaluate import Evaluate
from segadapt.stages.stage import Cost, Work
from tiny_runs import run, tree, write_data, write_recipe


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def updates(left: TimeLeft, clock: Clock, first: int, last: int, steps: int, seconds: float) -> None:
    """Updates first … last of `steps`, `seconds` each."""
    for step in range(first, last + 1):
        clock.now += seconds
        left.update(step, steps)


def test_the_time_left_is_the_estimate_at_first_and_what_is_measured_later() -> None:
    clock = Clock()
    expected = {"a": Cost(100, 10, images=10), "b": Cost(200, 20, images=20), "c": Cost(0, 30, images=5)}
    whole = TimeLeft(list(expected), lambda: expected, clock)
    assert whole.left() == pytest.approx(360)
    whole.begin("a")
    updates(whole, clock, 1, 50, 100, seconds=3)  # three times as slow as was estimated
    measured = whole.left()
    assert measured is not None and measured == pytest.approx(3 * 250 + 60, rel=0.1)
    updates(whole, clock, 51, 100, 100, seconds=3)
    for number in range(1, 11):
        clock.now += 0.5  # half of what was estimated
        whole.image(number)
    whole.begin("b")
    clock.now += 40  # loading
    updates(whole, clock, 1, 1, 100, seconds=0)
    after = whole.left()
    # b's updates three times, all images half as long as estimated, and before c begins half of what was loaded so far
    assert after is not None and after == pytest.approx(3 * 198 + 25 + 43.5 / 2, rel=0.1)
    updates(whole, clock, 2, 100, 100, seconds=1)  # b is quicker than a, which b's own time shows
    for number in (*range(1, 11), *range(1, 11)):  # two passes
        whole.image(number)
    whole.begin("c")
    for number in range(1, 6):
        whole.image(number)
    assert whole.left() == pytest.approx(0)


def test_a_stage_that_resumes_counts_what_is_left_of_it() -> None:
    clock, expected = Clock(), {"a": Cost(50)}
    whole = TimeLeft(["a"], lambda: expected, clock)
    whole.begin("a")
    updates(whole, clock, 951, 975, 1000, seconds=1)
    assert whole.left() == pytest.approx(25)


def test_without_an_estimate_there_is_no_time_left() -> None:
    def broken() -> dict[str, Cost]:
        raise SegadaptError("is broken", where="model", remedy="")

    whole = TimeLeft(["a"], broken)
    whole.begin("a")
    whole.update(1, 2)
    assert whole.left() is None


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings and an evaluation."""
    folder = tmp_path_factory.mktemp("recipe")
    stages: dict[str, dict[str, Any]] = {
        "first": {"method": "source_only", "steps": 2},
        "second": {"method": "source_only", "steps": 2, "lr": 2e-3},
        "views": {"method": "evaluate", "model": "@second"},
    }
    return write_recipe(folder / "recipe.yaml", tree(write_data(folder / "data"), **stages))


@pytest.fixture(autouse=True)
def _known_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segadapt.stages.estimate.conv_rate", lambda _: 1e10)


def test_the_parts_of_a_cost(recipe: Path, tmp_path: Path) -> None:
    about, stages = planned(recipe, tmp_path / "run")
    found = costs(about, list(stages.values()))
    assert found["first"].updating > 0 and found["first"].images == 4  # two val pictures per domain
    assert found["views"].updating == 0 and found["views"].images == 2 and found["views"].seeing > 0


def test_a_run_shows_its_time_left_and_a_page_as_its_stages_end(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines as in a log file; pages as of a run whose stages are long."""
    pages: list[tuple[str, int, int] | None] = []

    def noted(folder: Path, out: Path, *, device: str, underway: Underway | None, sample: int) -> Path:
        pages.append(None if underway is None else (underway.stage, underway.number, underway.stages))
        assert underway is None or "all stages: about" in underway.note
        if underway is not None and underway.stage == "views":
            raise SegadaptError("no space left", where=out, remedy="")
        done = [
            path.parent.name for path in folder.glob("*/stage.json") if json.loads(path.read_text())["state"] == "done"
        ]
        assert len(done) == (3 if underway is None else underway.number - 1)
        return write_report(folder, out, images=0, device=device, underway=underway, sample=sample)

    monkeypatch.setattr(run_page, "write_report", noted)
    monkeypatch.setattr(run_page, "EVERY", 0.0)
    monkeypatch.setattr(show, "EVERY", 0.0)
    run(recipe, tmp_path / "run")
    said = capfd.readouterr().err
    assert "second  1/2  all stages: about" in said
    assert "warning: the report of the results so far could not be written: " in said  # and the run went on
    assert pages == [("second", 2, 3), ("views", 3, 3), None]
    assert not is_underway(tmp_path / "run/report.html")


def test_the_page_of_a_run_that_stops_no_longer_says_that_it_is_at_work(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "run/report.html"
    before: list[str] = []

    def broken(_: Evaluate, work: Work) -> None:
        assert is_underway(page)
        before.append(page.read_text())
        raise SegadaptError("broken", where=work.name, remedy="")

    done = Evaluate.do
    monkeypatch.setattr(Evaluate, "do", broken)
    with pytest.raises(SegadaptError, match="broken"):
        run(recipe, tmp_path / "run", "stages.first=null")
    (written,) = before
    assert not is_underway(page) and "In progress" not in page.read_text() and 'http-equiv="refresh"' in written
    assert len(page.read_text()) > 0.9 * len(written)  # all else is as it was
    monkeypatch.setattr(Evaluate, "do", done)
    page.write_text(written)  # as a kill would leave it
    run(recipe, tmp_path / "run", "stages.first=null")
    assert not is_underway(page) and "views: not finished" not in page.read_text()


@pytest.mark.parametrize(
    ("seconds", "pages"),
    [
        ({"a": 1.0, "b": 1.0, "c": 1.0}, ["b", None]),  # short stages share a page
        ({"a": 1.0, "b": 1.0, "c": 1000.0}, ["b", "c", None]),  # which a long one does not let them wait for
        ({}, ["b", "c", None]),  # nobody knows how long they take
    ],
)
def test_there_is_a_page_after_the_first_stage_and_before_each_long_one(
    seconds: dict[str, float], pages: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And at a stop, whatever has ended since the last page."""
    written: list[str | None] = []

    def noted(folder: Path, *_: Any, underway: Underway | None, **__: Any) -> None:
        written.append(None if underway is None else underway.stage)

    monkeypatch.setattr(run_page, "write_report", noted)
    display = Display(main=False)
    display.follow(TimeLeft(["a", "b", "c"], lambda: {name: Cost(seconds[name]) for name in seconds}))
    place = SimpleNamespace(is_main=True, device="cpu")
    page = run_page.RunPage(cast(Run, SimpleNamespace(folder=tmp_path, runtime=place)), ["a", "b", "c"], display)
    page.stop()  # as a stop in stage a would: there is nothing to see
    for stage in "abc":
        page.before(stage)
        page.after()
    page.stop()
    page.stop()  # which has been shown
    assert written == pages

"""A run in sections, as HTML: what its report shows, one view and one stage at a time."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Literal, get_args

from segadapt.app.choices import Choices
from segadapt.app.networks import Networks
from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import SegadaptError, UsageError, nearest
from segadapt.inference.predictor import Predictor
from segadapt.report import page, stages, tables
from segadapt.report.cards import cards, last_adapted
from segadapt.report.curves import training_panels
from segadapt.report.extremes import worst_and_best
from segadapt.report.images import Budget, prediction_rows
from segadapt.report.looking import Looking, open_target
from segadapt.report.mistakes import confused_pairs, difference_table
from segadapt.report.records import RunRecord, StageRecord, read_run

View = Literal["Overview", "Classes", "Curves", "Images", "Files made"]
VIEWS: tuple[View, ...] = get_args(View)
WITH_NETWORKS: tuple[View, ...] = ("Images",)
"""Views that are queued, since they need networks."""
WITH_IMAGES: tuple[View, ...] = ("Images", "Files made")
"""Views with an adjustable number of images."""
NO_SCORES = (
    "Nothing here was scored image by image, so the worst and best are not known (no labels, or an older run: "
    "<code>segadapt evaluate</code> scores it anew). Evenly spread images instead:"
)


def stages_of(run: RunRecord, view: View) -> list[str]:
    """The stages that have something to show in a view, in order."""
    shows: dict[View, Callable[[StageRecord], bool]] = {
        "Overview": lambda stage: False,
        "Classes": lambda stage: stage.domain("target") is not None or stage.domain("source") is not None,
        "Curves": lambda stage: bool(stage.metrics),
        "Images": lambda stage: stage.model is not None and stage.role != "helper",
        "Files made": lambda stage: stage.kind is not None and stage.kind.exhibit(stage.settings) is not None,
    }
    return [stage.name for stage in run.stages if shows[view](stage)]


def first_stage(run: RunRecord, view: View) -> str | None:
    """The stage shown first: the run's answer if the view has it, else the last one."""
    names, answer = stages_of(run, view), last_adapted(run)
    return answer.name if answer is not None and answer.name in names else names[-1] if names else None


def run_html(choices: Choices, networks: Networks, name: str, view: View, stage: str | None, count: int) -> str:
    """One view of a run, re-read since it may be in progress. `count` is the number of images of each kind.

    Raises UsageError for an unknown name, or a folder that is no longer a run.
    """
    run, problems = open_run(choices, name), []  # type: tuple[RunRecord, list[str]]
    if view == "Overview":
        return _html(name, _overview(run), problems)
    found = next((one for one in run.stages if one.name == stage and stage in stages_of(run, view)), None)
    if found is None:
        return _html("", [f"<p>No stage of this run has anything to show here ({escape(view.lower())}).</p>"], [])
    match view:
        case "Classes":
            parts = _classes(run, found)
        case "Curves":
            parts = [f'<p class="muted">{escape(page.STAGES_SAID)}</p>', stages.curves("app", training_panels(found))]
        case "Images":
            parts = _images(run, found, networks, choices.of_run(name), count, problems)
        case "Files made":
            exhibit = None if found.kind is None else found.kind.exhibit(found.settings)
            assert exhibit is not None  # checked by `stages_of`
            parts = [stages.exhibited(run, found, exhibit, _space(run), count, Budget())]
    return _html(f"{name} · {found.name}", parts, problems)


def open_run(choices: Choices, name: str) -> RunRecord:
    """A run by its name, in its current state. Raises UsageError as `run_html`."""
    if name not in choices.runs:
        raise UsageError(f"there is no run '{name}'", where="runs", remedy=nearest(name, list(choices.runs)))
    return read_run(choices.runs[name])


def _html(title: str, parts: list[str], problems: list[str]) -> str:
    head = f"<h2>{escape(title)}</h2>" if title else ""
    notes = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    noted = f'<section class="notes"><ul>{notes}</ul></section>' if notes else ""
    return f'<div class="report">{head}{"".join(parts)}{noted}</div>'


def _overview(run: RunRecord) -> list[str]:
    notes = "".join(f"<li>{escape(problem)}</li>" for problem in (*run.missing, *run.to_do))
    return [
        f'<p class="muted">{escape(str(run.recipe.get("description") or ""))}</p>',
        cards(run),
        _titled("Scores", page.SCORES_SAID, tables.summary_table(run)),
        _titled("Stages", page.COSTS_SAID, stages.overview(run)),
        _titled("IoU per class", page.CLASSES_SAID, tables.class_table(run, _space(run))),
        f'<h3>What is missing here</h3><ul class="muted">{notes}</ul>' if notes else "",
    ]


def _space(run: RunRecord) -> LabelSpace | None:
    """The classes with their colours, if available."""
    try:
        return run.label_space()
    except SegadaptError:
        return None


def _titled(title: str, said: str, content: str) -> str:
    return f'<h3>{title}</h3><p class="muted">{escape(said)}</p>{content}' if content else ""


def _classes(run: RunRecord, stage: StageRecord) -> list[str]:
    """A stage's gains and losses per class, its most confused pairs, its confusion matrices."""
    space = _space(run)
    parts = {
        "IoU compared with source-only, the largest gain first": difference_table(run, stage, space),
        "Most confused: a class, and what its pixels are taken for": confused_pairs(run, stage, space),
    }
    tabled = "".join(f"<div><h3>{title}</h3>{table}</div>" for title, table in parts.items() if table)
    matrices = []
    for domain in ("target", "source", *stage.parts):
        scores = stage.domain(domain)
        if scores is not None and "confusion" in scores:
            title = f"Confusion on {escape(domain)}: rows are labels, columns predictions, in percent of the row"
            matrices.append(f"<h3>{title}</h3>{tables.confusion_table(scores)}")
    return [f'<div class="two">{tabled}</div>' if tabled else "", *matrices]


def _images(
    run: RunRecord, stage: StageRecord, networks: Networks, names: dict[str, str], count: int, problems: list[str]
) -> list[str]:
    """The worst and the best images, or evenly spread ones if there are no scores of single images.

    For a target without labels: the report's section on it, for all compared stages.
    """
    try:
        space = run.label_space()
        domain, dataset = open_target(run, space)
    except (SegadaptError, OSError) as error:
        problems.append(f"no images: the target data is not on this machine ({error})")
        return []
    budget = Budget()
    if dataset.labels is None:
        predictors = _predictors(networks, names, [one.name for one in run.compared()])
        looking = Looking(space, domain, dataset, predictors)
        sections = page.without_labels(run, looking, count, page.SAMPLE, budget, problems)
        return [_titled(section.title, section.text, section.content) for section in sections]
    looking = Looking(space, domain, dataset, _predictors(networks, names, [stage.name]))
    legend = tables.legend(space)
    worst, best = worst_and_best(looking, stage, run.first("baseline"), count, budget, problems)
    if not worst and not best:
        return [f"<p>{NO_SCORES}</p>", legend, page.rows_of_pictures(prediction_rows(looking, count, budget, problems))]
    return [
        f'<p class="muted">By the mIoU of each image. {escape(page.MISTAKES_SAID)}</p>{legend}',
        f"<h3>Worst</h3>{page.rows_of_pictures(worst)}",
        f"<h3>Best</h3>{page.rows_of_pictures(best)}",
    ]


def _predictors(
    networks: Networks, names: dict[str, str], wanted: list[str]
) -> dict[str, tuple[Predictor, LabelSpace]]:
    """By stage, for stages whose model the app has."""
    found = {stage: networks.segmenter(names[stage]) for stage in wanted if stage in names}
    return {stage: (one.predictor, one.space) for stage, one in found.items()}


def sample_image(choices: Choices, name: str, number: int) -> Path:
    """The next image of a run's target. Raises SegadaptError if its data is missing."""
    run = open_run(choices, name)
    _, dataset = open_target(run, run.label_space())
    return dataset.pairs[(number * 7) % len(dataset)].image

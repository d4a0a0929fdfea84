"""One self-contained HTML page about a run: opens from disk without a network, even if stages or data are missing."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

import yaml

from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import SegadaptError
from segadapt.files import need_writable, write_text
from segadapt.inference.model import RECIPE
from segadapt.report import tables, unlabelled
from segadapt.report.cards import cards, last_adapted, with_labels
from segadapt.report.extremes import worst_and_best
from segadapt.report.images import Budget, Row, figures, prediction_rows
from segadapt.report.looking import Looking, look
from segadapt.report.mistakes import confused_pairs, difference_table
from segadapt.report.over_seeds import over_seeds
from segadapt.report.records import RunRecord, StageRecord, digest_of_results, mapping, read_run
from segadapt.report.reliability import diagrams
from segadapt.report.stages import overview, stage_by_stage
from segadapt.version import __version__

TEMPLATE = Path(__file__).with_name("page.html")
MARK_WITHIN = 4096  # bytes of the page's head, which holds the digest of its inputs
ACROSS = 4  # pictures side by side
EXTREMES = 3  # images of each kind at most: worst, best, least agreement
SAMPLE = 16  # unlabelled target images for predictions
RELOAD = 10  # seconds between reloads of the page of a run in progress
UNDERWAY = re.compile("<!-- underway -->.*?<!-- /underway -->\n?", re.DOTALL)
"""What a page contains only until its run has finished."""


@dataclass(frozen=True)
class Underway:
    """What an unfinished run is doing."""

    stage: str  # running now
    number: int  # of this stage, from 1
    stages: int  # in all
    note: str = ""  # such as the time left, in words


def write_report(
    run: Path,
    out: Path | None = None,
    images: int = 4,
    device: str = "cpu",
    underway: Underway | None = None,
    sample: int = SAMPLE,
    beside: Sequence[Path] = (),
) -> Path:
    """Write the page about the run folder `run` to `out` (`run/report.html` by default) and return its path.

    `images` target images are shown with the predictions of the compared stages, made on `device`, and up to that many
    of each stage that makes files. On a target without labels the models predict `sample` images for the section on it
    (0: none). `underway`: the run is still running; the page says so and reloads itself. `beside`: other runs to
    compare its scores with, such as other seeds.
    Raises UsageError when `run` is not a run folder, or one of the others cannot be compared with it.
    """
    made_from = digest_of_results(run)  # first: later changes make the page out of date
    record = read_run(run)
    out = run / "report.html" if out is None else out
    need_writable(out)
    problems = [*record.missing, *([] if underway else record.to_do)]
    try:
        space = record.label_space()
    except SegadaptError as error:
        problems.append(f"no class colours: {error}")
        space = None
    sections = _sections(record, space, images, sample, device, problems)
    if beside:
        together = over_seeds(record, [read_run(other) for other in beside])
        sections.insert(1, Section("Beside other runs", _BESIDE, together))
    if underway is None and not record.to_do:  # for a finished run, results come first
        sections.insert(-1, sections.pop(0))
    ordered = [section for section in (*sections, *_background(record)) if section.content]
    name = run.resolve().name
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{name}: segadapt report"),
        made_from=made_from,
        reload=_only_underway(f'<meta http-equiv="refresh" content="{RELOAD}">') if underway else "",
        header=_header(name, record),
        contents=_contents(ordered),
        body="\n".join([_underway(underway), cards(record), _notes(problems), *(one.html() for one in ordered)]),
        footer=f"Written by segadapt {__version__}.",
    )
    write_text(out, page)
    return out


@dataclass(frozen=True)
class Section:
    """A section of the page; one without content is left out."""

    title: str
    text: str
    content: str

    @property
    def anchor(self) -> str:
        """The anchor for links."""
        return re.sub("[^a-z]+", "-", self.title.lower())

    def html(self) -> str:
        """The section's HTML."""
        said = f"<p>{escape(self.text)}</p>" if self.text else ""
        return f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>{said}{self.content}</section>'


def _sections(
    run: RunRecord, space: LabelSpace | None, images: int, sample: int, device: str, problems: list[str]
) -> list[Section]:
    """The stages and their results: scores first, then pictures; and how each stage went."""
    budget = Budget()
    answer = last_adapted(run) or run.first("baseline")
    found = [
        Section("Stages", COSTS_SAID, overview(run)),
        Section("Scores", SCORES_SAID, tables.summary_table(run)),
        Section("IoU per class", CLASSES_SAID, tables.class_table(run, space)),
    ]
    if answer is not None:
        parts = {_GAINED: difference_table(run, answer, space), _PAIRS: confused_pairs(run, answer, space)}
        tabled = "".join(f"<div><h3>{title}</h3>{table}</div>" for title, table in parts.items() if table)
        shown = f'<div class="two">{tabled}</div>' if tabled else ""
        found.append(
            Section("Gained, lost, confused", f"{answer.name}{with_labels(answer)}, on the target, in percent.", shown)
        )
    stages = stage_by_stage(run, space, images, budget)  # before the predictions, which take what is left
    looking = look(run, device, problems) if images or sample else None
    if looking is not None and looking.labelled and answer is not None:
        extremes = worst_and_best(looking, answer, run.first("baseline"), min(images, EXTREMES), budget, problems)
        titled = zip(("Worst", "Best"), extremes, strict=True)
        shown = "".join(f"<h3>{title}</h3>{rows_of_pictures(rows)}" for title, rows in titled if rows)
        text = f"By the mIoU of each image, of {answer.name}. {MISTAKES_SAID}"
        found.append(Section("Worst and best images", text, shown))
    if looking is not None and not looking.labelled and sample:
        found[1:1] = without_labels(run, looking, images, sample, budget, problems)  # before scores on the source
    rows = prediction_rows(looking, images, budget, problems) if looking is not None else []
    return [
        *found,
        Section("Predictions", _PICTURES, rows_of_pictures(rows, space)),
        Section("Calibration", _CALIBRATION, diagrams(run)),
        Section("Choosing without labels", _LABEL_FREE, tables.label_free_table(run)),
        Section("Stage by stage", STAGES_SAID, stages),
    ]


def without_labels(
    run: RunRecord, looking: Looking, images: int, sample: int, budget: Budget, problems: list[str]
) -> list[Section]:
    """What can be said about a target that has no labels."""
    try:
        seen = unlabelled.see(looking, sample)
    except SegadaptError as error:
        problems.append(f"nothing about the target without labels: {error}")
        return []
    if seen is None:
        return []
    on = f"{seen.images} of {seen.of} target images, evenly spread. "
    rows = unlabelled.worst_agreed(looking, seen, min(images, EXTREMES), budget, problems)
    return [
        Section("Without labels", on + _UNLABELLED, unlabelled.summary_table(run, seen)),
        Section("Class shares", on + _SHARES, unlabelled.shares_table(looking, run, seen)),
        Section("Disagreement of stages", on + _DISAGREEMENT, unlabelled.disagreement_table(seen)),
        Section("Least agreed images", "Look at these first. " + on, rows_of_pictures(rows, looking.space)),
    ]


def _background(run: RunRecord) -> list[Section]:
    return [
        Section("Confusion", _CONFUSION, _confusions(run)),
        Section("What was run", "", _what(run)),
        Section("Do it again", "", _commands(run)),
    ]


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<a href="#{one.anchor}">{escape(one.title)}</a>' for one in sections)
    return f'<nav aria-label="contents">{links}</nav>'


def styles() -> str:
    """The page's style sheet, for showing parts of it elsewhere."""
    return TEMPLATE.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]


def is_current(report: Path, run: Path) -> bool:
    """Whether the page was made from the run folder's current results, whatever the file times."""
    try:
        with report.open("rb") as file:
            head = file.read(MARK_WITHIN)
    except OSError:
        return False
    return digest_of_results(run).encode() in head


def is_underway(page: Path) -> bool:
    """Whether a page says that the run has not finished, which its head also records."""
    try:
        with page.open("rb") as file:
            return UNDERWAY.search(file.read(4096).decode(errors="replace")) is not None
    except OSError:
        return False


def settle(page: Path) -> None:
    """Remove from a page what it contains only while its run is in progress: the run has stopped."""
    if is_underway(page):
        write_text(page, UNDERWAY.sub("", page.read_text(encoding="utf-8")))


def _only_underway(content: str) -> str:
    return f"<!-- underway -->{content}<!-- /underway -->"


def _underway(run: Underway | None) -> str:
    """A note that the run is in progress, with its stage."""
    if run is None:
        return ""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    text = f"Stage {run.number} of {run.stages}, <b>{escape(run.stage)}</b>, is running"
    said = f"{text}; {escape(run.note)}" if run.note else text
    hint = f"As of {now}. The page is rewritten as stages finish, and reloads itself every {RELOAD} seconds."
    return _only_underway(f'<section class="underway"><h2>In progress</h2><p>{said}.</p><p>{hint}</p></section>')


SCORES_SAID = (
    "Percent, one confusion matrix over all images; a class in neither labels nor predictions is left out. "
    "Gain = (adapted − source-only) / (target-trained − source-only), only between rows scored in the same way. "
    "These are numbers of one seed; another would give different ones (segadapt compare combines several)."
)
_BESIDE = (
    "Percent on the target; runs that differ only in the seed are grouped: mean ± standard deviation. Small: the 95 % "
    "interval of the mean over seeds (Student's t), for differences within each seed."
)
CLASSES_SAID = (
    "IoU on the target in percent. Adapted columns are tinted by their difference to source-only; "
    "bold is the best model that used no target labels."
)
_GAINED = "IoU compared with source-only, the largest gain first"
_PAIRS = "Most confused: a class, and what its pixels are taken for"
MISTAKES_SAID = "Red: wrong; black: ignored. A click enlarges a picture."
_PICTURES = "Target images, evenly spread. Black is ignored. Attention: bright is high. A click enlarges a picture."
_CALIBRATION = (
    "How often the model is right (line) at each level of confidence; pale: the share of the pixels. On the dashed "
    "line its confidence can be trusted; below it, it is overconfident. ECE, the expected calibration error: the mean "
    "distance from that line."
)
STAGES_SAID = (
    "Losses are unweighted means over a batch; pale: raw values, strong: moving mean. Black in a pseudo-label: none."
)
COSTS_SAID = (
    "Time is that of all commands that worked on the stage, evaluation included; images per second are those of "
    "updates (of one domain) or of a pass; memory is the peak, on a GPU that of tensors."
)
_LABEL_FREE = (
    "Criteria that use target images but no labels: InfoMax, H(mean p) − mean H(p); snd, the density of soft "
    "neighbourhoods; bnm, the nuclear norm of all predictions. ρ says how well one ranked the evaluations of a "
    "training by their target mIoU: 1 perfectly, 0 not at all. With few evaluations (pale) it says little: three are "
    "in perfect order by chance once in six times, four once in 24."
)
_UNLABELLED = (
    "The target has no labels here, so nothing is scored. A model that adapts well is usually more confident, "
    "without giving up classes; but so are many that adapt badly. The criteria (higher is better, bold the highest) "
    "are guesses, and snd on its own prefers one class everywhere. infomax: confident pixels, many classes; snd: dense "
    "clusters of similar pixels; bnm: confident and varied. Trust the shares and pictures below more than any of these "
    "numbers."
)
_SHARES = (
    "Each class's share of all pixels; small: the difference to source-only. A class that vanishes, thin and rare "
    "classes that lose half of their share, or a class that grows implausibly are the first signs of a training that "
    "went wrong."
)
_DISAGREEMENT = "Percentage of the pixels in which the labels of two stages differ."
_CONFUSION = "Rows are labels, columns predictions, in percent of the row."


def _layouts(side: object) -> str:
    """The layouts of a recipe's source or target."""
    domains = side if isinstance(side, list) else [side]
    return " + ".join(str(mapping(domain).get("layout", "?")) for domain in domains)


def _header(name: str, run: RunRecord) -> str:
    data = mapping(run.recipe.get("data"))
    layouts = [_layouts(data.get(side)) for side in ("source", "target")]
    environment = run.environment
    facts = {
        "adapts": " → ".join(layouts) if data else "",
        "label space": run.recipe.get("label_space", ""),
        "seed": run.recipe.get("seed", ""),
        "started": environment.get("started", ""),
        "device": environment.get("device", ""),
        "precision": environment.get("precision", ""),
        "segadapt": environment.get("segadapt", ""),
        "torch": environment.get("torch", ""),
    }
    listed = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in facts.items() if value != ""
    )
    description = escape(str(run.recipe.get("description") or ""))
    return f'<h1>{escape(name)}</h1><p class="muted">{description}</p><dl class="facts">{listed}</dl>'


def _notes(problems: list[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f'<section class="notes"><h2>What is missing here</h2><ul>{items}</ul></section>'


def rows_of_pictures(rows: Sequence[Row], space: LabelSpace | None = None) -> str:
    """Rows of pictures, each below its name, and the colours of the classes."""
    if not rows:
        return ""
    parts = [tables.legend(space)] if space is not None else []
    for row in rows:
        lines = -(-len(row.pictures) // ACROSS)
        across = -(-len(row.pictures) // lines)  # lines of about the same length
        parts.append(f"<h4>{escape(row.name)}</h4>{figures(row.pictures, across)}")
    return "".join(parts)


def _confusions(run: RunRecord) -> str:
    parts = []
    for stage in run.stages:
        for domain in ("target", "source", *stage.parts):
            scores = stage.domain(domain)
            if scores is not None and "confusion" in scores:
                title = escape(f"{stage.name} on {domain} {scores.get('split', '')}")
                parts.append(f"<details><summary>{title}</summary>{tables.confusion_table(scores)}</details>")
    return "".join(parts)


def _what(run: RunRecord) -> str:
    parts = []
    for title, content in (("Recipe, all settings written out", run.recipe), ("Environment", run.environment)):
        if content:
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
            parts.append(f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>")
    hashes = "".join(_model_line(stage) for stage in run.stages)
    if hashes:
        parts.append(f"<details><summary>Models</summary><pre>{hashes}</pre></details>")
    return "".join(parts)


def _model_line(stage: StageRecord) -> str:
    evaluation = stage.evaluation or {}
    if "model_sha256" not in evaluation:
        return ""
    return escape(f"{stage.name}/{evaluation.get('model')}  sha256 {evaluation['model_sha256']}\n")


def _commands(run: RunRecord) -> str:
    folder = shlex.quote(str(run.folder))
    lines = []
    if run.environment.get("command"):
        lines += ["# as it was started", str(run.environment["command"])]
    if run.recipe:
        lines += ["# the same again, from the settings written out", f"segadapt run {folder}/{RECIPE} --out NEW_FOLDER"]
    lines += ["# scores and this page, from the models that are there"]
    lines += [f"segadapt evaluate {folder} --out scores.json", f"segadapt report {folder}"]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"

"""The numbers at the top of the page: source-only, adapted, target-trained, and how much of the gap is closed.

A run that adapts without target labels and with a few of them has both results there, and each says which it is.
"""

from html import escape

from segadapt.report import tables
from segadapt.report.gains import gain
from segadapt.report.records import RunRecord, StageRecord

TITLES = {"baseline": "source only", "adapted": "adapted", "upper_bound": "target trained (upper bound)"}
_CLOSED = "of the gap between source only and target trained closed"


def cards(run: RunRecord) -> str:
    """A card for each of these results, then one for each share of the gap."""
    last = (last_adapted(run, without_labels=True), last_adapted(run))
    adapted = list({stage.name: stage for stage in last if stage is not None}.values())
    found = []
    for stage in (run.first("baseline"), *adapted, run.first("upper_bound")):
        if stage is not None:
            text = f"target mIoU, {TITLES[stage.role]}: {stage.name}{with_labels(stage)}"
            found.append(_card(stage.role, tables.number(stage.miou(), 1), text))
    for stage in adapted:
        share = gain(run, stage)
        if share is not None:
            by = f": {stage.name}{with_labels(stage)}" if len(adapted) > 1 or with_labels(stage) else ""
            text = f"{_CLOSED}, by this one seed{by}"
            found.append(
                _card("adapted", tables.percent(share), text if share >= 0 else f"{text}: worse than source only")
            )
    return f'<div class="cards">{"".join(found)}</div>' if found else ""


def last_adapted(run: RunRecord, without_labels: bool = False) -> StageRecord | None:
    """The run's answer: the last adapted stage that is scored; or the last known to have used no target labels."""
    scored = (stage for stage in reversed(run.of("adapted")) if stage.miou() is not None)
    return next((stage for stage in scored if not without_labels or tables.used_labels(stage) is False), None)


def with_labels(stage: StageRecord) -> str:
    """What is said beside the name of a stage, other than the upper bound, whose model used target labels."""
    return ", with target labels" if stage.role != "upper_bound" and tables.used_labels(stage) else ""


def _card(kind: str, value: str, text: str) -> str:
    return f'<div class="card {kind}"><b>{escape(value)}</b><span>{escape(text)}</span></div>'

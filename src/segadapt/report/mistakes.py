"""What a model confuses, and what it gains and loses compared with source-only, class by class."""

from html import escape

import numpy as np

from segadapt.data.label_spaces import LabelSpace
from segadapt.report import tables
from segadapt.report.records import RunRecord, StageRecord

PAIRS = 10


def confused_pairs(run: RunRecord, stage: StageRecord, space: LabelSpace | None) -> str:
    """The most frequent mistakes: a class, what it is predicted as, and how often; source-only beside it."""
    scores = stage.domain("target") or {}
    if not scores.get("confusion"):
        return ""
    counts = np.array(scores["confusion"], np.float64)
    baseline = run.first("baseline")
    before = np.array((baseline.domain("target") or {}).get("confusion") or [], np.float64) if baseline else None
    if before is not None and (before.shape != counts.shape or baseline is stage):
        before = None
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    names, columns = list(scores["per_class"]), list(scores["columns"])
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]:
        label, predicted = np.unravel_index(place, wrong.shape)
        if wrong[label, predicted] == 0:
            break
        share = 100 * counts[label, predicted] / counts[label].sum()
        cells = {
            "class": tables.swatch(names[label], space) + escape(names[label]),
            "taken for": tables.swatch(columns[predicted], space) + escape(columns[predicted]),
            "of all mistakes": tables.bar(100 * wrong[label, predicted] / wrong.sum(), 100 * wrong.max() / wrong.sum()),
            "of the class": tables.number(share, 1),
        }
        if before is not None:
            total = before[label].sum()
            cells["source only"] = tables.number(100 * before[label, predicted] / total if total else None, 1)
        rows.append(tables.Row(cells))
    return tables.table(rows)


def difference_table(run: RunRecord, stage: StageRecord, space: LabelSpace | None) -> str:
    """IoU per class compared with source-only, the largest gain first, as bars to both sides."""
    baseline = run.first("baseline")
    if baseline is None or baseline is stage:
        return ""
    before, after = ((one.domain("target") or {}).get("per_class") or {} for one in (baseline, stage))
    found = [
        (now - then, name, then, now)
        for name, now in after.items()
        if now is not None and (then := before.get(name)) is not None
    ]
    most = max((abs(difference) for difference, *_ in found), default=0) or 1
    rows = [
        tables.Row(
            {
                "class": tables.swatch(name, space) + escape(name),
                "difference": f"<b>{difference:+z.1f}</b>".replace("-", "−"),
                "": _both_ways(difference / most),
                escape(baseline.name): tables.number(then, 1),
                escape(stage.name): tables.number(now, 1),
            }
        )
        for difference, name, then, now in sorted(found, key=lambda one: -one[0])
    ]
    return tables.table(rows)


def _both_ways(share: float) -> str:
    """A bar from the middle to the right, for a negative share to the left; -1 … 1."""
    side, kind = (50, "better") if share >= 0 else (50 + 50 * share, "worse")
    return f'<span class="ways"><i class="{kind}" style="left: {side:.1f}%; width: {50 * abs(share):.1f}%"></i></span>'

"""The report's tables: one row per stage, one row per class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from segadapt.data.label_spaces import LabelSpace
from segadapt.evaluation.criteria import CRITERIA
from segadapt.evaluation.evaluate import completed
from segadapt.plain_data import Json
from segadapt.report.gains import gain
from segadapt.report.records import RunRecord, StageRecord, mapping

NOTHING = "–"
RANGE = "0 … 100"
ENOUGH_POINTS = 5
"""Fewer evaluations are in perfect order by chance more than once in a hundred times: four of them once in 24."""
FULL_TINT = 20.0  # percentage points of difference that give a cell its strongest tint
TEXT_COLUMNS = {"stage", "method", "state", "result", "model kept", "target labels", "criterion", "taken for", RANGE}
"""Aligned left."""
BADGE = '<span class="badge">used target labels</span>'
GAIN = "gain: share of the gap closed"


@dataclass(frozen=True)
class Row:
    """Cells as HTML by column, and the CSS class of the row; `tints` are styles of single cells."""

    cells: dict[str, str]
    kind: str = ""
    tints: dict[str, str] | None = None


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell; a dash for None and NaN."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in percent, whole; a dash for None."""
    return NOTHING if share is None else f"{share:.0f} %".replace("-", "−")


def summary_table(run: RunRecord) -> str:
    """One row per scored stage: how its model was chosen, whether it used target labels, its gain."""
    stages = [stage for stage in run.stages if stage.evaluation]
    targets = [stage.domain("target") or {} for stage in stages]
    parts = list(dict.fromkeys(name for stage in stages for name in stage.parts))
    subsets = list(dict.fromkeys(name for target in targets for name in target.get("subsets") or {}))
    rows = []
    for stage, target in zip(stages, targets, strict=True):
        evaluation, share = stage.evaluation or {}, gain(run, stage)
        used = evaluation.get("used_target_labels")
        kept = str(evaluation.get("selection") or NOTHING).replace("_", " ")
        scores = completed(target)
        on_target = {
            "mIoU target": f"<b>{number(target.get('miou'))}</b>",
            "gain": percent(share),
            **{escape(name): number((target.get("subsets") or {}).get(name)) for name in subsets},
            "Dice": number(scores.get("dice")),
            "pixel accuracy": number(scores.get("pixel_accuracy")),
        }
        cells = {
            "stage": f'<span class="dot"></span>{escape(stage.name)}{_how(stage, target)}',
            **(on_target if any(targets) else {}),
            "mIoU source": number(stage.miou("source")),
            **{f"mIoU {escape(name)}": number(stage.miou(name)) for name in parts},
            "model kept": f"{escape(kept)}<small>step {escape(str(evaluation.get('step') or NOTHING))}</small>",
            "target labels": BADGE if used else "none" if used is False else "not known",
        }
        rows.append(Row(cells, stage.role))
    return table(rows, wide=True)


def class_table(run: RunRecord, space: LabelSpace | None) -> str:
    """IoU per class: source-only, adapted with the difference, target-trained, and the gain of each adapted one.

    In bold the best of the models that used no target labels.
    """
    columns = [stage for stage in run.compared() if stage.domain("target")]
    if not columns:
        return ""
    scores = {stage.name: (stage.domain("target") or {}).get("per_class") or {} for stage in columns}
    names = list(dict.fromkeys(name for per_class in scores.values() for name in per_class))
    rows = [
        _compared(swatch(name, space) + escape(name), columns, [scores[stage.name].get(name) for stage in columns])
        for name in names
    ]
    rows.append(_compared("mean", columns, [stage.miou() for stage in columns], "mean"))
    gains = [gain(run, stage) for stage in columns]
    if any(share is not None for share in gains):
        shown = [percent(share) for share in gains]
        titles = [title for title in rows[-1].cells if title not in ("class", RANGE)]
        rows.append(Row({"class": GAIN, **dict(zip(titles, shown, strict=True)), RANGE: ""}))
    return table(rows, wide=True)


def _compared(title: str, columns: Sequence[StageRecord], scores: Sequence[float | None], kind: str = "") -> Row:
    """A row of scores: adapted ones tinted by their difference to source-only, the best eligible one bold."""
    pairs = list(zip(columns, scores, strict=True))
    base = next((score for stage, score in pairs if stage.role == "baseline"), None)
    contest = [score for stage, score in pairs if used_labels(stage) is False and score is not None]
    cells, tints = {"class": title}, {}
    for stage, score in pairs:
        column = f'<span class="{stage.role}"><span class="dot"></span></span>{escape(stage.name)}{_mark(stage)}'
        cells[column] = number(score, 1)
        if used_labels(stage) is False and len(contest) > 1 and score and score == max(contest):
            cells[column] = f"<b>{cells[column]}</b>"
        if stage.role == "adapted" and score is not None and base is not None:
            difference = score - base
            strength = 0.4 * min(1.0, abs(difference) / FULL_TINT)
            cells[column] += f"<small>{difference:+z.1f}</small>"
            tints[column] = f"background: rgba(var(--{'better' if difference > 0 else 'worse'}), {strength:.2f})"
    cells[RANGE] = _dots(pairs)
    return Row(cells, kind, tints)


def used_labels(stage: StageRecord) -> bool | None:
    """Whether the stage's model used target labels; None: unknown."""
    used: bool | None = (stage.evaluation or {}).get("used_target_labels")
    return True if stage.role == "upper_bound" else used


def _mark(stage: StageRecord) -> str:
    said = {True: "target labels", False: "", None: "target labels: not known"}[used_labels(stage)]
    return f"<small>{said}</small>" if said else ""


def _dots(pairs: Sequence[tuple[StageRecord, float | None]]) -> str:
    """The scores of a row as dots on a line from 0 to 100."""
    found = [(stage, score) for stage, score in pairs if score is not None]
    dots = "".join(
        f'<i class="{stage.role}" style="left: {score:.1f}%" title="{escape(stage.name)} {score:.1f}"></i>'
        for stage, score in found
    )
    scores = [score for _, score in found]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return f'<div class="range"><u style="left: {low:.1f}%; width: {high - low:.1f}%"></u>{dots}</div>'


def confusion_table(scores: Json) -> str:
    """How the pixels of each class (row) were predicted, in percent of the row; shares below 0.5 are left empty."""
    columns = "".join(f"<th><span>{escape(name)}</span></th>" for name in scores["columns"])
    lines = [f"<tr><th></th>{columns}</tr>"]
    for name, counts in zip(scores["per_class"], scores["confusion"], strict=True):
        total = sum(counts) or 1
        cells = "".join(_share(100 * count / total) for count in counts)
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f'<div class="scroll"><table class="matrix">{"".join(lines)}</table></div>'


def _share(percent: float) -> str:
    """A cell of the confusion matrix, darker with its share."""
    if percent < 0.5:
        return "<td></td>"
    return f'<td{" class=hot" if percent > 55 else ""} style="--share: {percent / 100:.2f}">{percent:.0f}</td>'


def label_free_table(run: RunRecord) -> str:
    """Per stage: how well the label-free criteria ranked its evaluations, the one used for selection first."""
    rows = []
    for stage in run.stages:
        found = (stage.evaluation or {}).get("label_free")
        if found:
            cells = {
                "stage": escape(stage.name),
                "criterion": escape(str(found.get("criterion"))),
                "evaluations (n)": escape(str(found.get("points"))),
                "Spearman's ρ with target mIoU": _correlation(found.get("spearman"), found.get("points")),
                **{
                    f"ρ of {name}": _correlation((found.get("criteria") or {}).get(name), found.get("points"))
                    for name in CRITERIA
                },
            }
            rows.append(Row(cells))
    return table(rows)


def _correlation(value: float | None, points: object) -> str:
    """A rank correlation with its number of points; pale if they are too few to be meaningful."""
    if value is None:
        return NOTHING
    few = isinstance(points, int) and points < ENOUGH_POINTS
    return f"<span{' class=muted' if few else ''}>{number(value)}</span><small>n = {escape(str(points))}</small>"


def kept_table(result: Json, space: LabelSpace | None) -> str:
    """Shares of pixels that got a pseudo-label, by class; empty if the stage has no such numbers."""
    kept, share, thresholds = (mapping(result.get(key)) for key in ("kept", "share", "thresholds"))
    rows = []
    for name, of_all in share.items():
        of_class, threshold = kept.get(name), thresholds.get(name)
        cells = {
            "class": swatch(name, space) + escape(name),
            "labelled, % of all pixels": number(100 * of_all),
            "kept, % of the class": NOTHING if of_class is None else bar(100 * of_class),
            "from confidence": number(threshold),
        }
        rows.append(Row(cells))
    if rows:
        total = number(100 * result["labelled"]) if "labelled" in result else NOTHING
        rows.append(Row(dict(zip(rows[0].cells, ("all", total, "", ""), strict=True)), "mean"))
    return table(rows)


def bar(percent: float, whole: float = 100.0) -> str:
    """A percentage and a bar, which is full at `whole`."""
    return f'{percent:.1f}<span class="bar"><i style="width: {100 * percent / whole:.1f}%"></i></span>'


def legend(space: LabelSpace) -> str:
    """The classes with their colours."""
    entries = "".join(f"<span>{swatch(name, space)}{escape(name)}</span>" for name in space.classes)
    return f'<div class="legend">{entries}</div>'


def _how(stage: StageRecord, domain: Json) -> str:
    """The method, if the stage is not named after it, and the views, if not a single whole image."""
    said = [stage.method] * (stage.method != stage.name)
    if stage.role == "evaluation" and stage.settings.get("model"):
        said.append(f"of {stage.settings['model']}")
    if domain.get("scales") not in (None, [1]):
        said.append("scales " + ", ".join(f"{scale:g}" for scale in domain["scales"]))
    said += ["mirrored"] * bool(domain.get("mirror")) + ["window"] * bool(domain.get("window"))
    return f"<small>{escape('; '.join(said))}</small>" if said else ""


def duration(seconds: float) -> str:
    """Seconds, minutes or hours; a dash for none."""
    if not seconds:
        return NOTHING
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def swatch(name: str, space: LabelSpace | None) -> str:
    """The colour of a class; empty if it has none."""
    if space is None or name not in space.classes:
        return ""
    red, green, blue = space.colors[space.classes.index(name)]
    return f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>'


def table(rows: Sequence[Row], wide: bool = False) -> str:
    """A table with the columns of the first row; nothing without rows."""
    if not rows:
        return ""
    align = {column: " class=text" if column in TEXT_COLUMNS else "" for column in rows[0].cells}
    align |= {RANGE: ' class="text dots"'} if RANGE in align else {}
    lines = ["<tr>" + "".join(f"<th{align[column]}>{column}</th>" for column in align) + "</tr>"]
    for row in rows:
        style = {column: f' style="{tint}"' for column, tint in (row.tints or {}).items()}
        cells = (f"<td{align[column]}{style.get(column, '')}>{cell}</td>" for column, cell in row.cells.items())
        lines.append(f'<tr class="{row.kind}">{"".join(cells)}</tr>')
    return f'<div class="scroll"><table{" class=wide" if wide else ""}>{"".join(lines)}</table></div>'

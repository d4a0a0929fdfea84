"""A run compared with others on its page: the seeds of its recipe grouped, other recipes below."""

from collections.abc import Sequence
from html import escape

from segadapt.evaluation.pictures import as_svg
from segadapt.report import tables
from segadapt.report.compare import Comparison, compare
from segadapt.report.compare_figures import scores_figure
from segadapt.report.records import RunRecord
from segadapt.report.seeds import Spread


def over_seeds(run: RunRecord, others: Sequence[RunRecord]) -> str:
    """Table, figure and notes of a comparison. Raises UsageError for runs that cannot be compared."""
    compared = compare([run, *others])
    figure = as_svg("over-seeds", scores_figure(compared, width=7.0))
    notes = "".join(f"<li>{escape(note)}</li>" for note in compared.notes)
    return _table(compared) + f"<figure>{figure}</figure>" + (f'<ul class="muted">{notes}</ul>' if notes else "")


def _table(compared: Comparison) -> str:
    rows = []
    for row in compared.rows:
        group = f"<small>{escape(row.group)}</small>" if len(compared.groups) > 1 else ""
        cells = {
            "stage": f'<span class="dot"></span>{escape(row.stage)}{group}',
            "seeds (n)": str(len(row.seeds)),
            "mIoU": _text(row.scores["miou"]),
            "above source-only": _with_interval(row.difference, "+z.1f"),
            "share of the gap closed": _with_interval(row.gap, "z.0f", " %"),
            "Dice": _text(row.scores["dice"]),
            "pixel accuracy": _text(row.scores["pixel_accuracy"]),
        }
        rows.append(tables.Row(cells, row.role))
    return tables.table(rows, wide=True)


def _text(spread: Spread | None) -> str:
    return tables.NOTHING if spread is None else spread.text(1)


def _with_interval(spread: Spread | None, form: str, unit: str = "") -> str:
    """The mean, and the interval if there are several seeds."""
    if spread is None:
        return tables.NOTHING
    mean, *ends = (f"{value:{form}}".replace("-", "−") for value in (spread.mean, *(spread.interval or ())))
    return f"<b>{mean}{unit}</b>" + (f"<small>{' … '.join(ends)}</small>" if ends else "<small>one seed</small>")

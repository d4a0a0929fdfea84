"""A row of the table, the table, and the JSON file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from segadapt.files import write_json
from suite.measure import Spread, Times

BARE, OURS, REFERENCE = "bare", "ours", "reference"
"""Names of what takes turns: the networks alone, segadapt, the reference."""
WIDTH = 190
"""Of the table, in characters."""


@dataclass(frozen=True)
class Row:
    """One figure with what it is held against."""

    part: str  # steps, loader, …
    what: str
    size: str
    precision: str = ""  # fp32 or bf16, where a network is in it
    unit: str = ""  # what the seconds are of: step, image, sample
    seconds: Spread | None = None
    bare: Spread | None = None  # seconds of the networks alone (or of the work that nobody can do without)
    efficiency: Spread | None = None  # bare / ours, pair by pair
    reference: Spread | None = None  # seconds
    ratio: Spread | None = None  # reference / ours, pair by pair
    memory_mb: float | None = None  # peak of ours, on top of what was there before
    more: dict[str, float] = field(default_factory=dict)  # figures that only some rows have
    note: str = ""

    def with_more(self, **figures: float | None) -> "Row":
        """The same with more figures; None is left out."""
        return replace(self, more=self.more | {name: value for name, value in figures.items() if value is not None})


def row_of(
    part: str,
    what: str,
    times: dict[str, Times],
    *,
    size: str,
    unit: str,
    precision: str = "",
    count: int = 1,
    memory_mb: float | None = None,
) -> Row:
    """The row of works that took turns; `count`: units that one call of each does."""
    per_unit = {name: values / count for name, values in times.items()}
    ours = per_unit[OURS]

    def against(name: str, ratio: Times | None) -> tuple[Spread | None, Spread | None]:
        return (None, None) if ratio is None else (Spread.of(per_unit[name]), Spread.of(ratio))

    bare, efficiency = against(BARE, per_unit[BARE] / ours if BARE in times else None)
    reference, ratio = against(REFERENCE, per_unit[REFERENCE] / ours if REFERENCE in times else None)
    spread = Spread.of(ours)
    return Row(part, what, size, precision, unit, spread, bare, efficiency, reference, ratio, memory_mb)


def table(rows: Sequence[Row], title: str) -> Table:
    """All rows for a terminal."""
    shown = Table(title=title, title_justify="left")
    for column in ("what", "size", "precision"):
        shown.add_column(column)
    for column in ("s (10–90 %)", "per s", "bare s", "efficiency", "reference s", "ratio", "peak MB", "more"):
        shown.add_column(column, justify="right")
    part = ""
    for row in rows:
        if row.part != part:
            part = row.part
            shown.add_section()
        shown.add_row(*_texts(row))
    return shown


def _texts(row: Row) -> list[str]:
    seconds = row.seconds
    # The table shows what is read first; the rest is in the JSON.
    more = [f"{name} {value:.3g}" for name, value in row.more.items() if not name.endswith(("_low", "_high", "_mb"))]
    return [
        f"{row.part}: {row.what}" if row.what != row.part else row.part,
        row.size,
        row.precision,
        f"{_ranged(seconds)} / {row.unit}" if seconds is not None else "",
        f"{1 / seconds.median:.3g}" if seconds is not None else "",
        f"{row.bare.median:.3g}" if row.bare is not None else "",
        _ranged(row.efficiency),
        f"{row.reference.median:.3g}" if row.reference is not None else "",
        _ranged(row.ratio),
        f"{row.memory_mb:,.0f}" if row.memory_mb is not None else "",
        ", ".join([*more, row.note] if row.note else more),
    ]


def _ranged(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.3g} ({spread.low:.3g}–{spread.high:.3g})"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain data; what was not measured is null."""
    return [asdict(row) for row in rows]


class Report:
    """Rows as they come: each is shown at once, and the JSON file is written anew after each part."""

    def __init__(self, about: dict[str, Any], path: Path | None, console: Console | None = None) -> None:
        self.about, self.path, self.rows = about, path, list[Row]()
        self.console = console or Console(highlight=False, width=max(WIDTH, Console().width))

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        texts = [text for text in _texts(row) if text]
        self.console.print("  ".join(texts), style="dim", markup=False, soft_wrap=True)
        self.write()

    def write(self) -> None:
        """The JSON file, whole, with all rows so far."""
        if self.path is not None:
            write_json(self.path, {**self.about, "rows": as_json(self.rows)})

    def show(self) -> None:
        """The whole table."""
        about = self.about
        machine = about.get("gpu", about["cpu"])
        title = f"segadapt {about['segadapt']}, torch {about['torch']}, {machine}, {about['threads']} threads"
        self.console.print(table(self.rows, title))
        self.write()

"""A comparison as a Markdown table, for a page: the chosen score of each seed, mean ± sd, share of the gap, classes."""

from segadapt.report.compare import Comparison, Row
from segadapt.report.seeds import Spread

NONE = "–"


def as_markdown(compared: Comparison) -> str:
    """A line above the table that says what was scored, and a line per row; percent, with one decimal."""
    on, several = compared.scored_on, len(compared.groups) > 1
    seeds = {row.seeds for row in compared.rows}
    alike = len(seeds) == 1
    head = [
        *["recipe"] * several,
        "stage",
        _seeds(*seeds) if alike else "per seed",
        "mean ± sd",
        "of the gap",
        *compared.classes,
    ]
    lines = [
        f"{compared.metric_title} on {compared.domain} {on['split']} ({on['images']} images) and IoU of each class of "
        f"{compared.label_space} (mean over seeds), percent:",
        "",
        _line(head),
        "|---" * len(head) + "|",
        *(_line([*[row.group] * several, *_cells(row, compared, alike)]) for row in compared.rows),
    ]
    if any(row.used_target_labels for row in compared.rows):
        lines += ["", "\\* The model used target labels."]
    return "\n".join(lines) + "\n"


def _cells(row: Row, compared: Comparison, alike: bool) -> list[str]:
    score = row.scores.get(compared.metric)
    each = NONE if score is None else ", ".join(f"{value:.1f}" for value in score.values)
    return [
        row.stage + "\\*" * bool(row.used_target_labels),
        each if alike or score is None else f"{each} ({_seeds(row.seeds)})",
        NONE if score is None else score.text(1),
        _gap(row, compared),
        *(_mean(row.scores.get(f"iou {name}")) for name in compared.classes),
    ]


def _seeds(seeds: tuple[object, ...]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _gap(row: Row, compared: Comparison) -> str:
    """A row's share; 0 and 100 % for the ends of the gap, where another row has a share."""
    if row.gap is not None:
        return f"{row.gap.mean:z.0f} %"
    known = any(other.gap is not None for other in compared.rows if other.group == row.group)
    return {"baseline": "0 %", "upper_bound": "100 %"}[row.role] if row.is_end and known else NONE


def _mean(spread: Spread | None) -> str:
    return NONE if spread is None else f"{spread.mean:.1f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

"""Several runs side by side: seeds of one recipe grouped, and everything that is scored alike in one table.

    compared = compare([read_run(folder) for folder in folders], metric="miou")
    compared.rows[0].scores["miou"].mean, compared.rows[0].gap      # percent

Runs of one recipe differ only in the seed (and in where their data is stored, and what they ran on): they form one
group. A row is a stage of a group. Differences to source-only and shares of the gap are computed within each run, so
that a seed's effect on both cancels out, and then averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segadapt.errors import UsageError
from segadapt.evaluation.evaluate import completed
from segadapt.plain_data import Json
from segadapt.report.gains import difference, gain
from segadapt.report.records import RunRecord, StageRecord, mapping
from segadapt.report.seed_groups import seed_groups
from segadapt.report.seeds import Spread, spread_of
from segadapt.stages.stage import Role

MEANS = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "dice": "Dice",
}
"""Scores that are one number over all classes, with their display names."""
SAME_IMAGES = ("split", "images", "data_digest")
SAME_VIEWS = ("size", "scales", "mirror", "window")
_NAMED = 6  # so many stages of one state are named in a note


@dataclass(frozen=True)
class Row:
    """A stage of one recipe, over its seeds."""

    group: str
    stage: str
    method: str
    role: Role
    is_end: bool  # of the gap: the source-only or the target-trained network from which shares of it are computed
    used_target_labels: bool | None
    seeds: tuple[Any, ...]
    scores: dict[str, Spread | None]  # percent, by `MEANS`, subsets, and `iou CLASS`
    difference: Spread | None  # of the chosen score to source-only, in percentage points
    gap: Spread | None  # share of the gap to target-trained that is closed, in percent


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    metric: str  # a key of the rows' scores
    domain: str
    label_space: str
    classes: tuple[str, ...]
    scored_on: Json  # what all rows have in common
    groups: dict[str, tuple[RunRecord, ...]]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())  # what is missing, and caveats, in sentences

    @property
    def metric_title(self) -> str:
        """The display name of the chosen score."""
        return metric_title(self.metric)

    def plain(self) -> Json:
        """Plain data for JSON."""
        return {
            "metric": self.metric,
            "domain": self.domain,
            "label_space": self.label_space,
            "classes": list(self.classes),
            "scored_on": self.scored_on,
            "groups": {
                name: [{"run": str(run.folder), "seed": run.recipe.get("seed")} for run in runs]
                for name, runs in self.groups.items()
            },
            "rows": [_plain(row) for row in self.rows],
            "notes": list(self.notes),
        }


def metric_title(metric: str) -> str:
    """The display name of a key of a row's scores."""
    kind, _, name = metric.partition(" ")
    return MEANS.get(metric) or (f"IoU of {name}" if kind == "iou" else f"mIoU {metric}")


def compare(
    runs: Sequence[RunRecord],
    *,
    metric: str = "miou",
    stages: Sequence[str] | None = None,
    domain: str = "target",
    split: str | None = None,
    mixed: bool = False,
) -> Comparison:
    """Put runs side by side on one of their domains (`target`, `source`, `target.NAME`).

    `split`: only scores on this split, with those of `evaluate` stages counted for the stages whose models they scored
    (None: on the images on which the stages themselves were scored). `metric`: the score for differences and gap: of
    `MEANS`, a subset of the label space, or a class.
    `stages`: only these. `mixed` allows other input sizes and views. Raises UsageError for runs that were scored in
    another label space or on other images, if there is nothing to compare, and for unknown names.
    """
    _need_stages(runs, stages)
    others = sorted(
        {str(mapping(stage.domain(domain)).get("split")) for run in runs for stage in run.stages} - {"None"}
    )
    if split is not None:
        runs = [on_split(run, domain, split) for run in runs]
    notes = [f"{run.folder.name}: {said}" for run in runs for said in _missing(run)]
    references = {id(run): found for run in runs if (found := _reference(run, domain)) is not None}
    notes += [f"{run.folder.name}: no stage has scores on {domain}" for run in runs if id(run) not in references]
    if not references:
        if others:
            raise UsageError(
                f"no stage has scores on {domain} {split}", where="--split", remedy=f"Scored: {', '.join(others)}."
            )
        raise UsageError(
            f"no stage has scores on {domain} yet",
            where=", ".join(str(run.folder) for run in runs),
            remedy="Run their stages to the end, with labels on val; `segadapt report` looks at runs without labels.",
        )
    first = next(iter(references.values()))
    for other in references.values():
        _need_alike(first, other, domain, mixed)
    groups = seed_groups([run for run in runs if id(run) in references], notes)
    key = _metric_key(metric, first, domain)
    rows = [
        row for name, members in groups.items() for row in _rows(name, members, references, stages, key, domain, notes)
    ]
    evaluation, scores = first.evaluation or {}, first.domain(domain) or {}
    return Comparison(
        key,
        domain,
        str(evaluation.get("label_space")),
        tuple(scores["per_class"]),
        {name: scores.get(name) for name in SAME_IMAGES},
        {name: tuple(members) for name, members in groups.items()},
        tuple(rows),
        tuple(dict.fromkeys(notes)),
    )


def on_split(run: RunRecord, domain: str, split: str) -> RunRecord:
    """The run as if its stages had been scored on this split: by themselves, or by a stage that evaluates their model.

    Of several such stages the first one counts; the others, with other views of the model, are rows of their own.
    """

    def there(stage: StageRecord) -> bool:
        return mapping(stage.domain(domain)).get("split") == split

    by_model: dict[object, StageRecord] = {}
    for stage in run.of("evaluation"):
        if there(stage):
            by_model.setdefault(stage.settings.get("model"), stage)
    stages, counted = [], set()
    for stage in run.stages:
        if stage.role != "evaluation":
            found = stage if there(stage) else by_model.get(f"@{stage.name}")
            stages.append(replace(stage, evaluation=None if found is None else found.evaluation))
            counted.add(None if found is None else found.name)
    others = [stage for stage in run.of("evaluation") if there(stage) and stage.name not in counted]
    return replace(run, stages=(*stages, *others))


def _need_stages(runs: Sequence[RunRecord], stages: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(stage.name for run in runs for stage in run.stages))
    for name in stages or ():
        if name not in known:
            raise UsageError(f"no run has a stage '{name}'", where="--stages", remedy=f"There are {', '.join(known)}.")


def _missing(run: RunRecord) -> list[str]:
    """What a table of scores would need from this run but lacks."""
    to_do = []
    for state in ("unfinished", "not started"):
        names = [stage.name for stage in run.stages if stage.state == state]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        to_do += [f"{state}: {', '.join(names[:_NAMED])}{more}"] if names else []
    return to_do + [said for said in run.missing if "evaluation.json" in said or "recipe.yaml" in said]


def _reference(run: RunRecord, domain: str) -> StageRecord | None:
    """The stage that shows how a run was scored: the first one with scores, if possible not an evaluation stage."""
    found = [stage for stage in run.stages if (stage.domain(domain) or {}).get("per_class")]
    return next((stage for stage in found if stage.role != "evaluation"), found[0] if found else None)


def _place(stage: StageRecord) -> str:
    return f"{stage.folder.parent.name}/{stage.name}"


def _need_alike(first: StageRecord, other: StageRecord, domain: str, mixed: bool) -> None:
    """Raise UsageError when two stages' scores are not comparable."""
    one, two = first.domain(domain) or {}, other.domain(domain) or {}
    if list(one["per_class"]) != list(two["per_class"]):
        spaces = [(stage.evaluation or {}).get("label_space") for stage in (other, first)]
        raise UsageError(
            f"is scored in another label space than {_place(first)}: {spaces[0]}, not {spaces[1]}",
            where=other.folder,
            remedy="Compare runs of one label space; `segadapt evaluate --label-space` scores a model in another one.",
        )
    if not _same(one, two, SAME_IMAGES):
        raise UsageError(
            f"is scored on other images than {_place(first)}: {_images(two)}, not {_images(one)}",
            where=other.folder,
            remedy="Compare runs with the same split of the same data; `segadapt evaluate` scores a model on any.",
        )
    if not mixed and not _same(one, two, SAME_VIEWS):
        raise UsageError(
            f"is scored in another way than {_place(first)}: {_views(two)}, not {_views(one)}",
            where=other.folder,
            remedy="Pass --mixed to compare them anyway.",
        )


def _same(one: Json, two: Json, keys: Sequence[str]) -> bool:
    return all(one.get(key) == two.get(key) for key in keys)


def _images(scores: Json) -> str:
    return f"{scores.get('images')} of {scores.get('split')} (digest of files {str(scores.get('data_digest'))[:8]})"


def _views(scores: Json) -> str:
    said = f"input {'×'.join(map(str, scores.get('size') or ['?']))}"
    if scores.get("scales") not in (None, [1]):
        said += f", scales {scores['scales']}"
    return said + ", mirrored" * bool(scores.get("mirror")) + ", window" * bool(scores.get("window"))


# --- rows ---


def _metric_key(metric: str, stage: StageRecord, domain: str) -> str:
    """The key of a row's scores that `--metric` names."""
    known = _scores(stage, domain)
    for key in (metric, f"iou {metric}"):
        if key in known:
            return key
    names = ", ".join(key.removeprefix("iou ") for key in known)
    raise UsageError(f"'{metric}' is not a score of these runs", where="--metric", remedy=f"Use one of {names}.")


def _scores(stage: StageRecord, domain: str) -> dict[str, float | None]:
    scores = completed(stage.domain(domain) or {})
    return {
        **{key: scores.get(key) for key in MEANS},
        **mapping(scores.get("subsets")),
        **{f"iou {name}": score for name, score in mapping(scores.get("per_class")).items()},
    }


def _rows(
    group: str,
    runs: Sequence[RunRecord],
    references: dict[int, StageRecord],
    wanted: Sequence[str] | None,
    metric: str,
    domain: str,
    notes: list[str],
) -> list[Row]:
    """The rows of a group, in the order of its recipe."""
    rows = []
    for name in dict.fromkeys(stage.name for run in runs for stage in run.stages):
        if wanted is not None and name not in wanted:
            continue
        found = []
        for run in runs:
            stage = next((stage for stage in run.stages if stage.name == name), None)
            scores = None if stage is None else stage.domain(domain)
            if stage is None or scores is None or not scores.get("per_class"):
                continue
            reference = references[id(run)].domain(domain) or {}
            if not _same(scores, reference, SAME_IMAGES) or list(scores["per_class"]) != list(reference["per_class"]):
                notes.append(f"{_place(stage)}: scored on {_images(scores)}, left out")
                continue
            found.append((run, stage))
        if found:
            rows.append(_row(group, name, found, metric, domain))
        if 0 < len(found) < len(runs):
            notes.append(f"{group}: {name} has scores of {len(found)} of {len(runs)} seeds")
    return rows


def _row(group: str, name: str, found: Sequence[tuple[RunRecord, StageRecord]], metric: str, domain: str) -> Row:
    scores = [_scores(stage, domain) for _, stage in found]

    def score(stage: StageRecord) -> float | None:
        return _scores(stage, domain).get(metric)

    used = {(stage.evaluation or {}).get("used_target_labels") for _, stage in found}
    return Row(
        group,
        name,
        found[0][1].method,
        found[0][1].role,
        all(stage in (run.first("baseline"), run.first("upper_bound")) for run, stage in found),
        used.pop() if len(used) == 1 else None,
        tuple(run.recipe.get("seed") for run, _ in found),
        {key: spread_of([own.get(key) for own in scores]) for key in scores[0]},
        spread_of([difference(run, stage, score, domain) for run, stage in found]),
        spread_of([gain(run, stage, score, domain) for run, stage in found]),
    )


def _plain(row: Row) -> Json:
    spreads: dict[str, Spread | None] = {"difference": row.difference, "gap": row.gap}
    return {
        "group": row.group,
        "stage": row.stage,
        "method": row.method,
        "role": row.role,
        "used_target_labels": row.used_target_labels,
        "seeds": list(row.seeds),
        "scores": {key: None if spread is None else spread.plain() for key, spread in row.scores.items()},
        **{key: None if spread is None else spread.plain() for key, spread in spreads.items()},
    }

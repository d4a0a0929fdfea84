"""How much better a stage is than source-only, and how much of the gap to target-trained it closes."""

from collections.abc import Callable, Sequence

from segadapt.report.records import RunRecord, StageRecord

SAME_CONDITIONS = ("layout", "root", "split", "data_digest", "size", "scales", "mirror", "window")
"""What must agree between stages before a gain may be computed from them."""
Score = Callable[[StageRecord], float | None]
"""A stage's score in percent; None without one."""


def alike(stages: Sequence[StageRecord], domain: str = "target") -> bool:
    """Whether all are scored on the same images in the same way."""
    conditions = [[(stage.domain(domain) or {}).get(key) for key in SAME_CONDITIONS] for stage in stages]
    return conditions.count(conditions[0]) == len(conditions)


def difference(
    run: RunRecord, stage: StageRecord, score: Score = StageRecord.miou, domain: str = "target"
) -> float | None:
    """Percentage points above source-only; None unless both are scored alike, and of source-only itself."""
    baseline = run.first("baseline")
    if baseline is None or stage.role == "baseline" or not alike([stage, baseline], domain):
        return None
    mine, low = score(stage), score(baseline)
    return None if mine is None or low is None else mine - low


def gain(run: RunRecord, stage: StageRecord, score: Score = StageRecord.miou, domain: str = "target") -> float | None:
    """(adapted - source-only) / (target-trained - source-only) in percent; None unless all are scored alike."""
    baseline, upper = run.first("baseline"), run.first("upper_bound")
    if stage.role != "adapted" or baseline is None or upper is None or not alike([stage, baseline, upper], domain):
        return None
    mine, low, high = score(stage), score(baseline), score(upper)
    if mine is None or low is None or high is None or high <= low:
        return None
    return 100 * (mine - low) / (high - low)

"""How well models can be chosen without labels, judging by a training's metrics.jsonl."""

import math
from pathlib import Path

from segadapt.errors import UsageError
from segadapt.evaluation.criteria import CRITERIA, agreement
from segadapt.plain_data import Json, read_json, read_json_lines


def read_metrics(stage: Path) -> list[Json]:
    """The lines of a stage's metrics.jsonl; none without the file, and a last line that was cut short is left out."""
    try:
        lines = [line for _, line in read_json_lines(stage / "metrics.jsonl")]
    except UsageError:
        return []
    return [line for line in lines if type(line.get("step")) is int and line["step"] >= 0]


def label_free_agreement(stage: Path) -> Json | None:
    """`label_free` of evaluation.json: how well the criteria ordered the evaluations of a stage's training."""
    lines = [line for line in read_metrics(stage) if is_number(line.get("val/target_miou"))]
    points = {
        name: [(line[f"val/{name}"], line["val/target_miou"]) for line in lines if is_number(line.get(f"val/{name}"))]
        for name in CRITERIA
    }
    return agreement(points, criterion_of(stage))


def criterion_of(stage: Path) -> str:
    """The criterion by which a stage's training selects, or would; from its stage.json."""
    try:
        said = read_json(stage / "stage.json", "the record of the stage")["content"]["settings.criterion"]
    except (UsageError, KeyError, TypeError):
        said = None
    return said if isinstance(said, str) and said in CRITERIA else "infomax"


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

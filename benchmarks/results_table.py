"""One table of several runs of the same recipe with different seeds, for docs/results.md.

    python benchmarks/results_table.py runs/carla_camvid_seed0 runs/carla_camvid_seed1 … [--stages test_source_only …]

A row per scored stage: mIoU of each run, their mean and standard deviation, IoU per class (mean), steps, and minutes of
training (sum of time/step in metrics.jsonl).
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from segadapt.report.records import RunRecord, read_run


def rows(runs: list[RunRecord], stages: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Stage -> the target scores of each run that has it, in the order of the runs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for stage in run.stages:
            scores = stage.domain("target")
            if scores is not None and (not stages or stage.name in stages):
                found.setdefault(stage.name, []).append(scores)
    return found


def minutes(run: RunRecord) -> dict[str, float]:
    """Training stage -> minutes spent in steps."""
    return {stage.name: sum(stage.series("time/step")[1]) / 60 for stage in run.stages if stage.series("time/step")[1]}


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--stages", nargs="*", default=[])
    options = parser.parse_args()
    runs = [read_run(folder) for folder in options.runs]
    table = rows(runs, options.stages)
    classes = list(next(iter(table.values()))[0]["per_class"])
    print(f"| stage | split | mIoU per run | mean ± sd | {' | '.join(classes)} |")
    print("|---" * (4 + len(classes)) + "|")
    for stage, scores in table.items():
        mious = [score["miou"] for score in scores]
        spread = f" ± {statistics.stdev(mious):.1f}" if len(mious) > 1 else ""
        known = [
            [score["per_class"][name] for score in scores if score["per_class"][name] is not None] for name in classes
        ]
        per_class = " | ".join(f"{statistics.mean(values):.1f}" if values else "–" for values in known)
        each = ", ".join(f"{miou:.1f}" for miou in mious)
        print(f"| {stage} | {scores[0]['split']} | {each} | {statistics.mean(mious):.1f}{spread} | {per_class} |")
    for run in runs:
        spent = ", ".join(f"{name} {value:.1f}" for name, value in minutes(run).items())
        print(f"\n{run.folder.name}: minutes in training steps: {spent}")


if __name__ == "__main__":
    main()

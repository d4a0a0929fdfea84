"""Does bf16 cost accuracy? SE-GAN on CARLA → CamVid in fp32 and in bf16 from one shared start, several seeds each.

    python benchmarks/bf16_accuracy.py CARLA CAMVID [--steps 500 --seeds 3 --network deeplab_small --out runs/bf16]

First one network is trained on the source in fp32 (`--start-steps`); every SE-GAN begins with it and differs from its
twin of the other precision in nothing else. Scores are mIoU on CamVid's test split of the last network, computed in
fp32. bf16 costs nothing that can be seen if |difference of the means| ≤ max(2 sd, 1 point), sd over both groups' seeds.
Done again with the same --out, what is finished is not repeated.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from segadapt.config.recipe import Recipe
from segadapt.files import write_json
from segadapt.pipeline.run import run_recipe

PRECISIONS = ("fp32", "bf16")
POINT = 1.0


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What both trainings share: those of the recipe `carla_camvid_se_gan`."""
    width, height = (int(side) for side in options.size.split("x"))
    return {
        "network": options.network,
        "size": [width, height],
        "optimizer": "adam",
        "lr": options.lr,
        "schedule": "polynomial",
        "augment": {"mirror": 0.5, "scale": [0.75, 1.5], "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        "evaluate_every": 0,
        "checkpoint_every": 250,
    }


def recipe(options: argparse.Namespace, stages: dict[str, Any], seed: int, precision: str) -> Recipe:
    """A recipe of these stages on the two domains."""
    return Recipe.model_validate(
        {
            "label_space": "carla_camvid10",
            "data": {
                "source": {"layout": "carla", "root": options.source, "holdout": options.holdout},
                "target": {"layout": "camvid", "root": options.target},
            },
            "stages": stages,
            "seed": seed,
            "runtime": {"precision": precision, "threads": options.threads, "device": options.device},
        }
    )


def train_start(options: argparse.Namespace) -> Path:
    """The network that all trainings begin with."""
    stage = {"method": "source_only", "steps": options.start_steps, "start": options.start, **settings(options)}
    folder: Path = options.out / "start"
    run_recipe(recipe(options, {"start": stage}, 0, "fp32"), folder, yes=True)
    return folder / "start" / "model.safetensors"


def train_twin(options: argparse.Namespace, start: Path, seed: int, precision: str) -> float:
    """One SE-GAN training and its score on the test images, in percent."""
    folder = options.out / f"{precision}_seed{seed}"
    stage = {
        "method": "se_gan",
        "start": str(start),
        "steps": options.steps,
        "lr_discriminator": 1e-4,
        "ema": 0.99,
        **settings(options),
    }
    run_recipe(recipe(options, {"se_gan": stage}, seed, precision), folder, yes=True)
    model = str(folder / "se_gan" / "model.safetensors")
    test = {"test": {"method": "evaluate", "model": model, "split": options.split}}
    run_recipe(recipe(options, test, seed, "fp32"), folder / "scored", yes=True)
    record = json.loads((folder / "scored" / "test" / "evaluation.json").read_text(encoding="utf-8"))
    return float(record["domains"]["target"]["miou"])


def verdict(scores: dict[str, list[float]]) -> dict[str, Any]:
    """Means, standard deviations, their pooled sd, the difference of the means and whether it is small enough."""
    means = {precision: statistics.mean(values) for precision, values in scores.items()}
    deviations = {p: statistics.stdev(values) if len(values) > 1 else 0.0 for p, values in scores.items()}
    pooled = statistics.mean(deviation**2 for deviation in deviations.values()) ** 0.5
    difference, allowed = means["bf16"] - means["fp32"], max(2 * pooled, POINT)
    return {
        "miou": scores,
        "mean": means,
        "sd": deviations,
        "pooled_sd": pooled,
        "difference": difference,
        "allowed": allowed,
        "equal": abs(difference) <= allowed,
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The table and the verdict."""
    table = Table("precision", "mIoU of each seed", "mean", "sd")
    for precision, values in found["miou"].items():
        each = ", ".join(f"{value:.2f}" for value in values)
        table.add_row(precision, each, f"{found['mean'][precision]:.2f}", f"{found['sd'][precision]:.2f}")
    console.print(table)
    sign = "≤" if found["equal"] else ">"
    console.print(
        f"|difference| {abs(found['difference']):.2f} {sign} max(2 sd, 1 point) = {found['allowed']:.2f}: "
        f"bf16 {'costs no accuracy that can be seen' if found['equal'] else 'differs'}"
    )


def main(given: Sequence[str] | None = None) -> None:
    """Train, score, print, write `OUT/bf16.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of CARLA")
    parser.add_argument("target", help="folder of CamVid")
    parser.add_argument("--out", type=Path, default=Path("runs/bf16_accuracy"))
    parser.add_argument("--steps", type=int, default=500, help="of each SE-GAN training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings in each precision")
    parser.add_argument("--network", default="deeplab_small")
    parser.add_argument("--start", help="weights that the shared start itself begins with: a file or a known name")
    parser.add_argument("--start-steps", type=int, default=1000, help="of the shared start, on the source")
    parser.add_argument("--size", default="240x160", help="of training images")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (Adam); 1e-4 for a pretrained network")
    parser.add_argument("--holdout", type=int, default=79, help="source images left for validation")
    parser.add_argument("--split", default="test", help="the target images that are scored on")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    console, begun = Console(highlight=False), time.monotonic()
    start = train_start(options)
    scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in range(options.seeds):
        for precision in PRECISIONS:
            scores[precision].append(train_twin(options, start, seed, precision))
            minutes = (time.monotonic() - begun) / 60
            console.print(f"seed {seed}, {precision}: {scores[precision][-1]:.2f} mIoU after {minutes:.0f} minutes")
    found = verdict(scores)
    show(found, console)
    write_json(options.out / "bf16.json", {"steps": options.steps, "network": options.network, **found})


if __name__ == "__main__":
    main()

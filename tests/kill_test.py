"""The demo pipeline, shortened, killed (-9) at ten random places: it must end bit for bit like an undisturbed one.

python tests/kill_test.py [--kills 10] [--seed 0] [--steps 60] [--folder FOLDER]      (`make kill-test`)

The recipe `demo` with all its stages, on fewer sample pictures and with fewer steps: about ten minutes on two cores.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from killing import differences, killed, places, progress
from segadapt.config.load import load_recipe
from segadapt.data.sample import write_sample
from segadapt.methods.settings import SegmenterSettings, TrainingSettings


def shortened(recipe: str, data: Path, steps: int) -> list[str]:
    """`RECIPE KEY=VALUE…`: few pictures, `steps` updates a training, a checkpoint and an evaluation every third."""
    given = [f"data.source.root={data}/gta5", f"data.target.root={data}/cityscapes", "data.source.holdout=10"]
    stages = load_recipe(recipe, given).stages
    for name, settings in stages.items():
        if isinstance(settings, TrainingSettings):
            if settings.epochs is not None:
                given.append(f"stages.{name}.epochs=null")
            given += [f"stages.{name}.steps={steps}", f"stages.{name}.checkpoint_every={steps // 3}"]
            if isinstance(settings, SegmenterSettings):
                given += [f"stages.{name}.evaluate_every={steps // 3}", f"stages.{name}.evaluate_images=4"]
    return [recipe, *given]


def main() -> None:
    """Run whole, run with kills, compare; exit code 1 when anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder, removed at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_sample(folder / "data", train=40, val=10)
        arguments = ["run", *shortened(options.recipe, folder / "data", options.steps)]
        arguments += ["--threads", str(options.threads), "--out"]
        begun = time.monotonic()
        killed([*arguments, str(folder / "whole")], folder / "whole", [])
        total = progress(folder / "whole")
        print(f"undisturbed: {total} steps and files in {time.monotonic() - begun:.0f} s", flush=True)
        where = places(total, options.kills, options.seed)
        parts = folder / "parts"
        kills = killed([*arguments, str(parts)], parts, where, lambda text: print(text, flush=True))
        found = differences(folder / "whole", parts)
    print(f"{kills} kills; {len(found)} files differ" + (f": {', '.join(found)}" if found else ""))
    sys.exit(0 if kills == options.kills and not found else 1)


if __name__ == "__main__":
    main()

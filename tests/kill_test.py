"""A pipeline of seven stages, killed a hundred times, must end bit for bit like an undisturbed one and leave nothing.

python tests/kill_test.py [--kills 100] [--in-one-run 8] [--seed 0] [--folder FOLDER]      (`make kill-test`)

Some minutes on two cores. See `killing` for how and where it is killed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from forking import Forks
from killing import Killer, write_pipeline


def main() -> None:
    """Run whole, run with kills, compare; exit code 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--in-one-run", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder, removed at the end")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, Forks() as forks:
        folder = options.folder or Path(temporary)
        killer = Killer(forks, write_pipeline(folder), folder, options.seed)
        print(f"undisturbed: {killer.operations} operations on files, {time.monotonic() - begun:.0f} s", flush=True)
        outcome = killer.kill(options.kills, options.in_one_run, lambda text: print(text, flush=True))
    for kind, count in sorted(outcome.kinds.items()):
        print(f"{count:5} {kind}")
    print("\n".join(outcome.wrong))
    print(
        f"{outcome.kills} kills of {outcome.runs} runs in {time.monotonic() - begun:.0f} s: {len(outcome.wrong)} wrong"
    )
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()

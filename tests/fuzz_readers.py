"""Fuzz everything that reads: no foreign exception, and no input that takes over five seconds.

python tests/fuzz_readers.py [--inputs 20000] [--only NAME …] [--seed N] [--save FOLDER]      (`make fuzz`)

So many for each reader of text, a tenth for images and checkpoints, a fortieth for whole reports, which are drawn. A
line per reader; the smallest input that fails is saved. Without --seed the inputs are always the same.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch

from fuzz_targets import readers
from fuzzing import fuzz
from scored_runs import ColourNetwork
from segadapt.models import networks


def main() -> None:
    """Exit code 1 when a reader has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="of each reader of text")
    parser.add_argument("--only", nargs="*", default=[], help="names of readers")
    parser.add_argument("--seed", type=int, help="other inputs than usual")
    parser.add_argument("--save", type=Path, default=Path("fuzz-failures"), help="where failing inputs are put")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SEGADAPT_CACHE"] = temporary
        networks.register_network("colour", ColourNetwork)
        for number, reader in enumerate(readers(Path(temporary))):
            if options.only and reader.name not in options.only:
                continue
            folder = Path(temporary) / f"inputs{number}"
            folder.mkdir()
            outcome = fuzz(reader, round(reader.share * options.inputs), folder, options.seed)
            print(outcome, flush=True)
            if outcome.failure:
                failed += 1
                options.save.mkdir(parents=True, exist_ok=True)
                place = options.save / reader.name.replace(" ", "_")
                place.write_bytes(outcome.content)
                print(f"  the input is in {place}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

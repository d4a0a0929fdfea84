"""A pipeline of all kinds of stages, killed eight times, ends bit for bit like an undisturbed one, and leaves nothing.

The short form of `make kill-test`.
"""

from pathlib import Path

from forking import Forks
from killing import Killer, differences, left, write_pipeline
from segadapt.files import temporary_beside


def test_a_pipeline_that_is_killed_ends_as_if_it_had_not_been(forks: Forks, tmp_path: Path) -> None:
    killer = Killer(forks, write_pipeline(tmp_path), tmp_path, seed=43)
    outcome = killer.kill(8, in_one_run=8)
    assert outcome.kills == 8 and outcome.wrong == []
    # The comparison finds what there is to find.
    run = tmp_path / "run0"
    (run / "style/model.safetensors").write_bytes(b"")
    (run / "stylize/result.json").unlink()
    temporary_beside(run / "se_gan/model.safetensors").touch()
    (run / "se_gan/checkpoints/step_00000001.pt").touch()
    assert {"style/model.safetensors differs", "stylize/result.json is in one run only"} < set(
        differences(killer.whole, run)
    )
    assert len(left(run)) == 2

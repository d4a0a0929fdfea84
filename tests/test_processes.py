"""Processes beside the main one: signals to the group leave them at work, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forking import Forks, Process, members
from segadapt import processes
from segadapt.data import parallel
from segadapt.engine import runtime
from tiny_runs import last_checkpoint, metrics, tree, write_data, write_recipe

PATIENCE = 120.0


def wait_until(ready: Callable[[], object], process: Process | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    content = tree(write_data(folder / "data"), a={"method": "source_only", "steps": 100000, "evaluate_every": 0})
    content["stages"]["a"].update(log_every=1, checkpoint_every=100000)
    content["runtime"] = {"device": "cpu", "threads": 1}
    return write_recipe(folder / "recipe.yaml", content)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks at /proc")


@needs_proc
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_the_whole_group_costs_no_step(forks: Forks, recipe: Path, tmp_path: Path, workers: int) -> None:
    """As `timeout`, Slurm and systemd send it: to each process, and to the command twice."""
    out = tmp_path / "run"
    process = forks.start(["run", str(recipe), "--workers", str(workers), "--out", str(out)], tmp_path / "said")
    wait_until(lambda: (out / "a/metrics.jsonl").is_file() and len(metrics(out / "a")) > 3, process)
    assert len(process.group()) == 1 + workers
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM, group=True)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM, process.said.read_text()
    assert last_checkpoint(out / "a")["step"] == metrics(out / "a")[-1]["step"] > 3
    wait_until(lambda: not process.group())


@needs_proc
def test_loader_processes_do_not_outlive_a_trainer_that_is_killed(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = forks.start(["run", str(recipe), "--workers", "2", "--out", str(out)], tmp_path / "said")
    wait_until(lambda: (out / "a/metrics.jsonl").is_file() and len(metrics(out / "a")) > 1, process)
    process.signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    wait_until(lambda: not process.group())


POOL = """
import sys, time
from segadapt.data.parallel import map_unordered

def job(item):
    print(item, flush=True)
    time.sleep(0.2 if sys.argv[1] == "short" else 600)
    return item

if __name__ == "__main__":
    print(sorted(map_unordered(job, range(int(sys.argv[2])), 2)))
"""


@needs_proc
def test_a_pool_leaves_signals_to_its_parent_and_ends_with_it(tmp_path: Path) -> None:
    """Its children go on under SIGINT and SIGTERM from others, and not when their parent is gone."""
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, str(tmp_path / "pool.py")]
    with subprocess.Popen([*command, "short", "6"], stdout=subprocess.PIPE, text=True, start_new_session=True) as one:
        assert one.stdout is not None and one.stdout.readline()
        for child in set(members(one.pid)) - {one.pid}:
            os.kill(child, signal.SIGINT)
            os.kill(child, signal.SIGTERM)
        assert one.stdout.read().splitlines()[-1] == "[0, 1, 2, 3, 4, 5]"
    with subprocess.Popen([*command, "long", "2"], stdout=subprocess.PIPE, text=True, start_new_session=True) as one:
        assert one.stdout is not None and one.stdout.readline() and one.stdout.readline()
        one.kill()
    wait_until(lambda: not members(one.pid))


# --- cores ---


def test_a_quota_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of version 2 (the group or one above it) and of version 1; in a container the path is another one."""
    monkeypatch.setattr(processes, "CGROUPS", tmp_path)
    monkeypatch.setattr(processes, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert processes.usable_cores() == 64
    (tmp_path / "own").write_text("0::/slurm/job_7\n")
    (tmp_path / "slurm/job_7").mkdir(parents=True)
    (tmp_path / "slurm/job_7/cpu.max").write_text("max 100000\n")
    assert processes.usable_cores() == 64
    (tmp_path / "slurm/cpu.max").write_text("350000 100000\n")
    assert processes.usable_cores() == 4
    (tmp_path / "own").write_text("0::/elsewhere\n")
    (tmp_path / "cpu.max").write_text("800000 100000\n")
    assert processes.usable_cores() == 8
    (tmp_path / "own").write_text("7:memory:/x\n4:cpu,cpuacct:/job\n")
    (tmp_path / "cpu,cpuacct/job").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct/job/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu,cpuacct/job/cpu.cfs_period_us").write_text("100000\n")
    assert processes.usable_cores() == 1


def test_a_few_files_are_no_work_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each imports for seconds before its first."""
    monkeypatch.setattr(parallel, "usable_cores", lambda: 8)
    few = 2 * parallel.WORTH - 1
    assert [parallel.worthwhile_workers(files) for files in (0, few, few + 1, 100_000)] == [1, 1, 2, 8]
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    for workers in (None, 1):
        assert [*parallel.map_unordered(str, range(few), workers)] == [str(file) for file in range(few)]


def test_loader_processes_share_the_cores_of_their_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four nodes of eight GPUs and 64 cores each: WORLD_SIZE would leave one process to each rank."""
    monkeypatch.setattr(runtime, "usable_cores", lambda: 64)
    monkeypatch.setenv("WORLD_SIZE", "32")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert runtime.loader_processes() == 7
    monkeypatch.setattr(runtime, "usable_cores", lambda: 4)
    assert runtime.loader_processes() == 1

"""`segadapt doctor`: a machine that works, what does not, and nothing in the report that is nobody's business."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import command
from segadapt.setup import doctor, machine, redaction, self_test
from segadapt.setup.machine import Problem
from segadapt.setup.self_test import Trial
from tiny_runs import tree, write_data, write_recipe


def ok(name: str = "training on cpu in fp32") -> Trial:
    return Trial(name, 0.1)


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything works, without trying it."""
    monkeypatch.setattr(doctor, "self_test", lambda: iter([ok()]))
    for name in ("package_problems", "gpu_problems"):
        monkeypatch.setattr(machine, name, list)
    for name in ("memory_problems", "disk_problems"):
        monkeypatch.setattr(machine, name, lambda found: [])


def test_a_machine_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    told = command(capsys, "doctor", "--json")
    facts = json.loads(told.out)
    assert [trial["failure"] for trial in facts["self-test"]] == [None] * 4, facts["self-test"]
    assert {"training on cpu in fp32", "training on cpu in bf16", "images written and read", "loader processes"} == {
        trial["name"] for trial in facts["self-test"]
    }
    assert told.err.count("ok ") == 4
    assert told.code == any(problem["level"] == "error" for problem in facts["problems"])
    assert facts["versions"]["packages"]["torch"] and facts["cpu"]["usable cores"] >= 1 and facts["disks"]


@pytest.mark.usefixtures("healthy")
def test_what_is_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    told = command(capsys, "doctor")
    assert told.code == 0 and told.out.endswith("nothing found that would fail\n")
    assert all(f"\n{word}" in told.out for word in ("segadapt ", "packages: ", "cpu: ", "memory: ", "disk, "))


@pytest.mark.parametrize("what", ["_train", "_pictures", "_workers"])
def test_a_trial_that_fails_is_a_problem(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_train", "_pictures", "_workers"):
        monkeypatch.setattr(self_test, name, lambda *_: "")

    def broken(*_: Any) -> str:
        raise OSError("no such kernel\nand more")

    monkeypatch.setattr(self_test, what, broken)
    failed = [trial for trial in self_test.self_test() if trial.failure is not None]
    assert {trial.failure for trial in failed} == {"OSError: no such kernel"}
    assert len(failed) == (2 if what == "_train" else 1)
    problem = failed[0].problem()
    assert problem is not None and problem.level == "error"


@pytest.mark.usefixtures("healthy")
def test_an_error_is_exit_code_1_and_a_warning_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu_problems", lambda: [Problem("warning", "GPU", "is cold", "Warm it.")])
    told = command(capsys, "doctor")
    assert told.code == 0 and "warning: GPU: is cold. Warm it." in told.out
    monkeypatch.setattr(doctor, "self_test", lambda: iter([Trial("training on cpu in fp32", 0.1, "it is no use")]))
    told = command(capsys, "doctor")
    assert told.code == 1 and "failed training on cpu" in told.out and "1 error found" in told.out


@pytest.mark.usefixtures("healthy")
def test_a_recipe_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = tree(write_data(tmp_path / "data"), source_only={"method": "source_only"})
    recipe = write_recipe(tmp_path / "mine.yaml", content)
    told = command(capsys, "doctor", recipe, "--json")
    facts = json.loads(told.out)["recipe"]
    assert told.code == 0 and facts["stages"] == {"source_only": "source_only"}
    assert facts["data"]["source"]["splits"] == {
        "train": {"images": 6, "labels": 6},
        "val": {"images": 2, "labels": 2},
    }
    for override, what in (
        (f"data.target.root={tmp_path / 'gone'}", "the data folder does not exist"),
        ("data.source.root=???", "is not given"),
        ("stages.source_only.start=gone.pth", "the start file does not exist"),
        ("stages.source_only.stps=4", "unknown key 'stages.source_only.stps'"),
        ("label_space=camvid", "unknown label space"),
    ):
        told = command(capsys, "doctor", recipe, override, "--json")
        assert told.code == 1 and what in json.loads(told.out)["problems"][0]["what"], told.out
    min((tmp_path / "data/gta5/labels").iterdir()).write_bytes(b"broken")
    told = command(capsys, "doctor", recipe)
    assert told.code == 1 and "cannot be read as an image" in told.out
    assert not (tmp_path / "runs").exists()


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [("numpy", "1.0", None), ("torch", "99.1", None), ("no-such-package", "1", None), ("pytest", "99", "x")]
    monkeypatch.setattr(machine, "requirements", lambda: iter(wanted))
    assert [(p.level, p.where) for p in machine.package_problems()] == [
        ("error", "torch"),
        ("error", "no-such-package"),
        ("warning", "pytest"),
    ]
    assert machine.extras() == {"x": {"pytest": pytest.__version__}}


def test_little_memory_and_full_disks() -> None:
    found: dict[str, float | None] = {"total (GB)": 8.0, "free (GB)": 0.5, "/dev/shm free (GB)": 0.01}
    assert [problem.where for problem in machine.memory_problems(found)] == ["memory", "/dev/shm"]
    assert machine.memory_problems(dict.fromkeys(found)) == []
    disks = {
        "runs (working folder)": {"folder": "/a", "free (GB)": 0.0, "writable": True},
        "weights": {"folder": "/b", "free (GB)": 9.0, "writable": False},
        "temporary files": {"folder": "/c", "free (GB)": 1.0, "writable": True},
    }
    assert [(p.level, p.where) for p in machine.disk_problems(disks)] == [
        ("error", "/a"),
        ("warning", "/b"),
        ("warning", "/c"),
    ]


@pytest.mark.usefixtures("healthy")
def test_no_secrets_and_no_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "annabel"
    (home / "data").mkdir(parents=True)
    monkeypatch.setattr("getpass.getuser", lambda: "annabel")
    for name, value in {
        "HOME": str(home),
        "HF_TOKEN": "hf_abcdefghijklmnop",
        "HF_ENDPOINT": "https://annabel:secret@hub.example.org",
        "SEGADAPT_WEIGHTS": "/mnt/annabel/weights",
        "SEGADAPT_CACHE": str(home / "cache"),
        "UNRELATED_VARIABLE": "private",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home / "data")
    told = command(capsys, "doctor", home / "gone.yaml")
    assert "~/data" in told.out and "/mnt/USER/weights" in told.out and "~/gone.yaml" in told.out
    for private in ("annabel", "hf_abcdef", "secret", "private"):
        assert private not in told.out + told.err
    assert "HF_TOKEN (set)" in told.out
    assert redaction.redacted({"a": ["/home/annabelle/x", 3, None]}) == {"a": ["/home/annabelle/x", 3, None]}

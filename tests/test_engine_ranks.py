"""Two ranks with folders of their own: one plan, one step, the results of one process; none is left hanging."""

import copy
import io
import json
import shutil
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forking import Forks, Process, joined
from segadapt.batch_norm import share_statistics
from segadapt.engine import ranks
from segadapt.errors import SegadaptError, UsageError
from segadapt.weights.saved import load_model
from tiny_runs import last_checkpoint, metrics, run, same, tree, write_data, write_recipe

STAGE = {
    "network": "deeplab_small_bn",
    "batch_norm": "learn",
    "size": [64, 32],
    "evaluate_every": 0,
    "optimizer": "sgd",
}
STAGES: dict[str, dict[str, Any]] = {
    "first": {"method": "source_only", "steps": 2, "checkpointing": True, **STAGE},
    "sean": {
        "method": "sean",
        "start": "@first",
        "fresh_head": True,
        "steps": 4,
        "checkpoint_every": 2,
        "ema": 0.5,
        **STAGE,
    },
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    content = tree(write_data(folder / "data"), **STAGES)
    content["runtime"] = {"device": "cpu", "threads": 1}
    return write_recipe(folder / "recipe.yaml", content)


def start(
    forks: Forks, recipe: Path, folder: Path, *more: str, own: tuple[str, ...] = (), inside: str = ""
) -> list[Process]:
    """Two ranks, each with an --out of its own; `own` is for rank 1 alone."""
    together, found = joined(2), []
    for rank in range(2):
        env = {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = ["run", str(recipe), *more, *(own if rank else ()), "--out", str(folder / f"rank{rank}")]
        found.append(forks.start(arguments, folder / f"said{rank}", env, inside))
    return found


def differ(a: Path, b: Path) -> float:
    """The largest difference between the states of two stages, and their losses, relative to the values' size."""
    found = [0.0]
    for x, y in zip(metrics(a), metrics(b), strict=True):
        found += [abs(x[key] - y[key]) / max(1.0, abs(x[key])) for key in x]
    ours, theirs = last_checkpoint(a)["modules"], last_checkpoint(b)["modules"]
    for name, module in ours.items():
        for key, values in module.items():
            scale = max(1.0, float(values.abs().max()))
            found.append(float((values - theirs[name][key]).abs().max()) / scale)
    return max(found)


def test_two_ranks_of_which_one_sees_the_folder_equal_one_process(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    """In float64, with batch norms that learn; also resumed by rank 0 where rank 1's folder is of another step."""
    one = forks.start(["run", str(recipe), "--out", str(tmp_path / "one")], tmp_path / "said", inside="in_float64")
    assert one.wait() == 0, one.said.read_text()
    for process in start(forks, recipe, tmp_path, inside="in_float64"):
        assert process.wait() == 0, process.said.read_text()
    assert not (tmp_path / "rank1").exists()
    for stage in STAGES:
        assert differ(tmp_path / "one" / stage, tmp_path / "rank0" / stage) < 1e-12, stage
    before = last_checkpoint(tmp_path / "rank0/sean")["modules"]["student"]["body.0.0.weight"]
    assert before.dtype == torch.float64 and last_checkpoint(tmp_path / "rank0/sean")["step"] == 4

    shutil.copytree(tmp_path / "rank0", tmp_path / "rank1")
    (tmp_path / "rank0/sean/checkpoints/step_00000004.pt").unlink()
    about = tmp_path / "rank0/sean/stage.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"state": "running"}))
    for process in start(forks, recipe, tmp_path, inside="in_float64"):
        assert process.wait() == 0, process.said.read_text()
    assert differ(tmp_path / "one/sean", tmp_path / "rank0/sean") < 1e-12
    assert load_model(tmp_path / "rank0/sean/model.safetensors").header.step == 4


def test_a_few_labels_are_the_same_on_two_ranks_and_when_resumed(forks: Forks, tmp_path: Path) -> None:
    """In float64; resumed to the last bit."""
    stage = {"method": "dacs", "steps": 4, "checkpoint_every": 2, "sampler": "rare_classes", **STAGE}
    content = tree(write_data(tmp_path / "data"), dacs=stage | {"rare_classes": {"min_pixels": 20}})
    content["data"]["target"] |= {"labelled": 3, "labelled_share": 0.5}
    content["runtime"] = {"device": "cpu", "threads": 1}
    few = write_recipe(tmp_path / "few.yaml", content)
    alone = forks.start(["run", str(few), "--out", str(tmp_path / "one")], tmp_path / "said", inside="in_float64")
    assert alone.wait() == 0, alone.said.read_text()
    for process in start(forks, few, tmp_path, inside="in_float64"):
        assert process.wait() == 0, process.said.read_text()
    one, two = (tmp_path / name / "dacs" for name in ("one", "rank0"))
    assert differ(one, two) < 1e-12
    assert (two / "labelled.txt").read_text() == (one / "labelled.txt").read_text() != ""
    before, lines = last_checkpoint(two), metrics(two)
    assert before["step"] == 4

    (two / "checkpoints/step_00000004.pt").unlink()
    about = json.loads((two / "stage.json").read_text())
    (two / "stage.json").write_text(json.dumps(about | {"state": "running"}))
    for process in start(forks, few, tmp_path, inside="in_float64"):
        assert process.wait() == 0, process.said.read_text()
    assert same(last_checkpoint(two)["modules"], before["modules"]) and metrics(two) == lines


@pytest.mark.parametrize(
    ("own", "inside", "told"),
    [
        (("stages.sean.lr=0.5",), "", "rank 1 has stages.sean.lr 0.5, rank 0 0.001"),
        ((), "of_version:0.0.1", "rank 1 has segadapt 0.0.1, rank 0 "),
    ],
)
def test_ranks_that_mean_something_else_are_named(
    own: tuple[str, ...], inside: str, told: str, forks: Forks, recipe: Path, tmp_path: Path
) -> None:
    processes = start(forks, recipe, tmp_path, own=own, inside=inside)
    assert [process.wait(60) for process in processes] == [2, 2]
    for process in processes:
        assert f"error: the ranks do not agree: {told}" in process.said.read_text()
    assert not (tmp_path / "rank0").exists()


def test_other_data_is_named_too(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    """Its folder may be another one, its files may not."""
    shutil.copytree(recipe.parent / "data", tmp_path / "data")
    own = f"data.target.root={tmp_path}/data/cityscapes"
    next((tmp_path / "data/cityscapes/leftImg8bit/train").rglob("*.png")).unlink()
    processes = start(forks, recipe, tmp_path, own=(own,))
    assert [process.wait(60) for process in processes] == [2, 2]
    assert "rank 1 has target data of sean" in processes[0].said.read_text()


def test_ranks_that_share_no_folder_cannot_share_images(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    pseudo = "stages.pseudo={method: pseudo_labels, model: '@first', scales: [1.0]}"
    processes = start(forks, recipe, tmp_path, "stages.sean=null", pseudo, inside="in_a_second")
    assert [process.wait(60) for process in processes] == [2, 2]
    told = f"error: {tmp_path}/rank0/pseudo: rank 1 cannot see this folder"
    assert told in processes[0].said.read_text()
    assert [path.name for path in (tmp_path / "rank0/pseudo").iterdir()] == ["stage.json"]


def test_a_rank_that_fails_ends_the_other_which_says_why(forks: Forks, recipe: Path, tmp_path: Path) -> None:
    """A broken image in rank 1's share of the first batch, on a disk of its own."""
    shutil.copytree(recipe.parent / "data", tmp_path / "data")
    for image in (tmp_path / "data/gta5").rglob("images/*.png"):
        image.write_bytes(bytes(image.stat().st_size))
    processes = start(forks, recipe, tmp_path, own=(f"data.source.root={tmp_path}/data/gta5",))
    assert [process.wait(60) for process in processes] == [1, 1]
    said = [process.said.read_text() for process in processes]
    assert f"error: {tmp_path}/data/gta5/" in said[1] and "cannot be read as an image" in said[1]
    assert f"error: rank 1 has failed: {tmp_path}/data/gta5/" in said[0]
    assert "Traceback" not in said[0] + said[1]


def test_ranks_share_an_evaluation_and_a_broken_image_costs_no_steps(
    forks: Forks, recipe: Path, tmp_path: Path
) -> None:
    """Broken on rank 1, then on rank 0, then rank 1 is killed at it: then the scores are those of one process.

    So small a rate moves no weight: a training on one rank and on two has the same network to evaluate.
    """
    data = shutil.copytree(recipe.parent / "data", tmp_path / "data")
    stage = {"method": "source_only", "steps": 3, **STAGE, "batch_norm": "frozen", "lr": 1e-30, "evaluate_every": 2}
    content = tree(data, first=stage) | {"runtime": {"device": "cpu", "threads": 1}}
    file, out = write_recipe(tmp_path / "recipe.yaml", content), tmp_path / "two"

    def on_two_ranks(inside: str = "") -> tuple[list[int], list[str]]:
        processes = forks.ranks(2, ["run", str(file), "--out", str(out)], tmp_path, inside)
        codes = [process.wait(60) for process in processes]
        return codes, [process.said.read_text() for process in processes]

    images = sorted((data / "cityscapes/leftImg8bit/val").rglob("*.png"))
    assert len(images) == 2
    for finder, image in ((1, images[1]), (0, images[0])):
        kept = image.read_bytes()
        image.write_bytes(bytes(len(kept)))
        codes, said = on_two_ranks()
        assert codes == [1, 1]
        assert f"error: {image}: cannot be read as an image" in said[finder]
        assert f"error: rank {finder} has failed: {image}: cannot be read as an image" in said[1 - finder]
        checkpoint = last_checkpoint(out / "first")
        assert checkpoint["step"] == 2 and checkpoint["about"]["scores_due"]
        assert [line["step"] for line in metrics(out / "first")] == [1, 2]
        image.write_bytes(kept)

    codes, said = on_two_ranks("killed_at_an_evaluation")
    assert codes == [1, -signal.SIGKILL]
    assert "error: rank 0: lost the other ranks" in said[0]
    assert last_checkpoint(out / "first")["about"]["scores_due"]

    codes, said = on_two_ranks()
    assert codes == [0, 0], said
    run(file, tmp_path / "one")
    ours, theirs = metrics(out / "first"), metrics(tmp_path / "one/first")
    assert [(line["step"], line.keys()) for line in ours] == [(line["step"], line.keys()) for line in theirs]
    scores, expected = (next(line for line in lines if "val/bnm" in line) for lines in (ours, theirs))
    assert {key: scores[key] for key in expected if key.endswith("_miou")} == {
        key: expected[key] for key in ("val/target_miou", "val/source_miou")
    }
    assert scores == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_over_ranks_is_pytorchs_where_there_is_one(momentum: float | None) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5, momentum=momentum)
    nn.init.normal_(plain.weight)
    shared = copy.deepcopy(plain)
    share_statistics(shared, lambda values: values)
    for _ in range(2):
        maps = (100 + torch.randn(3, 5, 4, 6)).requires_grad_()
        again = maps.detach().clone().requires_grad_()
        slope = torch.randn(3, 5, 4, 6)
        for norm, inputs in ((plain, maps), (shared, again)):
            (norm(inputs) * slope).sum().backward()
        torch.testing.assert_close(maps.grad, again.grad, rtol=1e-10, atol=1e-12)
    for key, values in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[key], values, rtol=1e-12, atol=1e-12)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(shared.get_parameter(name).grad, parameter.grad, rtol=1e-10, atol=1e-12)
    for norm in (shared, copy.deepcopy(shared)):
        torch.testing.assert_close(norm.eval()(maps), plain.eval()(maps), rtol=1e-12, atol=1e-10)


def test_a_rank_without_the_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "JOINING", timedelta(seconds=1))
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SegadaptError, match="the ranks could not connect to each other"), ranks.group(cuda=False):
        pass


def test_what_cannot_be_sent_is_told() -> None:
    """And what can is what it was: tied parameters stay tied, an optimizer stays the module's."""
    module = nn.Linear(3, 3).double()
    module.again = module.weight
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9)
    module(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    packed, tensors = ranks._packed((module, optimizer, {"step": torch.tensor(3)}))
    assert len(packed) < 10_000 and sum(tensor.numel() for tensor in tensors) < 60
    copied, own, plain = ranks._Unpickler(io.BytesIO(packed), tensors).load()
    assert copied.again is copied.weight and own.param_groups[0]["params"][0] is copied.weight
    assert torch.equal(copied.weight, module.weight) and copied.weight.requires_grad
    assert own.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys() and int(plain["step"]) == 3
    with pytest.raises(UsageError, match="cannot be sent to the other ranks"):
        ranks._packed(lambda: None)

"""`segadapt push`, and models of the hub for `load`, the verbs and `start`, against a stand-in of its HTTP API."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import segadapt
from command import assert_told, command
from hub_stand_in import Hub, serving
from made_pictures import SIZE, write_model
from scored_runs import blocks, paint, registered, write_run
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import sha256
from segadapt.models.networks import build
from segadapt.weights.hub import Repository, is_hub
from segadapt.weights.initial import load_start
from tiny_runs import tree, write_data, write_recipe

__all__ = ["registered"]
CapSys = pytest.CaptureFixture[str]
SPACE = load_label_space("cityscapes19")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch, str(tmp_path / "hub_cache")) as found:
        yield found


def changed(model: Path, by: float) -> Path:
    """Another model, beside it."""
    from segadapt.weights.saved import load_model, save_model

    found = load_model(model)
    with torch.no_grad():
        for parameter in found.network.parameters():
            parameter.add_(by)
    other = model.with_name("changed.safetensors")
    save_model(other, found.network, found.header)
    return other


@pytest.mark.usefixtures("registered")
def test_a_run_is_pushed_with_its_card_and_nothing_of_this_machine(hub: Hub, tmp_path: Path, capsys: CapSys) -> None:
    paint(tmp_path / "data", SPACE, "val", [blocks(SPACE, 0)])
    write_run(tmp_path / "run", SPACE, tmp_path / "data")
    outcome = command(capsys, "push", tmp_path / "run", "anna/colours", "--license", "cc-by-4.0", "--private")
    assert outcome.code == 0, outcome.err
    [(commit, files)] = hub.repositories["anna/colours"]
    assert sorted(files) == ["README.md", "evaluation.json", "model.safetensors", "recipe.yaml"]
    assert f"hf://anna/colours@{commit}" in outcome.out and hub.private == {"anna/colours"}
    assert files["model.safetensors"] == (tmp_path / "run/adapt/model.safetensors").read_bytes()
    assert all(str(tmp_path).encode() not in content for content in files.values())
    assert yaml.safe_load(files["recipe.yaml"])["data"]["target"]["root"] == "???"
    _, front, text = files["README.md"].decode().split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["library_name"], about["pipeline_tag"]) == ("segadapt", "image-segmentation")
    assert about["license"] == "cc-by-4.0" and "sean" in about["tags"]
    [result] = about["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 45.0
    assert 'segadapt.load("hf://anna/colours")' in text and "| Target labels used | no |" in text
    assert "cityscapes" in text and "research only" in text
    loaded = segadapt.load("hf://anna/colours", device="cpu")
    image = SPACE.palette[blocks(SPACE, 3)]
    expected = segadapt.load(tmp_path / "run/adapt", device="cpu").predict(image)
    np.testing.assert_array_equal(loaded.predict(image).labels, expected.labels)


def test_a_revision_pins_a_model(hub: Hub, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_model(tmp_path / "first.safetensors")
    second = changed(first, 0.01)
    for model in (first, second):
        assert command(capsys, "push", model, "anna/small").code == 0
    (old, old_files), (_, new_files) = hub.repositories["anna/small"]
    assert old_files["model.safetensors"] == first.read_bytes() != new_files["model.safetensors"]
    pinned, newest = segadapt.load(f"hf://anna/small@{old}"), segadapt.load("hf://anna/small")
    assert pinned.path.read_bytes() == first.read_bytes() and newest.path.read_bytes() == second.read_bytes()
    assert any("segadapt" in agent for agent in hub.agents)
    # As the command line has it, a path; and as initial weights.
    picture = tmp_path / "street.png"
    from PIL import Image

    Image.fromarray(np.zeros((SIZE[1], SIZE[0], 3), np.uint8)).save(picture)
    assert command(capsys, "predict", f"hf://anna/small@{old}", picture, "-o", tmp_path / "out").code == 0
    network = build("deeplab_small", classes=19)
    assert load_start(network, f"hf://anna/small@{old}").sha256 == sha256(first)
    # In a recipe: whether target labels had a part in it is read from the file.
    stage = {"method": "source_only", "network": "deeplab_small", "start": f"hf://anna/small@{old}", "size": [96, 48]}
    recipe = write_recipe(tmp_path / "r.yaml", tree(write_data(tmp_path / "data"), s={**stage, "steps": 1, "batch": 1}))
    outcome = command(capsys, "run", recipe, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    trained = segadapt.load(tmp_path / "run").header
    assert trained.used_target_labels is None and trained.step == 1
    # What was fetched once is there without a connection.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert segadapt.load(f"hf://anna/small@{old}").path == pinned.path


def test_a_dry_run_writes_the_folder(tmp_path: Path, capsys: CapSys) -> None:
    model = write_model(tmp_path / "model.safetensors")
    outcome = command(capsys, "push", model, "anna/small", "--dry-run", "-o", tmp_path / "look")
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == ["README.md", "model.safetensors"]
    card = (tmp_path / "look/README.md").read_text()
    assert "It has not been scored." in card and "license: other" in card
    assert "| Target labels used | unknown |" in card
    again = command(capsys, "push", model, "anna/small", "--dry-run", "-o", tmp_path / "look")
    assert_told(again, 2, str(tmp_path / "look"), "already exists", "or an empty one.")
    (tmp_path / "broken.json").write_text(json.dumps({}))
    refused = command(capsys, "push", tmp_path / "nowhere", "anna/small", "--dry-run", "-o", tmp_path / "other")
    assert_told(refused, 2, str(tmp_path / "nowhere"), "the model does not exist", "checkpoint file.")
    assert not (tmp_path / "other").exists()


def test_what_the_hub_refuses_is_one_line(
    hub: Hub, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model.safetensors")
    assert command(capsys, "push", model, "anna/small").code == 0
    for place, what, remedy in (
        ("hf://anna/nothing", "no such repository", "`hf auth login`."),
        ("hf://anna/small@v9", "no such revision", "the @."),
    ):
        told = command(capsys, "export", place, "-o", tmp_path / "out.pth")
        assert_told(told, 1, place, what, remedy)
    hub.repositories["anna/empty"] = [("1" * 40, {"README.md": b""})]
    with pytest.raises(SegadaptError, match=r"has no model\.safetensors"):
        segadapt.load("hf://anna/empty")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    told = command(capsys, "push", model, "anna/small")
    assert_told(told, 1, "hf://anna/small", "the hub refuses it", "may write.")


def test_without_a_connection(tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SegadaptError, match="no connection"):
        segadapt.load("hf://anna/small")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    told = command(capsys, "push", model, "anna/small")
    assert_told(told, 1, "hf://anna/small", "HF_HUB_OFFLINE is set", "or give a file.")


def test_names_of_repositories() -> None:
    assert Repository.parse("anna/a-b.c@v1", "x") == Repository("anna/a-b.c", "v1")
    assert is_hub(Path("hf://anna/small")) and is_hub("hf://anna/small") and not is_hub(Path("hf/anna"))
    for wrong in ("anna", "anna/small/more", "anna/small@", "/small", "anna/..", "an na/x"):
        with pytest.raises(UsageError, match="is not a repository on the hub"):
            Repository.parse(wrong, "x")

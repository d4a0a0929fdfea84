"""`segadapt export -o model.onnx`: what ONNX Runtime makes of a file is what `segadapt predict` makes of the model."""

import ast
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import assert_told, command
from made_pictures import SIZE, write_model
from pages import ROOT
from scored_runs import blocks, paint, registered, write_run
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.export import onnx_file, onnx_graph
from segadapt.export.onnx_check import built_in_images, labels_of, session
from segadapt.export.onnx_file import Exported, Wanted, export_onnx
from segadapt.export.onnx_graph import network_graph
from segadapt.models import dino, mit, vit
from segadapt.models.networks import build
from segadapt.models.segmenter import CAFFE
from segadapt.sample.domains import sample_pair
from segadapt.weights.saved import SavedModel, load_any

__all__ = ["registered"]
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="the extra is not installed: pip install 'segadapt[onnx]'")

CapSys = pytest.CaptureFixture[str]
SPACE = load_label_space("cityscapes19")
QUICK = Wanted(exporters=("torchscript",))
"""The older exporter takes a tenth of the time."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def saved(file: Path) -> SavedModel:
    return load_any(file)


@pytest.fixture(scope="module")
def exported(file: Path, saved: SavedModel) -> Exported:
    """As the command makes it, with all outputs."""
    return export_onnx(file, saved, Wanted(outputs=("logits", "confidence")))


@pytest.mark.numeric
def test_any_batch_of_any_size(exported: Exported) -> None:
    assert exported.exporter == "dynamo"
    running = session(exported.model.SerializeToString())
    assert [output.name for output in running.get_outputs()] == ["labels", "confidence", "logits"]
    for number, size in ((1, SIZE), (3, (131, 77)), (2, (300, 150))):
        images = np.stack([sample_pair("cityscapes", "val", i, size=size)[0] for i in range(number)])
        labels, confidence, logits = running.run(None, {"images": images})
        assert labels.dtype == np.uint8 and labels.shape == confidence.shape == images.shape[:3]
        assert logits.shape == (number, len(SPACE), *images.shape[1:3])
        expected = [exported.predictor.confident_labels(image) for image in images]
        assert (labels == np.stack([one for one, _ in expected])).mean() > 0.999
        # A level of grey that the two round otherwise may move a single pixel more.
        assert np.abs(confidence - np.stack([one for _, one in expected])).mean() < 1e-4


def test_the_file_says_what_it_is(exported: Exported, file: Path, tmp_path: Path) -> None:
    exported.write(tmp_path / "model.onnx")
    facts = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(SPACE.classes)
    assert json.loads(facts["colors"]) == SPACE.colors.tolist()
    assert json.loads(facts["ids"])["cityscapes"][0] == [7]
    assert json.loads(facts["pixel_format"])["mean"] == [123.675, 116.28, 103.53]
    assert (facts["network"], facts["network_size"], facts["precision"]) == ("deeplab_small", "96x48", "fp32")
    assert (facts["label_space"], facts["used_target_labels"]) == ("cityscapes19", "unknown")
    assert float(facts["agreement_percent"]) >= 99.9 and len(facts["model_sha256"]) == 64


@pytest.mark.numeric
def test_the_pixel_format_and_the_corner_rule_are_in_the_graph(file: Path) -> None:
    """Caffe's channels, aligned corners, and another input size."""
    found = load_any(file)
    found.network.pixels, found.network.align_corners = CAFFE, True
    made = export_onnx(file, found, replace(QUICK, size=(64, 64)))
    assert made.agreement.percent >= 99.9 and made.exporter == "torchscript"
    with pytest.raises(UsageError, match="--size: images of 4×64 pixels are too small"):
        export_onnx(file, found, replace(QUICK, size=(4, 64)))


def test_the_older_exporter_takes_its_turn(saved: SavedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx_graph._exported

    def failing(module: torch.nn.Module, size: tuple[int, int], exporter: str) -> Any:
        if exporter == "dynamo":
            raise RuntimeError("no such operation.\nmore")
        return real(module, size, "torchscript")

    monkeypatch.setattr(onnx_graph, "_exported", failing)
    assert network_graph(saved.network, SIZE).exporter == "torchscript"
    with pytest.raises(SegadaptError, match=r"cannot be written as ONNX \(RuntimeError: no such operation\)\. docs"):
        network_graph(saved.network, SIZE, ["dynamo"])


def test_what_differs_from_pytorch_is_not_written(
    file: Path, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_graph.surroundings
    wrong = replace(CAFFE, mean=(0.0, 0.0, 0.0))
    monkeypatch.setattr(onnx_file, "surroundings", lambda *given: replace(real(*given), pixels=wrong))
    monkeypatch.setattr(onnx_file, "network_graph", lambda *given: network_graph(given[0], given[1], ["torchscript"]))
    told = command(capsys, "export", file, "-o", tmp_path / "model.onnx")
    assert_told(told, 1, "export", "but 99.9 % must (worst: generated picture", "Please report it.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.numeric
def test_fewer_bits(file: Path, saved: SavedModel) -> None:
    images = built_in_images(SIZE)
    sizes = {}
    for precision in ("fp32", "fp16", "int8"):
        wanted = replace(QUICK, precision=precision, least=80.0)  # weights that nobody has trained
        made = export_onnx(file, saved, wanted, calibration=images)
        sizes[precision] = made.model.ByteSize()
        facts = session(made.model.SerializeToString()).get_modelmeta().custom_metadata_map
        assert facts["precision"] == precision
        labels = labels_of(session(made.model.SerializeToString()), images[1].pixels[None])[0]
        assert (labels == made.predictor.labels(images[1].pixels)).mean() > 0.8
    assert sizes["fp16"] < 0.6 * sizes["fp32"] and sizes["int8"] < 0.5 * sizes["fp32"]
    with pytest.raises(SegadaptError, match=r"of the labels in int8 .* 100 % must .* more images of the target"):
        export_onnx(file, saved, replace(QUICK, precision="int8", least=100.0), calibration=images)


@pytest.mark.usefixtures("registered")
def test_scores_and_latency_beside_pytorch(tmp_path: Path, capsys: CapSys) -> None:
    """The network that knows every colour has 100 percent, in 8 bits hardly less."""
    paint(tmp_path / "data", SPACE, "val", [blocks(SPACE, seed) for seed in range(3)])
    write_run(tmp_path / "run", SPACE, tmp_path / "data")
    images = tmp_path / "data/leftImg8bit/val"
    outcome = command(
        capsys,
        "export",
        tmp_path / "run",
        "-o",
        tmp_path / "model.onnx",
        "--check",
        images,
        "--evaluate",
        "--json",
        "-",
    )
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert (record["agreement"]["percent"], record["agreement"]["images"]) == (100.0, 3)
    assert [(row["name"], row["miou"]) for row in record["scores"]] == [("PyTorch fp32", 100.0), ("ONNX fp32", 100.0)]
    assert all(row["milliseconds"] > 0 and row["megabytes"] > 0 for row in record["scores"])
    assert record["setting"]["threads"] == torch.get_num_threads() and (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "place", "what"),
    [
        (["--precision", "int4"], "--precision", "'int4' is not a precision"),
        (["--precision", "int8"], "--precision", "int8 needs images to calibrate on"),
        (["--calibrate", "."], "--calibrate", "applies to --precision int8 only"),
        (["--outputs", "label"], "--outputs", "unknown output 'label'"),
        (["--split", "val"], "--layout, --root and --split", "belong to --evaluate"),
        (["--least-agreement", "101"], "--least-agreement", "101 is not a percentage"),
        (["--start-file"], "--start-file", "applies to .pth files, but the output is .onnx"),
        (["--evaluate"], "", "belongs to no run"),
    ],
)
def test_wrong_options_are_told(
    options: list[str], place: str, what: str, file: Path, tmp_path: Path, capsys: CapSys
) -> None:
    told = command(capsys, "export", file, "-o", tmp_path / "model.onnx", *options)
    assert told.code == 2 and len(told.errors) == 1, told.err
    assert told.errors[0].startswith(f"error: {place}") and what in told.errors[0]
    assert not (tmp_path / "model.onnx").exists()


def test_the_options_of_one_form_are_not_for_the_other(file: Path, tmp_path: Path, capsys: CapSys) -> None:
    told = command(capsys, "export", file, "-o", tmp_path / "model.pth", "--precision", "fp16")
    assert_told(told, 2, "--precision", "applies to .onnx files, but the output is .pth", "Leave one of them out.")


def test_without_the_extra(file: Path, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segadapt.extras.find_spec", lambda name: None if name == "onnxruntime" else name)
    told = command(capsys, "export", file, "-o", tmp_path / "model.onnx")
    assert_told(told, 2, ".onnx", "onnxruntime is not installed", "pip install 'segadapt[onnx]'.")


def test_the_example_needs_three_packages(
    exported: Exported, tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = ROOT / "examples/onnx_predict.py"
    tree = ast.parse(example.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
    exported.write(tmp_path / "model.onnx")
    image = sample_pair("cityscapes", "val", 5, size=(120, 60))[0]
    Image.fromarray(image).save(tmp_path / "street.png")
    monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path / "model.onnx"), str(tmp_path / "street.png")])
    runpy.run_path(str(example), run_name="__main__")
    coloured = np.asarray(Image.open(tmp_path / "street_colour.png"))
    expected = SPACE.palette[exported.predictor.labels(image)]
    assert (coloured == expected).all(axis=-1).mean() > 0.999
    assert "street.png " in capsys.readouterr().out


SMALL: dict[str, dict[str, Any]] = {
    "segformer": {"name": "segformer", "size": "b0", "width": 16},
    "hrda": {"name": "hrda", "of": "deeplab_small", "detail": [64, 64]},
    "dinov2": {"name": "dinov2", "size": "s"},
    "dinov2_registers": {"name": "dinov2", "size": "s", "registers": True},
    "dinov2_pad": {"name": "dinov2", "size": "s", "fit": "pad"},
    "dinov3": {"name": "dinov3", "size": "s"},
}


@pytest.mark.parametrize("name", list(SMALL))
def test_every_network_takes_a_batch_of_any_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of an export, of networks with few blocks: benchmarks/onnx_networks.py does whole ones."""
    monkeypatch.setitem(mit.SIZES, "b0", mit.Size((8, 16, 20, 16), (1, 1, 1, 1)))
    for module in (vit, dino):
        monkeypatch.setitem(module.SIZES, "s", vit.Size(32, 1, 2))
    network = build(SMALL[name], classes=5).for_inference()
    program = torch.export.export(
        onnx_graph._Logits(network),
        (torch.zeros(2, 3, 64, 96),),
        dynamic_shapes={"pixels": {0: torch.export.Dim("N")}},
        strict=False,
    )
    for number in (1, 3):
        pixels = torch.rand(number, 3, 64, 96, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            found, expected = program.module()(pixels), network.segment(pixels).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

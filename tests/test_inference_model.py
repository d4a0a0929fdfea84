"""`segadapt.load` and what it gives; the verbs evaluate and predict."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from scored_runs import SIZE, blocks, paint, registered, save, write_run
from segadapt.cli.evaluate import evaluate
from segadapt.cli.predict import predict
from segadapt.cli.report import report
from segadapt.data.label_spaces import IGNORE, load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.inference.model import find_generator, find_model, find_models, load
from segadapt.inference.pixels import AnyImage
from segadapt.models.style_transfer import StyleTransfer
from segadapt.weights.saved import GeneratorHeader, save_generator

__all__ = ["registered"]
SPACE = load_label_space("cityscapes19")
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    paint(tmp_path / "data", SPACE, "val", [blocks(SPACE, seed) for seed in range(3)])
    write_run(tmp_path / "run", SPACE, tmp_path / "data")
    return tmp_path / "run"


def invoke(*arguments: object) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (evaluate, predict, report):
        app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_run_means_its_last_stage_but_the_upper_bound(run: Path) -> None:
    assert find_model(run) == run / "adapt" / "model.safetensors"
    assert [file.parent.name for file in find_models(run)] == ["baseline", "adapt", "bound"]
    assert find_model(run / "bound") == run / "bound" / "model.safetensors"
    shutil.rmtree(run / "adapt")
    shutil.rmtree(run / "baseline")
    assert find_model(run).parent.name == "bound"
    (run / "recipe.yaml").unlink()
    assert load(run).header.stage == "bound"


def test_a_generator_is_no_segmenter_of_a_run(run: Path) -> None:
    """Its file says so, whatever the method's name."""
    save_generator(run / "baseline/model.safetensors", StyleTransfer(), GeneratorHeader())
    assert [file.parent.name for file in find_models(run)] == ["adapt", "bound"]
    assert find_generator(run) == run / "baseline/model.safetensors"
    assert find_generator(run / "adapt") == run / "adapt/model.safetensors"  # what was named is taken
    (run / "baseline/model.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no generator"):
        find_generator(run)
    with pytest.raises(UsageError, match="the generator does not exist"):
        find_generator(run / "nowhere")


def test_no_model_is_a_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        load(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "nowhere")


@pytest.mark.numeric
def test_predict_takes_paths_arrays_and_pillow_images(run: Path, tmp_path: Path) -> None:
    model = load(run / "adapt")
    truth = blocks(SPACE, 7)
    image = SPACE.palette[truth]
    Image.fromarray(image).save(tmp_path / "street.png")
    counted = truth != IGNORE
    for given in (tmp_path / "street.png", str(tmp_path / "street.png"), image, Image.fromarray(image)):
        found = model.predict(given)
        np.testing.assert_array_equal(found.labels[counted], truth[counted])
        assert found.labels.dtype == np.uint8
        assert found.probabilities.shape == (19, SIZE[1], SIZE[0])
        np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    found.save(tmp_path / "out.png", format="label_id")
    raw = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(SPACE.table("cityscapes")[raw], found.labels)
    assert found.overlay().size == SIZE
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SegadaptError, match=r"broken\.png"):
        model.predict(tmp_path / "broken.png")


def test_predict_takes_lists_and_tensors_and_batches_them(run: Path, tmp_path: Path) -> None:
    model = load(run / "adapt", device="cpu", scales=(1, 0.5), mirror=True)
    images = [SPACE.palette[blocks(SPACE, seed)] for seed in range(3)]
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    larger = np.asarray(Image.fromarray(images[2]).resize((48, 40)))
    tensor = torch.from_numpy(images[0].copy()).permute(2, 0, 1)
    given: list[AnyImage] = [tensor, tmp_path / "one.png", Image.fromarray(larger)]
    alone = [model.predict(image) for image in (images[0], images[1], larger)]
    calls: list[int] = []
    model.predictor._running_network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    for batch, expected in ((2, [4, 4, 2, 2]), (None, [2, 2] * 3), (8, [6, 6])):
        calls.clear()
        for one, same in zip(model.predict(given, batch=batch), alone, strict=True):
            np.testing.assert_array_equal(one.image, same.image)
            np.testing.assert_allclose(one.probabilities, same.probabilities, atol=1e-5)
            assert one.labels.shape == same.labels.shape
        assert calls == expected  # each with its mirror image, at two scales
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"is a uint8 array \(4, 4\)\. Give a uint8 RGB array \(H, W, 3\)"),
        (np.full((4, 4, 3), 255, np.float32), "has floating-point values from 255 to 255. Give 0 … 1, or uint8"),
        (np.full((4, 4, 3), np.nan), "has floating-point values from nan to nan"),
        (np.zeros((4, 4, 3), np.int64), "is a int64 array"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"Give a uint8 RGB tensor \(3, H, W\)"),
        (torch.full((3, 4, 4), -1.5), "has floating-point values from -1.5 to -1.5"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"is a torch\.int64 tensor"),
        ([3], "is a int"),
    ],
)
def test_what_is_no_image_is_told(run: Path, image: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(run / "adapt", device="cpu").predict(image)


def test_predict_takes_what_other_programs_make_of_pictures(run: Path) -> None:
    model = load(run / "adapt", device="cpu")
    image = SPACE.palette[blocks(SPACE, 0)]
    channels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    grey = np.zeros((SIZE[1], SIZE[0]), np.uint16)
    grey[:, ::2] = 40_000
    for given in (image / 255, (image / 255).astype(np.float32), channels / 255, (channels / 255).half()):
        np.testing.assert_array_equal(model.predict(given).image, image)
    for one in model.predict(list(torch.stack([channels, channels]))):
        np.testing.assert_array_equal(one.image, image)
    np.testing.assert_array_equal(model.predict(Image.fromarray(grey)).image[..., 1], grey >> 8)
    palette = Image.fromarray(blocks(SPACE, 0)).convert("P")
    palette.info["transparency"] = 3
    model.predict(palette)
    assert palette.info["transparency"] == 3  # what is somebody else's is left alone


def test_load_takes_the_gpu_where_there_is_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(run / "adapt").predictor.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    asked: list[str] = []

    def choose(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr("segadapt.inference.model.choose_device", choose)
    load(run / "adapt")
    assert asked == ["auto"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp16"}, "precision: 'fp16' is not a precision"),
        ({"device": "gpu"}, "^device: 'gpu' is not a device"),
        ({"device": "cuda"}, "^device cuda: no CUDA device was found. Use device cpu.$"),
        ({"size": (0, 5)}, "must be positive"),
        ({"scales": ()}, "must be positive"),
        ({"scales": 0.0}, "must be positive"),
        ({"scales": None}, "scales: None is not a list of scales"),
        ({"scales": "1"}, "scales: '1' is not a list of scales"),
    ],
)
def test_options_of_load_are_checked(
    run: Path, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=said):
        load(run / "adapt", **options)


def test_one_number_is_one_scale(run: Path) -> None:
    assert load(run / "adapt", device="cpu", scales=0.5).predictor.scales == (0.5,)
    assert load(run / "adapt", device="cpu", scales=np.float32(0.5)).predictor.scales == (0.5,)  # type: ignore[arg-type]


def test_precision_is_honoured(run: Path) -> None:
    image = SPACE.palette[blocks(SPACE, 1)]
    assert load(run / "adapt", device="cpu", precision="bf16").predictor.precision == "bf16"
    assert load(run / "adapt", device="cpu", precision="auto").predictor.precision in ("fp32", "bf16")
    assert load(run / "adapt", device="cpu", precision="bf16").predict(image).probabilities.dtype == np.float32


def test_a_prediction_is_saved_as_its_suffix_says(run: Path, tmp_path: Path) -> None:
    found = load(run / "adapt", device="cpu").predict(SPACE.palette[blocks(SPACE, 3)])
    for name, form in (("a.png", "PNG"), ("a.tif", "TIFF"), ("a.bmp", "BMP")):
        found.save(tmp_path / name, format="train_id")
        with Image.open(tmp_path / name) as saved:
            assert saved.format == form
            np.testing.assert_array_equal(np.asarray(saved), found.labels)
    found.save(tmp_path / "a.jpg", format="overlay")
    with Image.open(tmp_path / "a.jpg") as saved:
        assert (saved.format, saved.size) == ("JPEG", SIZE)
    for name, form in (("y.jpg", "colour"), ("y.webp", "label_id")):
        with pytest.raises(
            UsageError, match=r'changes pixel values.* Save labels as \.png; format="overlay" may be \.jpg'
        ):
            found.save(tmp_path / name, format=form)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'\.gif' is not an image format"):
        found.save(tmp_path / "y.gif")
    with pytest.raises(UsageError, match="unknown format 'ids'"):
        found.save(tmp_path / "y.png", format="ids")  # type: ignore[arg-type]
    assert not list(tmp_path.glob("y.*"))


def test_evaluate_a_run(run: Path, tmp_path: Path) -> None:
    output = succeed("evaluate", run, "--domain", "target", "--out", tmp_path / "scores.json", "--device", "cpu")
    assert output.count("100.00") >= 3 * 19
    assert "used target labels" in output
    records = json.loads((tmp_path / "scores.json").read_text())
    assert [record["stage"] for record in records] == ["baseline", "adapt", "bound"]
    assert [record["used_target_labels"] for record in records] == [False, False, True]
    assert records[1]["label_free"]["points"] == 4
    assert records[1]["domains"]["target"]["miou"] == 100
    for stage in ("baseline", "adapt", "bound"):
        with Image.open(tmp_path / f"scores_{stage}_target.png") as plot:
            assert plot.width > 500


def test_evaluate_elsewhere_in_another_space(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    save(alone, SPACE)
    data = ("--layout", "cityscapes", "--root", tmp_path / "data")
    views = ("--scales", "1,0.5", "--mirror", "--window", "16x16", "--size", "32x16", "--precision", "bf16")
    out = ("--out", tmp_path / "one.json", "--write-predictions", tmp_path / "p", "--format", "colour")
    output = succeed("evaluate", alone, *data, "--label-space", "cityscapes16", *views, *out)
    assert "mIoU cityscapes13" in output
    record = json.loads((tmp_path / "one.json").read_text())
    target = record["domains"]["target"]
    assert record["label_space"] == "cityscapes16"
    assert (target["scales"], target["mirror"], target["window"]) == ([1.0, 0.5], True, [16, 16])
    assert target["columns"][-1] == "other"
    assert len(list((tmp_path / "p").rglob("*.png"))) == 3
    assert target["rules"] == []
    succeed("evaluate", alone, *data, *views, "--official", "--out", tmp_path / "one.json")
    official = json.loads((tmp_path / "one.json").read_text())["domains"]["target"]
    assert official["rules"] == ["quadrants", "softmax_order", "sum_at_input"]


def test_evaluate_a_labelled_folder(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for split in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / "data" / split / "val" / "brno", own / split)
    for label in (own / "gtFine").glob("*.png"):
        label.rename(label.with_name(label.name.replace("_gtFine_labelIds", "_leftImg8bit")))
    data = ("--layout", "folder", "--root", own, "--images", "leftImg8bit", "--labels", "gtFine")
    succeed("evaluate", run / "adapt", *data, "--encoding", "cityscapes", "--out", tmp_path / "own.json")
    target = json.loads((tmp_path / "own.json").read_text())["domains"]["target"]
    assert (target["split"], target["images"], target["miou"]) == ("train", len(list((own / "gtFine").iterdir())), 100)


def test_predict_a_folder(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "data" / "leftImg8bit" / "val"
    arguments = ("predict", run, images, "-o", tmp_path / "out", "--format", "colour,overlay", "--device", "cpu")
    assert "3 images predicted:" in succeed(*arguments)
    coloured = tmp_path / "out" / "colour" / "brno" / "brno_000000_000002_leftImg8bit.png"
    truth = blocks(SPACE, 2)
    np.testing.assert_array_equal(np.asarray(Image.open(coloured))[truth != IGNORE], truth[truth != IGNORE])
    coloured.unlink()
    assert "1 images predicted, 2 were already done" in succeed(*arguments)
    assert coloured.is_file()


def test_report_prints_its_path(run: Path) -> None:
    for metrics in run.rglob("metrics.jsonl"):
        metrics.unlink()  # no curves to draw
    assert succeed("report", run, "--images", 0).strip() == str(run / "report.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "RUN", "--scales", "1,big"), "--scales: '1,big' is not a list of scales"),
        (("evaluate", "RUN", "--scales", "0"), "--scales: '0' is not a list of scales"),
        (("evaluate", "RUN", "--window", "12"), "--window: '12' is not a size"),
        (("predict", "RUN", "RUN", "-o", "x", "--size", "0x5"), "--size: '0x5' is not a size"),
        (("evaluate", "RUN", "--precision", "fp8"), "--precision: 'fp8' is not a precision"),
        (("evaluate", "RUN", "--format", "gif"), "--format: unknown format 'gif'"),
        (("evaluate", "RUN", "--domain", "moon"), "--domain: 'moon' is not a domain"),
        (("evaluate", "RUN", "--labels", "gt"), "--labels: applies only to data other than the run's"),
        (("evaluate", "RUN", "--root", "RUN"), "--layout and --root: belong together"),
        (("evaluate", "RUN", "--root", "RUN", "--layout", "nuscenes"), "--layout: unknown layout 'nuscenes'"),
        (("evaluate", "RUN", "--label-space", "mars"), "--label-space: unknown label space 'mars'"),
        (("evaluate", "RUN/data"), "RUN/data: the model does not exist"),
        (("evaluate", "RUN", "--domain", "source"), "nowhere"),
    ],
)
def test_misuse_is_told(run: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*(argument.replace("RUN", str(run)) for argument in arguments))
    assert isinstance(result.exception, UsageError)
    assert message.replace("RUN", str(run)) in str(result.exception)


def test_a_model_without_a_run_needs_data(tmp_path: Path) -> None:
    save(tmp_path / "alone.safetensors", SPACE)
    with pytest.raises(UsageError, match="Give --layout and --root"):
        succeed("evaluate", tmp_path / "alone.safetensors")

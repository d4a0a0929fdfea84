"""What the web app shows, without a browser and without gradio: choices, images, clips, runs, its server's manners."""

import base64
import io
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from command import assert_told, command
from scored_runs import blocks, paint, registered, write_run
from segadapt.app import networks, runs
from segadapt.app.choices import Choices, find_choices
from segadapt.app.networks import Networks
from segadapt.app.pictures import Wanted, look, read_upload, see, stylized
from segadapt.app.server import address, listening
from segadapt.app.temporary import AGE, new_folder, temporary_folder
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.errors import SegadaptError, UsageError
from segadapt.files import write_json
from segadapt.models.style_transfer import StyleTransfer
from segadapt.report.records import read_run
from segadapt.weights.saved import GeneratorHeader, SavedModel, load_any, save_generator

pytestmark = pytest.mark.usefixtures(registered.__name__)
CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]


@pytest.fixture
def space() -> LabelSpace:
    return load_label_space("cityscapes19")


@pytest.fixture
def run(tmp_path: Path, space: LabelSpace, registered: None) -> Path:
    """A scored run of three stages; the first val image is predicted all wrong, the others right."""
    labels = [blocks(space, seed) for seed in range(3)]
    paint(tmp_path / "data", space, "val", labels, [np.uint8(18) - np.minimum(labels[0], 18), *labels[1:]])
    write_run(tmp_path / "run", space, tmp_path / "data")
    return tmp_path / "run"


def nobody(text: str) -> None:
    raise AssertionError(text)


def opened(*places: Path) -> tuple[Choices, Networks]:
    choices = find_choices(places, nobody)
    return choices, Networks(choices, CPU)


def pictures(html: str) -> list[Pixels]:
    """The pictures of a page, in order, as RGB."""
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found]


def test_choices_are_the_models_of_runs_in_their_order_and_its_answer_is_chosen(run: Path) -> None:
    choices = find_choices([run], nobody)
    assert list(choices.runs) == ["run"] and not choices.generators
    assert list(choices.segmenters) == ["baseline", "adapt", "bound"]
    assert choices.answers == ["adapt"]  # the bound has seen labels of the target
    assert choices.of_run("run") == {name: name for name in ("baseline", "adapt", "bound")}


def test_names_of_several_runs_do_not_collide(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other" / "run"))
    save_generator(other / "style" / "model.safetensors", StyleTransfer(), GeneratorHeader(size=(32, 16)))
    alone = Path(shutil.copy(run / "adapt" / "model.safetensors", tmp_path / "mine.safetensors"))
    choices = find_choices([run, other, alone, run / "bound"], nobody)
    assert list(choices.runs.values()) == [run, other] and list(choices.runs) == ["run", "other/run"]
    assert choices.segmenters["run/adapt"] == run / "adapt" / "model.safetensors"
    assert choices.segmenters["other/run/adapt"] == other / "adapt" / "model.safetensors"
    assert choices.segmenters["mine"] == alone and len(choices.segmenters) == 8
    assert choices.generators == {"other/run/style": other / "style" / "model.safetensors"}
    assert choices.answers == ["run/adapt", "other/run/adapt", "mine", "bound"]


def test_a_damaged_model_of_a_run_is_left_out_and_told(run: Path) -> None:
    (run / "adapt" / "model.safetensors").write_bytes(b"no model")
    said: list[str] = []
    choices = find_choices([run], said.append)
    assert list(choices.segmenters) == ["baseline", "bound"]
    assert said == [f"{run / 'adapt' / 'model.safetensors'}: damaged, and left out"]
    assert choices.answers == ["bound"]  # the last that there is
    with pytest.raises(SegadaptError, match="adapt"):  # given by itself it is all that was wanted
        find_choices([run / "adapt"], nobody)


def test_without_arguments_the_runs_of_the_folder_are_taken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(UsageError, match="no run folder"):
        find_choices([], nobody)
    shutil.copytree(run, run.parent / "runs" / "mine")
    assert list(find_choices([], nobody).runs) == ["mine"]


def test_an_image_is_shown_with_the_classes_of_each_model(run: Path, space: LabelSpace) -> None:
    _, own = opened(run)
    labels = np.minimum(blocks(space, 5, classes=4), 4)
    image = space.palette[labels]
    seen = see(image, own.segmenter("adapt"), Wanted(confidence=True, attention=True))
    assert seen.labels.shape == (220, 440)  # enlarged: 16 × 32 would be a stamp
    assert (seen.labels[7::14, 7::14].shape) and set(np.unique(seen.labels)) >= set(np.unique(labels))
    assert sum(seen.shares.values()) == pytest.approx(1, abs=1e-2)
    assert list(seen.shares.values()) == sorted(seen.shares.values(), reverse=True)
    assert 0.9 < seen.confidence <= 1 and all(0 < sure <= 1 for sure in seen.sure.values())
    assert len(seen.more) == 2  # confidence and attention
    assert len(see(image, own.segmenter("baseline"), Wanted(attention=True)).more) == 0  # it has no attention

    html = look(image, [own.segmenter("adapt"), own.segmenter("baseline")], Wanted())
    photo, over, _, other, differ = pictures(html)
    assert np.array_equal(over, space.palette[seen.labels]) and np.array_equal(over, other)
    assert not (differ == (224, 58, 46)).all(-1).any()  # they are one network
    assert photo.shape == over.shape == differ.shape


def test_names_of_models_are_text_on_the_page(run: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(run / "adapt" / "model.safetensors", tmp_path / "<img src=x>.safetensors"))
    _, own = opened(file)
    html = look(np.zeros((16, 32, 3), np.uint8), [own.segmenter("<img src=x>")], Wanted())
    assert "<img src=x>" not in html and "&lt;img src=x&gt;" in html


def test_the_style_preview_is_the_generators_copy(tmp_path: Path) -> None:
    network = StyleTransfer(residual=True)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)  # what it adds to its input is nothing
    save_generator(tmp_path / "style.safetensors", network, GeneratorHeader(size=(64, 32), residual=True))
    _, own = opened(tmp_path / "style.safetensors")
    image = np.full((40, 80, 3), (10, 120, 200), np.uint8)
    made = stylized(image, own.stylizer("style"))
    assert made.size == (440, 220)
    assert np.abs(np.asarray(made, np.int64) - (10, 120, 200)).max() <= 1


def test_uploads_have_a_limit_of_pixels_and_are_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    assert read_upload(tmp_path / "a.png").shape == (20, 30, 3)
    monkeypatch.setenv("SEGADAPT_MAX_PIXELS", "599")
    with pytest.raises(SegadaptError, match="30×20 pixels"):
        read_upload(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("%!PS")
    with pytest.raises(SegadaptError, match="cannot be read"):
        read_upload(tmp_path / "b.png")


def test_networks_are_loaded_once_a_few_are_kept_and_new_files_replace_old(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def load(file: Path, space: LabelSpace | None) -> SavedModel:
        loaded.append(file)
        return load_any(file, space)

    monkeypatch.setattr(networks, "load_any", load)
    monkeypatch.setattr(networks, "KEPT", 2)
    choices, own = opened(run)
    first = own.segmenter("adapt")
    assert own.segmenter("adapt") is first and len(loaded) == 1
    os.utime(choices.segmenters["adapt"], (1, 1))
    assert own.segmenter("adapt") is not first and len(loaded) == 2
    for name in ("baseline", "bound", "adapt"):
        own.segmenter(name)
    assert len(loaded) == 5  # two were kept
    with pytest.raises(UsageError, match="no 'adopt'"):
        own.segmenter("adopt")


def test_a_run_is_shown_view_by_view(run: Path) -> None:
    choices, own = opened(run)
    record = read_run(run)
    assert {view: runs.stages_of(record, view) for view in runs.VIEWS} == {
        "Overview": [],
        "Classes": ["baseline", "adapt", "bound"],
        "Curves": ["baseline", "adapt", "bound"],
        "Images": ["baseline", "adapt", "bound"],
        "Files made": [],
    }
    assert runs.first_stage(record, "Curves") == "adapt" and runs.first_stage(record, "Files made") is None
    html = runs.run_html(choices, own, "run", "Overview", None, 3)
    assert "45.00" in html and "<b>test</b>" not in html  # the recipe's description is text
    assert "<svg" in runs.run_html(choices, own, "run", "Curves", "adapt", 3)
    assert 'class="matrix"' in runs.run_html(choices, own, "run", "Classes", "adapt", 3)
    assert "No stage of this run" in runs.run_html(choices, own, "run", "Curves", "nothing", 3)
    with pytest.raises(UsageError, match="no run 'ran'"):
        runs.run_html(choices, own, "ran", "Overview", None, 3)


def test_the_worst_images_come_first(run: Path) -> None:
    choices, own = opened(run)
    html = runs.run_html(choices, own, "run", "Images", "adapt", 1)
    worst, best = html.split("<h3>Best</h3>")
    assert "brno_000000_000000" in worst and "brno_000000_000000" not in best
    assert len(pictures(html)) == 8  # image, label, prediction and mistakes of each
    shutil.rmtree(run.parent / "data")
    assert "not on this machine" in runs.run_html(choices, own, "run", "Images", "adapt", 1)


def test_a_target_without_labels_is_looked_at_by_all_stages(run: Path) -> None:
    shutil.rmtree(run.parent / "data" / "gtFine")
    choices, own = opened(run)
    html = runs.run_html(choices, own, "run", "Images", "adapt", 1)
    assert "<h3>Class shares</h3>" in html and "<h3>Worst</h3>" not in html
    assert all(name in html for name in ("baseline", "adapt", "bound"))


def test_what_a_stage_has_made_is_shown_with_what_was_kept_per_class(run: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["stages"]["labels"] = {"method": "pseudo_labels", "model": "@adapt"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    made = {"images": 3, "labelled": 0.25, "share": {"road": 0.2}, "kept": {"road": 0.664}, "thresholds": {"road": 0.9}}
    write_json(run / "labels" / "result.json", made)
    Image.new("RGB", (60, 30), (9, 99, 199)).save(run / "labels" / "contact_sheet.png")
    choices, own = opened(run)
    assert runs.stages_of(read_run(run), "Files made") == ["labels"]
    html = runs.run_html(choices, own, "run", "Files made", "labels", 3)
    assert "66.4" in html and "0.90" in html and len(pictures(html)) == 1


def test_a_run_that_is_gone_is_told(run: Path) -> None:
    choices, own = opened(run)
    shutil.rmtree(run)
    with pytest.raises(UsageError, match="does not exist"):
        runs.run_html(choices, own, "run", "Overview", None, 3)


def test_images_of_the_target_are_there_to_try(run: Path) -> None:
    choices, _ = opened(run)
    taken = {runs.sample_image(choices, "run", number).name for number in range(3)}
    assert len(taken) == 3


def test_temporary_files_go_when_they_are_old_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with pytest.raises(SystemExit) as ended, temporary_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        old = new_folder(folder)
        (old / "clip.mp4").write_bytes(b"old")
        os.utime(old, (time.time() - AGE - 1,) * 2)
        assert new_folder(folder).is_dir() and not old.exists()
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not folder.exists() and "GRADIO_TEMP_DIR" not in os.environ


def test_a_port_in_use_is_told() -> None:
    with listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert address(bound, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        with pytest.raises(UsageError, match="in use"):
            listening("127.0.0.1", port)
    with pytest.raises(UsageError, match="--host"), listening("256.0.0.1", 0):
        pass


def test_the_verb_says_what_is_missing(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_told(command(capsys, "app", run), 2, "app", "gradio", "segadapt[app]'.")


def test_the_verb_refuses_what_is_no_run_and_a_port_in_use(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="the extra is not installed: pip install 'segadapt[app]'")
    (run.parent / "empty").mkdir()
    assert_told(command(capsys, "app", run.parent / "empty"), 2, str(run.parent / "empty"), "not a run folder", "path.")
    assert_told(command(capsys, "app", run.parent / "no"), 2, str(run.parent / "no"), "does not exist", "path.")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_told(command(capsys, "app", run, "--port", port), 2, "--port", "in use", "of this machine.")


def test_requests_cannot_name_files_of_the_server(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra is not installed: pip install 'segadapt[app]'")
    from segadapt.app.interface import Interface
    from segadapt.app.server import Limits

    choices, own = opened(run)
    page = Interface(choices, own, Limits(), tmp_path / "temporary")
    outside, inside = tmp_path / "data" / "secret.png", tmp_path / "temporary" / "hash" / "mine.png"
    for file in (outside, inside):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 16)).save(file)
    assert 'class="over"' in page.seen(str(inside), ["adapt"], [], "none")[0]
    both = page.seen(str(inside), ["adapt", "baseline"], [], "none")[0]  # as they were clicked
    assert both.index("<b>baseline</b>") < both.index("<b>adapt</b>")
    for way in (outside, tmp_path / "temporary" / ".." / "data" / "secret.png"):
        assert "was not uploaded" in page.seen(str(way), ["adapt"], [], "none")[0]


def test_a_gap_in_what_is_chosen_is_told_and_not_a_failure(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra is not installed: pip install 'segadapt[app]'")
    from segadapt.app.interface import EMPTY, NO_MODEL, Interface
    from segadapt.app.server import Limits

    choices, own = opened(run)
    page = Interface(choices, own, Limits(), tmp_path)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert page.seen(None, ["adapt"], [], "none")[0] == EMPTY
    assert page.seen(str(tmp_path / "broken.png"), [], [], "none")[0] == NO_MODEL
    said = page.seen(str(tmp_path / "broken.png"), ["adapt"], [], "none")[0]
    assert "broken.png: cannot be read as an image" in said and str(tmp_path) not in said
    shutil.rmtree(run)
    assert "does not exist" in page.chosen("run", "Overview", None, 3)[2]

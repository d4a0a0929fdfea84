"""Bad input of fourteen kinds: each is told in one line on stderr, with its place and a remedy, and an exit code."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from command import assert_told, command
from layouts import IDS
from recorded import hollow
from spoilt import FULL, SIZE, Spoil, World


@dataclass(frozen=True)
class Case:
    """What is spoilt, and the line that must come of it; in `place` and `what`, {w.image} is a path of the world."""

    kind: str
    name: str
    spoil: Spoil
    code: int
    place: str
    what: str
    remedy: str


def cats() -> dict[str, Any]:
    """A label space that reads all of the source's ids as two classes that no other has."""
    ids = {"cityscapes": [value & 0xFF for value in IDS["cityscapes"]]}
    classes = [{"name": "cat", "color": [1, 1, 1], "ids": ids}, {"name": "dog", "color": [2, 2, 2]}]
    return {"name": "cats", "classes": classes}


def space(**second: Any) -> dict[str, Any]:
    """A label space of two classes; `second` changes its second one."""
    classes = [
        {"name": "road", "color": [9, 9, 9], "ids": {"cityscapes": [7]}},
        {"name": "car", "color": [1, 2, 3], "ids": {"cityscapes": [26]}} | second,
    ]
    return {"name": "two", "classes": classes}


RECIPE = [
    Case("key", "of a stage", lambda w: w.set(lr=None, learning_rate=1e-3).train(), 2, "{w.recipe}",
         "unknown key 'stages.baseline.learning_rate'", "weight_decay."),
    Case("key", "misspelt", lambda w: w.train("data.source.holdot=1"), 2, "command line",
         "unknown key 'data.source.holdot'", "Did you mean 'holdout'?"),
    Case("key", "stage", lambda w: w.train("stages.basline.steps=1"), 2, "command line",
         "no stage 'basline'", "Did you mean 'baseline'?"),
    Case("key", "reference", lambda w: w.train("stages.baseline.start='@pretrain'"), 2, "{w.recipe}",
         "stages.baseline.start: '@pretrain' is not a stage before 'baseline'", "stages.baseline=null."),
    Case("type", "list", lambda w: w.set(size=64).train(), 2, "{w.recipe}",
         "'stages.baseline.size' is 64: it must be a list", "[width, height]."),
    Case("type", "number", lambda w: w.train("seed=many"), 2, "command line",
         "'seed' is 'many': it must be a valid integer", "fresh weights."),
    Case("type", "mapping", lambda w: w.train("stages=[]"), 2, "command line",
         "'stages' is []: it must be keys with values", "in this order."),
    Case("type", "choice", lambda w: w.train("--precision", "fp16"), 2, "command line",
         "'runtime.precision' is 'fp16': it must be 'fp32', 'bf16' or 'auto'", "bf16 where it is fast."),
    Case("range", "size", lambda w: w.set(size=[64, 4]).train(), 2, "{w.recipe}",
         "'stages.baseline.size.1' is 4: it must be greater than or equal to 8", "[width, height]."),
    Case("range", "infinite", lambda w: w.train("stages.baseline.lr=.inf"), 2, "command line",
         "'stages.baseline.lr' is inf: it must be a finite number", "learning rate."),
    Case("range", "holdout", lambda w: w.train("data.source.holdout=3"), 2, "{w.source}",
         "holdout 3 leaves none of the 3 images to train on", "Hold out fewer."),
]  # fmt: skip

PATHS = [
    Case("path", "recipe", lambda w: ["run", f"{w.folder}/no.yaml"], 2, "{w.folder}/no.yaml",
         "the recipe does not exist", "Check the path."),
    Case("path", "folder as recipe", lambda w: ["run", str(w.folder)], 2, "{w.folder}",
         "the recipe is not a file", "Check the path."),
    Case("path", "root", lambda w: w.train(f"data.target.root={w.folder}/no"), 2, "{w.folder}/no",
         "the data folder does not exist", "Check the path."),
    Case("path", "layout", lambda w: w.train(f"data.source.root={w.target}"), 2, "{w.target}",
         "layout 'gta5' expects a folder images in it", "It looks like layout cityscapes."),
    Case("path", "split", lambda w: w.evaluate("--split", "val"), 2, "{w.source}",
         "layout 'gta5' comes without a split 'val'", "val_list."),
    Case("path", "start", lambda w: w.train(f"stages.baseline.start={w.folder}/no.pth"), 2, "{w.folder}/no.pth",
         "the start file does not exist", "Check the path."),
    Case("path", "model", lambda w: w.predict(w.folder / "no"), 2, "{w.folder}/no",
         "the model does not exist", "a checkpoint file."),
    Case("path", "input", lambda w: w.predict(w.model, image=w.folder / "no.png"), 2, "{w.folder}/no.png",
         "does not exist", "folders of images."),
    Case("path", "run", lambda w: ["report", str(w.source)], 2, "{w.source}",
         "is not a run folder", "Check the path."),
]  # fmt: skip

DATA = [
    Case("image", "truncated", lambda w: w.cut(w.image).train(), 1, "{w.image}",
         "cannot be read as an image", "finds all such files."),
    Case("image", "text", lambda w: w.predict(w.model, image=w.recipe), 2, "{w.recipe}",
         "is not an image", "folders of images."),
    Case("image", "floats", lambda w: w.paint_floats(w.image).evaluate(), 1, "{w.image}",
         "holds 32-bit or floating-point values", "Convert it to 8 or 16 bits."),
    Case("label size", "training", lambda w: w.paint_ids(7, (32, 48)).train(), 1, "{w.label}",
         "is 32×48, but its image {w.image} is 64×48", "size_mismatch: stretch."),
    Case("label size", "evaluation", lambda w: w.paint_ids(7, (64, 64)).evaluate(), 1, "{w.label}",
         "is 64×64, but its image {w.image} is 64×48", "size_mismatch: stretch."),
    Case("label id", "unknown", lambda w: w.paint_ids(77).train(), 1, "{w.label}",
         "ids that encoding 'cityscapes' of label space 'cityscapes19' does not know: 77", "unknown_ids: ignore."),
    Case("label id", "instances", lambda w: w.paint_16_bits(w.label).evaluate(), 1, "{w.label}",
         "holds ids up to 3000, more than 8 bits", "Give class ids (not instance ids)."),
    Case("label id", "colours", lambda w: w.paint(w.label, Image.new("RGB", SIZE)).train(), 1, "{w.label}",
         "is a colour image (RGB), but the encoding 'cityscapes' holds ids", "in your label space."),
    Case("image list", "missing file", lambda w: w.train_list(b"00002.png\nno.png\n"), 2, "{w.list}:2",
         "names no.png, but there is no image {w.source}/images/no.png", "or add the file."),
    Case("image list", "empty", lambda w: w.train_list(b"# none\n\n"), 2, "{w.list}",
         "the image list is empty", "Give one image name per line."),
    Case("image list", "binary", lambda w: w.train_list(b"\xff\xfe\x00"), 2, "{w.list}",
         "is not a text file", "Give one image name per line."),
]  # fmt: skip

CHECKPOINTS = [
    Case("checkpoint kind", "other network",
         lambda w: w.train(f"stages.baseline.start={w.saved('other.pth', hollow('deeplab_multi'))}"), 2,
         "{w.folder}/other.pth", "this is a DeepLab ResNet-101 checkpoint with 19 classes; expected DeepLabSmall",
         "training checkpoint of it."),
    Case("checkpoint kind", "for training", lambda w: w.predict(w.checkpoint), 2, "{w.checkpoint}",
         "this is a segadapt training checkpoint of step 1", "choose the model.safetensors of its stage."),
    Case("checkpoint kind", "objects", lambda w: w.predict(w.saved("net.pth", torch.nn.Linear(2, 2))), 2,
         "{w.folder}/net.pth", "holds Python objects (torch.nn.modules.linear.Linear)", "net.state_dict(), PATH)."),
    Case("checkpoint kind", "image", lambda w: w.predict(w.image), 2, "{w.image}",
         "is not a file of weights", "a download failed."),
    Case("class count", "start", lambda w: w.train("label_space=camvid11", f"stages.baseline.start={w.model}"), 2,
         "{w.model}", "its head has 19 classes, the network's 11", "fresh_head: true to leave the head fresh."),
    Case("class count", "published", lambda w: w.predict(w.saved("seven.pth", hollow("vgg_base", 7))), 2,
         "{w.folder}/seven.pth", "checkpoint with 7 classes, but the file does not name them", "--label-space NAME."),
    Case("class count", "label space",
         lambda w: w.predict(w.saved("seven.pth", hollow("vgg_base", 7)), "--label-space", "camvid11"), 2,
         "{w.folder}/seven.pth", "with 7 classes, but label space 'camvid11' has 11", "that it was trained with."),
    Case("truncated", "model", lambda w: w.cut(w.model).predict(w.model), 1, "{w.model}",
         "is damaged or incomplete", "or use another one."),
    Case("truncated", "start", lambda w: w.cut(w.model).train(f"stages.baseline.start={w.model}"), 1, "{w.model}",
         "is damaged or incomplete", "or use another one."),
    Case("truncated", "resuming", lambda w: w.lose_result().cut(w.checkpoint).go_on(), 1, "{w.checkpoint}",
         "the checkpoint cannot be read", "then resumes from the previous one."),
]  # fmt: skip

SPACES = [
    Case("label space", "no YAML", lambda w: w.train_space("name: [two"), 2, "{w.space}",
         "not valid YAML (line 1)", "YAML needs `key: value`."),
    Case("label space", "no classes", lambda w: w.train_space({"name": "two"}), 2, "{w.space}",
         "classes: is missing", "docs/data-sets.md."),
    Case("label space", "id twice", lambda w: w.train_space(space(ids={"cityscapes": [7]})), 2, "{w.space}",
         "id 7 of encoding 'cityscapes' belongs to both 'road' and 'car'", "docs/data-sets.md."),
    Case("label space", "colour", lambda w: w.train_space(space(color=[1, 2, 300])), 2, "{w.space}",
         "classes.1.color: [1, 2, 300] is not a colour", "docs/data-sets.md."),
    Case("label space", "unknown name", lambda w: w.train("label_space=cityscapes20"), 2, "label_space",
         "unknown label space 'cityscapes20'", "Or give a .yaml file of your own."),
    Case("label space", "unknown option", lambda w: w.evaluate("--label-space", "cityscapes20"), 2, "--label-space",
         "unknown label space 'cityscapes20'", "Or give a .yaml file of your own."),
    Case("label space", "nothing in common", lambda w: w.evaluate("--label-space", w.write_space(cats())), 2, "cats",
         "label space 'cityscapes19' of the model has no class in common", "class names or aliases."),
]  # fmt: skip

OUTPUTS = [
    Case("output folder", "file", lambda w: w.train(out=w.recipe), 2, "{w.recipe}",
         "the run folder is a file", "Choose another --out."),
    Case("output folder", "other things", lambda w: w.train(out=w.source), 2, "{w.source}",
         "the folder is not empty and is not a run", "new folder with --out."),
    Case("output folder", "another recipe's run", lambda w: w.go_on("seed=1"), 2, "{w.stage}",
         "made with different settings (seed: 0 -> 1)", "or another --out to keep it."),
    Case("output folder", "below a file", lambda w: w.predict(w.model, out=w.recipe), 2, "{w.recipe}/00001.png",
         "cannot be written because {w.recipe} is not a folder", "Choose another folder."),
    Case("output folder", "of the inputs", lambda w: w.predict(w.model, "--overwrite", out=w.image.parent), 2,
         "{w.image}", "would overwrite an input", "Choose another folder."),
    Case("output folder", "of the labels", lambda w: w.evaluate("--write-predictions", str(w.label.parent)), 2,
         "{w.label}", "would overwrite an input", "Choose another folder."),
    Case("output folder", "of real data", lambda w: ["data", "sample", str(w.folder), "--train", "1"], 2, "{w.source}",
         "already exists and is not a sample", "Choose another folder."),
    Case("output folder", "for a file", lambda w: ["report", str(w.run), "--out", str(w.source)], 2, "{w.source}",
         "cannot be written (Is a directory)", "Choose a folder that you may write to."),
]  # fmt: skip

FULL_DISKS = [
    Case("full disk", name, spoil, 1, place, "no space left on the disk", "what was written stays valid.")
    for name, spoil, place in (
        ("recipe", lambda w: w.full_disk(w.out / "recipe.yaml").train(), "{w.out}/recipe.yaml"),
        ("checkpoint", lambda w: w.lose_checkpoint().full_disk(w.checkpoint).go_on(), "{w.checkpoint}"),
        ("model", lambda w: w.full_disk(w.model).go_on(), "{w.model}"),
        ("lines of metrics", lambda w: w.lose_checkpoint().full_disk_for_lines(w.metrics).go_on(), "{w.metrics}"),
        ("prediction", lambda w: w.full_disk(w.out / "00001.png").predict(w.model), "{w.out}/00001.png"),
        ("scores", lambda w: w.full_disk(w.out / "a.json").evaluate("--out", f"{w.out}/a.json"), "{w.out}/a.json"),
        ("prepared copy", lambda w: w.full_disk(w.store / "images/00001.png.webp").prepare(),
         "{w.store}/images/00001.png.webp"),
        ("list of copies", lambda w: w.full_disk_for_lines(w.store / "copies.jsonl").prepare(),
         "{w.store}/copies.jsonl"),
    )
]  # fmt: skip

CASES = [*RECIPE, *PATHS, *DATA, *CHECKPOINTS, *SPACES, *OUTPUTS, *FULL_DISKS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.kind}, {case.name}") for case in CASES])
def test_bad_input_is_told_in_one_line(case: Case, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    if case.kind == "full disk" and not FULL.exists():
        pytest.skip("this system has no /dev/full")
    outcome = command(capsys, *case.spoil(world))
    assert_told(outcome, case.code, case.place.format(w=world), case.what.format(w=world), case.remedy)
    assert not list(world.folder.rglob("*.tmp"))


def test_every_kind_has_two_cases() -> None:
    kinds = Counter(case.kind for case in CASES)
    assert len(kinds) == 14 and min(kinds.values()) >= 2

"""The shipped SYNTHIA recipes through all their stages: 16 classes, scores over 16 and 13, both forms of labels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import command
from layouts import write_layout
from segadapt.config.load import load_recipe
from segadapt.data.label_spaces import load_label_space
from segadapt.pipeline.run import run_recipe

SPACE = load_label_space("cityscapes16")
TRAINED = ("pretrain_style", "style", "se_gan", "self_training", "adaptsegnet")
SEGMENTERS = tuple(name for name in TRAINED if name != "style")


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cityscapes")
    write_layout(root, "cityscapes")
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / folder / "train", root / folder / "val")
    return root


def small(recipe: str, source: Path, layout: str, target: Path) -> list[str]:
    """Overrides that make a shipped recipe a matter of seconds."""
    changes = [
        f"data.source.root={source}",
        f"data.source.layout={layout}",
        f"data.target.root={target}",
        "data.source.holdout=1",
        "runtime.threads=1",
        "stages.adaptsegnet={method: adaptsegnet, network: deeplab_small, extra_source: '@stylize', steps: 2}",
        "stages.stylize.output_size=[64, 48]",
        "stages.pseudo_labels.scales=[1, 1.5]",
    ]
    for name in TRAINED:
        changes += [f"stages.{name}.{change}" for change in ("steps=2", "epochs=null", "size=[64, 32]", "batch=1")]
        changes += [f"stages.{name}.target_size=null"] if name != "style" else []
    for name in SEGMENTERS:
        changes += [f"stages.{name}.network=deeplab_small", f"stages.{name}.evaluate_every=0"]
    for name in ("pretrain_style", "se_gan"):
        changes.append(f"stages.{name}.start=null")
    return changes


@pytest.mark.parametrize(
    ("recipe", "layout"),
    [("se_gan_synthia_cityscapes", "synthia_original"), ("se_gan_synthia_cityscapes_official", "synthia")],
)
def test_sixteen_classes_in_every_stage(
    recipe: str, layout: str, cityscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_layout(tmp_path / "synthia", layout)
    out = tmp_path / "run"
    run_recipe(load_recipe(recipe, small(recipe, tmp_path / "synthia", layout, cityscapes)), out)

    for stage in (*SEGMENTERS, "multi_scale"):
        record: dict[str, Any] = json.loads((out / stage / "evaluation.json").read_text())
        target = record["domains"]["target"]
        assert record["classes"] == list(SPACE.classes) and len(target["per_class"]) == 16
        assert len(target["confusion"]) == 16
        thirteen = [v for name, v in target["per_class"].items() if name not in ("wall", "fence", "pole")]
        known = [value for value in thirteen if value is not None]
        assert target["subsets"]["cityscapes13"] == pytest.approx(sum(known) / len(known))

    assert len(list((out / "stylize/images").glob("*.png"))) == 2  # one of the three is source val
    made = sorted((out / "pseudo_labels/labels").rglob("*.png"))
    assert len(made) == 3
    for path in made:
        picture = Image.open(path)
        ids = set(np.unique(np.asarray(picture)))
        assert ids <= {*range(16), 255}
        if recipe.endswith("_official"):
            assert 255 not in ids  # every pixel is kept
        palette = picture.getpalette()
        assert palette is not None and palette[: 3 * 16] == SPACE.colors.ravel().tolist()

    image = next(iter((cityscapes / "leftImg8bit/val").rglob("*.png")))
    told = command(
        capsys, "predict", out / "self_training", image, "-o", tmp_path / "seen", "--format", "label_id,colour"
    )
    assert told.code == 0, told.err
    (ids_file,) = (tmp_path / "seen/label_id").rglob("*.png")
    assert set(np.unique(np.asarray(Image.open(ids_file)))) <= set(SPACE.raw_ids("cityscapes").tolist())

"""The tables of the documentation say what is so: keys and defaults, quirks, the numbers of the recipes, flags."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pages import CODE, read, rows, section
from segadapt.config.load import load_recipe
from segadapt.config.recipe import Recipe, stage_types
from segadapt.config.recipe_files import read_tree, shipped_recipes
from segadapt.data.catalog import LAYOUTS
from segadapt.data.label_spaces import shipped_label_spaces
from segadapt.data.settings import DomainSettings
from segadapt.data.transforms import Augmentation
from segadapt.engine.runtime import RuntimeSettings
from segadapt.methods.adaptsegnet import AdaptSegNetSettings
from segadapt.methods.cbst import CbstSettings
from segadapt.methods.dacs import DacsSettings
from segadapt.methods.daformer import DaformerSettings
from segadapt.methods.mic import MicSettings
from segadapt.methods.registry import METHODS
from segadapt.methods.se_gan import SeGanSettings
from segadapt.methods.sean import SeanSettings
from segadapt.methods.self_training import SelfTrainingSettings
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.methods.tgstn import TgstnSettings
from segadapt.methods.vfm_uda import VfmUdaSettings
from segadapt.models.networks import NETWORKS
from segadapt.quirks import QUIRKS
from segadapt.stages.evaluate import EvaluateSettings
from segadapt.stages.pseudo_labels import PseudoLabelsSettings
from segadapt.stages.shipped import quirks_of
from segadapt.stages.stylize import StylizeSettings
from segadapt.weights.starts import STARTS

SE_GAN = "docs/methods/se-gan.md"
METHOD_PAGES = {
    "sean": "docs/methods/sean.md",
    "source_only": "docs/methods/source-only.md",
    "adaptsegnet": "docs/methods/adaptsegnet.md",
    "cbst": "docs/methods/cbst.md",
    **{name: f"docs/methods/{name}.md" for name in ("dacs", "daformer", "mic")},
    "vfm_uda": "docs/methods/vfm-uda.md",
    **dict.fromkeys(("tgstn", "stylize", "se_gan", "pseudo_labels", "self_training", "evaluate"), SE_GAN),
}


KEYS: list[tuple[str, str, type[BaseModel], set[str]]] = [
    ("docs/recipes.md", "Recipe", Recipe, set()),
    ("docs/recipes.md", "`runtime`", RuntimeSettings, set()),
    ("docs/recipes.md", "Training stages", TrainingSettings, set()),
    ("docs/recipes.md", "Stages that train a segmenter", SegmenterSettings, set(TrainingSettings.model_fields)),
    ("docs/recipes.md", "`stylize` stages", StylizeSettings, set()),
    ("docs/recipes.md", "`pseudo_labels` stages", PseudoLabelsSettings, set()),
    ("docs/recipes.md", "`evaluate` stages", EvaluateSettings, set()),
    ("docs/methods/sean.md", "Settings", SeanSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/source-only.md", "Settings", SourceOnlySettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/adaptsegnet.md", "Settings", AdaptSegNetSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/cbst.md", "Settings", CbstSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/dacs.md", "Settings", DacsSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/daformer.md", "Settings", DaformerSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/mic.md", "Settings", MicSettings, set(SegmenterSettings.model_fields)),
    ("docs/methods/vfm-uda.md", "Settings", VfmUdaSettings, set(SegmenterSettings.model_fields)),
    (SE_GAN, "Settings of `tgstn`", TgstnSettings, set(TrainingSettings.model_fields)),
    (SE_GAN, "Settings of `se_gan`", SeGanSettings, set(SegmenterSettings.model_fields)),
    (SE_GAN, "Settings of `self_training`", SelfTrainingSettings, set(SegmenterSettings.model_fields)),
]


@pytest.mark.parametrize(("page", "heading", "model", "elsewhere"), KEYS, ids=[f"{k[0]} {k[1]}" for k in KEYS])
def test_every_key_is_there_with_its_default(
    page: str, heading: str, model: type[BaseModel], elsewhere: set[str]
) -> None:
    table = {row[0].strip("`"): row[-2] for row in rows(section(page, heading))}
    assert set(table) == set(model.model_fields) - elsewhere
    for key, said in table.items():
        field = model.model_fields[key]
        if field.is_required():
            assert said == "must be given"
        elif not isinstance(field.default, RuntimeSettings):
            default = field.default
            if isinstance(default, BaseModel):
                default = default.model_dump(exclude_defaults=True)
            assert yaml.safe_load(said) == (list(default) if isinstance(default, tuple) else default), key


def test_the_data_page_has_every_key_of_a_domain_and_of_augmentation() -> None:
    named = set(CODE.findall(" ".join(row[0] for row in rows(read("docs/data-sets.md")))))
    keys = {re.split(r"[:=]", word)[0] for word in named}
    assert set(DomainSettings.model_fields) | set(Augmentation.model_fields) <= keys


@pytest.mark.parametrize("method", METHOD_PAGES)
def test_a_method_page_has_every_quirk_of_its_method(method: str) -> None:
    """A page of several methods says in a column of its own which quirk is whose."""
    page = METHOD_PAGES[method]
    headings = re.findall(r"^## (Quirks .*)$", read(page), re.M)
    table = rows(section(page, headings[0]))
    own = [row[0].strip("`") for row in table if len(row) == 3 or method in CODE.findall(row[1])]
    assert sorted(own) == sorted(quirks_of(method))
    assert set(stage_types()) - {"target_trained"} == set(METHOD_PAGES)
    assert quirks_of("target_trained") == quirks_of("source_only")


def test_the_quirks_of_the_se_gan_page_are_of_the_methods_that_it_names() -> None:
    for quirk, methods, *_ in rows(section(SE_GAN, "Quirks of the published programs")):
        for method in CODE.findall(methods):
            assert quirk.strip("`") in quirks_of(method)


def open_keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of a recipe that must be given."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from open_keys(value, f"{prefix}{key}.")
        elif value == "???":
            yield prefix + key


def given(recipe: str) -> list[str]:
    """Something for each key of a shipped recipe that must be given."""
    return [f"{key}=x" for key in open_keys(read_tree(shipped_recipes()[recipe]))]


def test_the_numbers_of_the_se_gan_recipes() -> None:
    """Every cell of the table; the official recipes have the same numbers."""
    columns = ("pretrain_style", "style", "pretrain", "se_gan", "se_gan", "self_training")
    for ending in ("", "_official"):
        names = [f"se_gan_{source}_cityscapes{ending}" for source in ("gta5", "synthia")]
        gta5, synthia = (load_recipe(name, given(name)).stages for name in names)
        for key, *cells in rows(section(SE_GAN, "The numbers of the recipes")):
            for number, (stage, cell) in enumerate(zip(columns, cells, strict=True)):
                settings = (synthia if number == 4 else gta5)[stage].model_dump(mode="json")
                if cell == "–":
                    assert key.strip("`") not in settings
                else:
                    assert settings[key.strip("`")] == yaml.safe_load(cell), (key, stage)
        assert synthia["pretrain_style"].model_dump()["batch"] == 6 and "pretrain" not in synthia
        trained = [stage for stage in (*gta5.values(), *synthia.values()) if isinstance(stage, TrainingSettings)]
        assert len(trained) == 9 and {stage.schedule for stage in trained} == {"polynomial"}
        one = synthia["se_gan"].model_dump()
        assert (one["ema_warmup"], one["rare_pixels"]) == ((False, 4096) if ending else (True, None))


def test_the_numbers_of_the_adaptsegnet_recipes() -> None:
    for variant in ("gta5_cityscapes", "gta5_cityscapes_official", "ls_gta5_cityscapes"):
        recipe = f"adaptsegnet_{variant}"
        stage = load_recipe(recipe, given(recipe)).stages["adaptsegnet"]
        assert isinstance(stage, AdaptSegNetSettings)
        assert (stage.network, stage.size, stage.target_size) == ("deeplab_resnet101", (1280, 720), (1024, 512))
        assert (stage.optimizer, stage.lr, stage.head_lr, stage.weight_decay) == ("sgd", 2.5e-4, 10, 5e-4)
        assert (stage.batch, stage.steps, stage.schedule_steps) == (1, 150000, 250000)
        weights = (stage.adversarial, stage.auxiliary_adversarial, stage.auxiliary, stage.lr_discriminator)
        assert weights == ((0.01, 0, 0, 1e-4) if "ls" in variant else (1e-3, 2e-4, 0.1, 1e-4))
        assert stage.least_squares == ("ls" in variant) and set(stage.quirks.values()) == {"official" in variant}


def test_the_numbers_of_the_sean_recipes() -> None:
    page = read("docs/methods/sean.md")
    said = "1024×512, batch 1, Adam with learning rate 1e-5 (constant) and weight decay 5e-5, 6 epochs, α = 0.99"
    assert said in page and "σ = 0.1; τ = 0.1 for GTA5 and 0.3 for SYNTHIA" in page
    for data, tau in (("gta5", 0.1), ("synthia", 0.3)):
        for ending in ("", "_official"):
            given = ["data.source.root=s", "data.target.root=t", "stages.sean.start=w"]
            stage = load_recipe(f"sean_{data}_cityscapes{ending}", given).stages["sean"]
            assert isinstance(stage, SeanSettings)
            assert (stage.size, stage.batch, stage.optimizer, stage.lr) == ((1024, 512), 1, "adam", 1e-5)
            assert (stage.schedule, stage.weight_decay, stage.epochs) == ("constant", 5e-5, 6)
            assert (stage.ema, stage.consistency, stage.noise, stage.attention_threshold) == (0.99, 0.3, 0.1, tau)
            assert stage.ema_warmup == (not ending) and set(stage.quirks.values()) == {bool(ending)}


def test_the_flags_page_names_keys_that_exist() -> None:
    models: list[type[BaseModel]] = [DomainSettings, Augmentation, *(key[2] for key in KEYS)]
    keys = {key for model in models for key in model.model_fields} | {"source", "target", *stage_types()}
    values = {*QUIRKS, *LAYOUTS, *shipped_label_spaces(), *STARTS, *METHODS, *NETWORKS}
    found = 0
    for row in rows(read("docs/flags.md")):
        for code in CODE.findall(row[-1]):
            word, sign, _ = code.partition("=") if "=" in code else code.partition(":")
            if re.fullmatch(r"[a-z0-9_.]+", word) and "." not in word[-6:]:
                known = all(part in keys for part in word.split(".")) or (not sign and word in values)
                assert known, f"'{code}' is no key"
                found += 1
    assert found > 40

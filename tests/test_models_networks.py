"""Every network keeps the contract, whatever its name; a recipe chooses its options; one's own joins by registering."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import segadapt
from command import assert_told, command
from pages import ROOT, blocks
from planning import without_report
from segadapt.config.load import load_recipe
from segadapt.config.resolved import as_yaml
from segadapt.errors import UsageError
from segadapt.inference.predictor import Predictor
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.models import networks
from segadapt.models.heads import DeepLabOptions
from segadapt.models.networks import NETWORKS, build, plain
from segadapt.models.segmenter import CAFFE, IMAGENET, NetworkOptions, Segmenter
from segadapt.stages.estimate import Estimator
from segadapt.weights.initial import load_start
from segadapt.weights.origin import Origin
from segadapt.weights.origins import ORIGINS, register_origin
from tiny_runs import tree, write_data, write_recipe

CLASSES = 7


class OwnOptions(NetworkOptions):
    """What a recipe may choose about `Own`."""

    width: int = Field(8, ge=4, description="channels")


class Own(Segmenter):
    """A network of one's own, of stride 40."""

    Options = OwnOptions
    pixels = IMAGENET
    stride = 40

    def __init__(self, classes: int, attention: bool = False, options: OwnOptions = OwnOptions()) -> None:
        super().__init__(classes, options.width, attention, options)
        self.body = nn.Conv2d(3, options.width, 40, stride=40)
        self.head = nn.Conv2d(options.width, classes, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.body(pixels)
        return features

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.head(features),)


@pytest.fixture
def own() -> Iterator[None]:
    segadapt.register_network("own", Own)
    yield
    del NETWORKS["own"]
    ORIGINS.pop(Own, None)


@cache
def blank(name: str) -> Segmenter:
    """All zero, made once: drawing the weights of a large network takes longer than all else here."""
    with torch.device("meta"):
        network = build(name, classes=CLASSES, attention=True)
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    return network.eval()


# --- the contract ---


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_what_the_contract_says(name: str) -> None:
    network = blank(name)
    small = network.smallest_input
    assert small == {"segformer": 32, "hrda": 64, "dinov2": 14, "dinov3": 16}.get(name, network.stride)
    output = network(torch.zeros(1, 3, 2 * small, 4 * small, dtype=torch.uint8))
    assert len(output.heads) == network.number_of_heads and output.logits is output.heads[-1]
    size = (2 * small // network.stride, 4 * small // network.stride)
    if (grid := network.token_grid((2 * small, 4 * small))) is not None:  # its patches need not divide an image
        size = (4 * grid[0], 4 * grid[1])
    seen = output.features.shape[2:] if name != "hrda" else [2 * side for side in output.features.shape[2:]]
    assert {head.shape for head in output.heads} == {(1, CLASSES, *seen)}
    assert abs(output.logits.shape[2] - size[0]) <= 1 and abs(output.logits.shape[3] - size[1]) <= 1
    areas = [scale.shape[2] * scale.shape[3] for scale in output.scales]
    assert areas == sorted(areas, reverse=True) and all(scale.dim() == 4 for scale in output.scales)
    network(torch.zeros(1, 3, small, small, dtype=torch.uint8))
    with pytest.raises(
        UsageError, match=rf"images: images of {small}×{small - 1} pixels are too small for .*, which takes {small}"
    ):
        network(torch.zeros(1, 3, small - 1, small))
    with pytest.raises(UsageError, match="size: images of 7×64 pixels are too small"):
        Predictor(network, (7, 64))
    with pytest.raises(UsageError, match="window: images of 4×64 pixels are too small"):
        Predictor(network, (64, 64), window=(4, 64))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("deeplab_vgg16", [1024]),
        ("deeplab_resnet101", [1024, 2048]),
        ("efficientnet_lite0", [40, 320]),
        ("segformer", [64, 128, 320, 512]),
        ("hrda", [64, 128, 320, 512]),
        ("dinov2", [768]),
        ("deeplab_small", [96]),
    ],
)
def test_the_scales_are_the_encoders(name: str, channels: list[int]) -> None:
    output = blank(name)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert [scale.shape[1] for scale in output.scales] == channels
    if (
        name in ("deeplab_vgg16", "deeplab_small") or name == "deeplab_resnet101"
    ):  # no decoder stands between encoder and head
        assert output.scales[-1] is output.features


@pytest.mark.parametrize("name", NETWORKS)
def test_roles_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = build(name, classes=CLASSES, attention=True)
    of_heads = {id(p) for p in network.head_parameters()}
    assert of_heads
    depths: dict[int, list[str]] = {}
    for key, parameter in network.named_parameters():
        depth = network.depth_of(key)
        assert (depth == network.number_of_depths) == (id(parameter) in of_heads or key.startswith("attention.")), key
        depths.setdefault(depth, []).append(key)
    assert sorted(depths) == list(range(network.number_of_depths + 1))
    order = [network.depth_of(key) for key, p in network.named_parameters() if not key.startswith("attention.")]
    assert order == sorted(order)  # modules are registered from the image to the heads
    exempt = {id(p) for p in network.no_decay_parameters()}
    for key, module in network.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, nn.LayerNorm)
            product = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and leaf == "weight"
            by_rule = norm if name in ("segformer", "hrda") else not product
            assert (id(parameter) in exempt) == by_rule, f"{key}.{leaf}"
    body = {id(p) for p in network.parameters()} - of_heads
    assert {id(p) for p in network.published_body()} == body


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("deeplab_vgg16", {"features.0": 0, "features.5": 1, "features.17": 3, "features.27": 4, "features.31": 5}),
        ("deeplab_resnet101", {"bn1": 0, "layer1.0.conv1": 1, "layer4.2.bn3": 4, "layer5.convs.0": 5}),
        ("segformer", {"backbone.patch_embed1.proj": 0, "backbone.block3.39.attn.q": 2, "decode_head.conv_seg": 4}),
        (
            "dinov2",
            {"backbone.patch_embed.proj": 0, "backbone.blocks.0.mlp.fc1": 1, "backbone.norm": 12, "classifier": 13},
        ),
        ("efficientnet_lite0", {"stem.conv": 0, "blocks.0.depthwise": 1, "blocks.5.project.0": 4, "blocks.15.x": 7}),
    ],
)
def test_depths_are_the_blocks_of_the_papers(name: str, depths: dict[str, int]) -> None:
    with torch.device("meta"):
        network = build(name, classes=2)
    assert {key: network.depth_of(f"{key}.weight") for key in depths} == depths


# --- the choice in a recipe ---


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("deeplab_small", "deeplab_small"),
        ({"name": "deeplab_small"}, "deeplab_small"),
        ({"name": "deeplab_small", "aspp": "full", "norm": "group"}, "deeplab_small"),
        ({"norm": "batch", "name": "deeplab_small"}, {"name": "deeplab_small", "norm": "batch"}),
        ({"name": "deeplab_small_bn", "norm": "batch"}, "deeplab_small_bn"),
    ],
)
def test_a_choice_has_one_plain_form(choice: Any, expected: Any) -> None:
    """So that a recipe of the last version has the same fingerprint, however many options there will be."""
    assert plain(choice) == expected == plain(plain(choice))
    assert SourceOnlySettings.model_validate({"network": choice, "steps": 1}).model_dump()["network"] == expected


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("deeplab_smal", "unknown network 'deeplab_smal'. Did you mean 'deeplab_small'?"),
        ({"name": "deeplab_vgg16", "asp": "full"}, "deeplab_vgg16 has no option `asp`. Did you mean 'aspp'?"),
        ({"name": "efficientnet_lite0", "aspp": "full"}, "efficientnet_lite0 has no option `aspp`. It has none."),
        ({"name": "deeplab_vgg16", "aspp": 2}, "option `aspp` of deeplab_vgg16 is 2: it must be 'full' or 'published'"),
        ({"aspp": "full"}, "a network with options needs its name. Write {name: NAME, OPTION: VALUE}."),
        ({"name": 3}, "a network with options needs its name"),
        (3, "3 is not a network"),
        (["deeplab_small"], "['deeplab_small'] is not a network"),
    ],
)
def test_wrong_choices_are_told_in_one_line(choice: Any, words: str, tmp_path: Path) -> None:
    content = tree(tmp_path, s={"method": "source_only"})
    content["stages"]["s"]["network"] = choice
    with pytest.raises(UsageError) as caught:
        load_recipe(str(write_recipe(tmp_path / "recipe.yaml", content)), [])
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'recipe.yaml'}: 'stages.s.network': ") and words in line and "\n" not in line


def test_the_quirk_sets_the_option_and_stays_a_quirk() -> None:
    settings = SourceOnlySettings.model_validate({"network": "deeplab_vgg16", "steps": 1, "official": True})
    assert settings.network == "deeplab_vgg16"
    assert settings.chosen_network == {"name": "deeplab_vgg16", "aspp": "published"}
    assert networks.chosen(settings.chosen_network)[1] == DeepLabOptions(aspp="published")
    off = settings.model_copy(update={"quirks": {**settings.quirks, "aspp": False}})
    assert off.chosen_network == "deeplab_vgg16" and off.network_name == "deeplab_vgg16"


def test_the_two_small_networks_are_one_with_an_option() -> None:
    twins = [build(choice, classes=3) for choice in ({"name": "deeplab_small", "norm": "batch"}, "deeplab_small_bn")]
    assert list(twins[0].state_dict()) == list(twins[1].state_dict())
    assert twins[0].options.model_dump() == twins[1].options.model_dump()


# --- a network of one's own ---


class NameOptions(NetworkOptions):
    name: str = Field("x", description="taken")


class Named(Own):
    """It has an option that recipes use otherwise."""

    Options: ClassVar[type[NetworkOptions]] = NameOptions  # type: ignore[assignment]


class NoPixels(Segmenter):
    """It does not say what it wants."""

    stride = 4


@pytest.mark.parametrize(
    ("name", "network", "words"),
    [
        ("deeplab_small", Own, "a network named 'deeplab_small' already exists"),
        ("mine", nn.Conv2d, "is not a subclass of segadapt.models.segmenter.Segmenter"),
        ("mine", "Own", "'Own' is not a subclass"),
        ("mine", NoPixels, "NoPixels does not set `pixels`"),
        ("mine", Named, "Named has an option `name`"),
        ("my net", Own, "'my net' cannot be a network's name"),
    ],
)
def test_what_cannot_be_registered(name: str, network: Any, words: str) -> None:
    before = dict(NETWORKS)
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        segadapt.register_network(name, network)
    assert before == NETWORKS


@pytest.mark.usefixtures("own")
def test_a_registered_network_trains_predicts_and_is_known_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_report(monkeypatch)
    estimated: list[int] = []

    def weights(estimator: Estimator, reference: networks.Choice, counted: Any = Estimator.weights) -> int:
        estimated.append(counted(estimator, reference))
        return estimated[-1]

    monkeypatch.setattr(Estimator, "weights", weights)
    network = {"name": "own", "width": 12}
    stages = {
        "plain": {"method": "source_only", "network": network, "steps": 1},
        "sean": {"method": "sean", "network": network, "steps": 2, "start": "@plain", "fresh_head": True},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), **stages))
    segadapt.run_recipe(recipe, tmp_path / "planned", dry_run=True)
    assert estimated[0] == 4 * (12 * (3 * 40 * 40 + 1) + 19 * (12 + 1))
    done = segadapt.run_recipe(recipe, tmp_path / "run")
    assert {stage.state for stage in done.stages.values()} == {"done"}
    assert {stage.state for stage in segadapt.run_recipe(recipe, tmp_path / "run", dry_run=True).stages.values()} == {
        "done"
    }
    model = segadapt.load(done.folder, device="cpu")
    assert (model.header.network, model.header.options) == ("own", {"width": 12})
    assert isinstance(model.network, Own) and model.network.attention is not None
    image = next((tmp_path / "data/cityscapes").rglob("*_leftImg8bit.png"))
    assert model.predict(image).labels.shape == (64, 128)
    refused = command(capsys, "export", done.folder / "plain", "-o", tmp_path / "out.pth")
    assert_told(refused, 2, "network", "Own with 19 classes is not a network of the published programs", "safetensors.")

    again = load_recipe(str(recipe), ["stages.plain.network={name: own, width: 16}", "stages.sean=null"])
    assert "name: own\n      width: 16" in as_yaml(again)
    with pytest.raises(UsageError, match=r"stages.plain.size: images of 96×32 pixels are too small for Own, which"):
        small = {"stages.plain.size": [96, 32], "stages.sean": None}
        segadapt.run_recipe(recipe, tmp_path / "small", small)


@pytest.mark.usefixtures("own")
def test_a_network_takes_files_of_an_origin_of_ones_own(tmp_path: Path) -> None:
    keys = {"stem": "body"}
    origin = Origin("own_imagenet", "an Own file", ("stem.weight",), keys, pixels=CAFFE, body=keys, skipped=("fc.",))
    register_origin(Own, origin)
    with pytest.raises(ValueError, match="an origin 'own_imagenet' already exists"):
        register_origin(Own, origin)
    path = tmp_path / "own.pth"
    file = {"stem.weight": torch.ones(8, 3, 40, 40), "stem.bias": torch.zeros(8), "fc.weight": torch.zeros(1)}
    torch.save(file, path)
    network = networks.build("own", classes=3)
    report = load_start(network, path)
    assert str(report.origin) == "an Own file" and set(report.loaded) == {"body.weight", "body.bias"}
    assert report.fresh == ("head.weight", "head.bias") and report.skipped == ("fc.weight",)
    assert network.pixels is CAFFE and torch.equal(network.state_dict()["body.weight"], file["stem.weight"])
    torch.save({**file, "other.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match=r"this is an Own file, but it has 'other.weight'"):
        load_start(network, path)
    with pytest.raises(UsageError, match="this is an Own file; expected DeepLabSmall"):
        load_start(networks.build("deeplab_small", classes=3), path)


def test_the_examples_of_the_page_run() -> None:
    before, origins = dict(NETWORKS), dict(ORIGINS)
    examples = [block.text for block in blocks(ROOT / "docs/networks.md", "python") if "register_" in block.text]
    try:
        for example in examples:
            exec(example, {})
        assert len(examples) == 1 and set(NETWORKS) == set(before) and len(ORIGINS) == len(origins) + 1
    finally:
        for table, content in ((NETWORKS, before), (ORIGINS, origins)):
            table.clear()
            table.update(content)  # type: ignore[arg-type]

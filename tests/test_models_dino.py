"""DINOv2 and DINOv3: equal to transformers', files in both directions, and what the network makes of an image."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from torch import Tensor, nn

import record_dino
from record_dino import KINDS, RECORDED, TINY
from segadapt.errors import SegadaptError, UsageError
from segadapt.losses import precise
from segadapt.methods.optimizers import segmenter_optimizer
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.models import vit
from segadapt.models.dino import Dino
from segadapt.models.networks import build
from segadapt.weights import starts
from segadapt.weights.adapt import adapt
from segadapt.weights.checkpoint_files import read_checkpoint
from segadapt.weights.initial import load_start
from segadapt.weights.published import encoder_state, export_encoder

NAMES = ["dinov2", "dinov2_registers", "dinov3"]
EACH_KIND = pytest.mark.parametrize("choice", KINDS, ids=NAMES)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All sizes are one that a test can afford."""
    for size in vit.SIZES:
        monkeypatch.setitem(vit.SIZES, size, TINY)
    torch.manual_seed(0)
    yield


def made(choice: dict[str, Any], **options: Any) -> Dino:
    """A tiny network whose every weight counts."""
    network = build({**choice, **options}, classes=4).eval()
    assert isinstance(network, Dino)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + ("norm" in name))
    return network


def attention_of(block: nn.Module) -> vit.Attention:
    assert isinstance(block, vit.Block)
    return block.attn


def images(height: int = 60, width: int = 90, batch: int = 2) -> Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), generator=torch.Generator().manual_seed(2)).byte()


# --- against transformers ---


@torch.no_grad()
@EACH_KIND
def test_tokens_are_those_of_transformers(choice: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: nothing to compare with")
    other = record_dino.theirs(choice, record_dino.weighed(choice))
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + ("norm" in name))
    other.save_pretrained(tmp_path / "folder")
    network = made(choice)
    report = load_start(network, tmp_path / "folder")
    assert "of the Hugging Face hub" in report.origin.title and len(report.fresh) == len(network.head_parameters())
    pixels = torch.randn(record_dino.pixels(network).shape)
    for hidden in record_dino.masks(network).values():
        mask = None if hidden is None else hidden.flatten(1)
        expected = other(pixels, bool_masked_pos=mask).last_hidden_state[:, network.backbone.before_patches :]
        torch.testing.assert_close(network._tokens(pixels, hidden).flatten(2).mT, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.numeric
@EACH_KIND
def test_tokens_are_those_that_transformers_gave(choice: dict[str, Any]) -> None:
    """The same without transformers (5.24), whose numbers `record_dino.py` has written down."""
    name = choice["name"] + ("_registers" if "registers" in choice else "")
    with np.load(RECORDED) as recorded:
        network = record_dino.weighed(choice)
        for key, hidden in record_dino.masks(network).items():
            found = network._tokens(record_dino.pixels(network), hidden).flatten(2).mT
            expected = torch.from_numpy(recorded[f"{name}/{key}"])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# --- files ---


@EACH_KIND
@pytest.mark.parametrize("suffix", ["", "_hub"])
def test_files_in_both_directions(choice: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    kind, path = choice["name"] + suffix, tmp_path / "encoder.pth"
    first = made(choice)
    if choice["name"] == "dinov3":  # its keys have no bias, whatever a network holds in its place
        for block in first.backbone.blocks:
            attention_of(block).qkv.bias.data.view(3, -1)[1] = 0
    export_encoder(first, path, kind)
    file = torch.load(path, weights_only=True)
    second = build(choice, classes=7)
    assert read_checkpoint(path).info.kind == kind
    report = load_start(second, path)
    assert set(report.fresh) == {name for name in second.state_dict() if not name.startswith("backbone.")}
    for name, tensor in first.backbone.state_dict().items():
        assert torch.equal(second.state_dict()[f"backbone.{name}"], tensor), name
    again = encoder_state(second, kind)
    assert list(again) == list(file) and all(torch.equal(again[name], tensor) for name, tensor in file.items())


@EACH_KIND
def test_wrong_files_are_told(choice: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "encoder.pth"
    state = encoder_state(made(choice), choice["name"])
    for change, words in (
        ({"mask_token": None}, "it lacks 'mask_token'"),
        (
            {"blocks.1.attn.qkv.weight": torch.zeros(64, 32)},
            "'backbone.blocks.1.attn.qkv.weight' is 64×32, expected 96×32",
        ),
        ({"blocks.3.norm1.weight": torch.zeros(32)}, "it has 'backbone.blocks.3.norm1.weight', which"),
        ({"head.weight": torch.zeros(1)}, "it has 'head.weight', which such a file does not have"),
    ):
        content = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        torch.save(content, path)
        with pytest.raises(UsageError, match=words):
            load_start(made(choice), path)
    with pytest.raises(UsageError, match=r"no such kind of file: 'mit'. It has dinov") as caught:
        encoder_state(made(choice), "mit")
    assert "\n" not in str(caught.value)


def test_dinov3_writes_the_masks_of_its_authors() -> None:
    state = encoder_state(made({"name": "dinov3"}), "dinov3")
    assert state["blocks.0.attn.qkv.bias_mask"].tolist() == [1.0] * 32 + [0.0] * 32 + [1.0] * 32
    assert "layer.0.attention.k_proj.bias" not in encoder_state(made({"name": "dinov3"}), "dinov3_hub")


# --- positions ---


def test_learned_positions_are_resampled_as_by_pytorch() -> None:
    for choice, antialias in ((KINDS[0], False), (KINDS[1], True)):
        network = made(choice).backbone
        assert network.pos_embed is not None
        table = network.pos_embed[:, 1:].view(1, 37, 37, -1).permute(0, 3, 1, 2)
        for size in ((5, 8), (40, 20), (37, 37)):
            expected = nn.functional.interpolate(table, size=size, mode="bicubic", antialias=antialias)
            torch.testing.assert_close(network.positions(*size)[0].T, expected[0].flatten(1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_rotation_depends_on_distance_alone() -> None:
    """q·k of two patches is a function of how far apart they are; what stands before the patches is not turned."""
    rotation = made(KINDS[2]).backbone.rotation(1, 6, torch.device("cpu"))
    assert rotation is not None and made(KINDS[0]).backbone.rotation(1, 6, torch.device("cpu")) is None
    cosine, sine = rotation
    query, key = torch.randn(16), torch.randn(16)
    tokens = torch.stack([query, key])[:, None, None, :].expand(2, 1, 8, 16)  # two tokens before the patches
    turned = vit.rotated(tokens, cosine, sine)
    assert torch.equal(turned[:, :, :2], tokens[:, :, :2])
    products = turned[0, 0, 2:] @ turned[1, 0, 2:].T
    for distance in range(-5, 6):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-4)


# --- the rule for images ---


@EACH_KIND
def test_images_are_stretched_to_whole_patches(choice: dict[str, Any]) -> None:
    network = made(choice)
    patch = network.backbone.kind.patch
    usual = (1120, 1120) if patch == 14 else (1024, 1024)
    assert network.fitted_size((1024, 1024)) == usual
    assert made(choice, enlarge=1).fitted_size((1024, 10 * patch)) == (1024 // patch * patch, 10 * patch)
    with torch.no_grad():
        found = made(choice, enlarge=1)(images(2 * patch + 3, 3 * patch + 5))
        stretched = nn.functional.interpolate(
            network.pixels(images(2 * patch + 3, 3 * patch + 5)), size=(2 * patch, 3 * patch), mode="bilinear"
        )
        torch.testing.assert_close(found.logits, made(choice, enlarge=1).segment(stretched).logits)
    assert found.logits.shape == (2, 4, 8, 12)


@torch.no_grad()
@EACH_KIND
def test_padding_adds_the_mean_colour_and_is_cut_off(choice: dict[str, Any]) -> None:
    network = made(choice, fit="pad")
    patch = network.backbone.kind.patch
    pixels = network.pixels(images(2 * patch, 3 * patch))
    assert torch.equal(network.segment(pixels).logits, made(choice, enlarge=1).segment(pixels).logits)
    shown = pixels[:, :, : 2 * patch - 5, : 3 * patch - 3]
    padded = torch.zeros_like(pixels)
    padded[:, :, : 2 * patch - 5, : 3 * patch - 3] = shown
    output, whole = network.segment(shown), network.segment(padded).logits
    y, x = (
        2 * (torch.arange(new) + 0.5) / new * side / all_of_it - 1
        for new, side, all_of_it in zip(output.logits.shape[-2:], shown.shape[-2:], padded.shape[-2:], strict=True)
    )
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1).expand(2, -1, -1, -1)
    expected = nn.functional.grid_sample(whole, grid, padding_mode="border", align_corners=False)
    assert output.features.shape[-2:] == output.logits.shape[-2:]
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-4)
    with pytest.raises(UsageError, match=r"cannot be padded. Use fit: resize"):
        network.encode_scales(shown)


@torch.no_grad()
def test_what_is_cut_off_leaves_places_where_they_were() -> None:
    """A ramp over the padded image is, after the cut, the same ramp over the image."""
    from segadapt.models.dino import _within

    ramp = (torch.arange(12.0) + 0.5) / 12 * 42  # the place, in pixels, of 12 rows of logits over 42 pixels
    rows = _within(12, 11, 37 / 42, ramp) @ ramp
    torch.testing.assert_close(rows[1:], ((torch.arange(11.0) + 0.5) / 11 * 37)[1:])  # the first is at the border


# --- what does not learn ---


def learning(network: Dino) -> set[str]:
    """The names of what learns in the encoder."""
    return {name for name, parameter in network.backbone.named_parameters() if parameter.requires_grad}


@EACH_KIND
def test_frozen_parts_get_no_gradient(choice: dict[str, Any]) -> None:
    assert learning(made(choice, freeze="encoder")) == set()
    some = learning(made(choice, freeze=2))
    assert {name.split(".")[1] for name in some if name.startswith("blocks.")} == {"2"} and "norm.weight" in some
    assert not any(name.startswith(("cls_token", "pos_embed", "patch_embed", "mask_token")) for name in some)
    network = made(choice, freeze="encoder").train()
    optimizer = segmenter_optimizer(network, SourceOnlySettings.model_validate({"steps": 1, "head_lr": 10}))
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert inside == {id(p) for p in network.head_parameters()}
    network(images()).logits.sum().backward()
    assert all(p.grad is None for p in network.backbone.parameters())


@EACH_KIND
def test_lora_begins_as_nothing_learns_and_is_merged(choice: dict[str, Any], tmp_path: Path) -> None:
    plain, network = made(choice), made(choice, freeze="encoder", lora=2, lora_alpha=6.0)
    assert len(learning(network)) == 4 * TINY.depth and all(".lora_" in name for name in learning(network))
    torch.testing.assert_close(network(images()).logits, plain(images()).logits)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    changed = network(images()).logits
    assert not torch.allclose(changed, plain(images()).logits, atol=1e-2)
    tokens = torch.randn(1, 5, 32)
    attention = attention_of(network.backbone.blocks[0])
    assert attention.lora_q is not None
    query = nn.functional.linear(tokens, attention.qkv.weight[:32] + 6 / 2 * attention.lora_q.b @ attention.lora_q.a)
    torch.testing.assert_close(
        attention.qkv(tokens)[..., :32] + attention.lora_q(tokens) - attention.qkv.bias[:32],
        query,
        atol=1e-4,
        rtol=1e-4,
    )
    merged = network.for_inference()
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(merged(images()).logits, changed, atol=1e-4, rtol=1e-4)
    assert any("lora" in name for name in network.state_dict())  # which trains on
    export_encoder(network, tmp_path / "merged.pth", choice["name"])
    load_start(plain, tmp_path / "merged.pth")
    plain.decoder.load_state_dict(network.decoder.state_dict())
    torch.testing.assert_close(plain(images()).logits, changed, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lora": 4}, "LoRA replaces training of the encoder's own weights. Set freeze: encoder"),
        ({"lora_alpha": 4.0}, "`lora_alpha` applies only with `lora`"),
        ({"freeze": 4}, "freeze: 4 is more than the 3 blocks"),
        ({"freeze": 0}, "option `freeze"),
        ({"fit": "pad", "enlarge": 1.3}, "`enlarge` applies only with fit: resize"),
        ({"size": "g"}, "'s', 'b' or 'l'"),
    ],
)
def test_options_that_do_not_agree(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build({"name": "dinov2", **options}, classes=2)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_rates_fall_towards_the_image() -> None:
    network = made(KINDS[0])
    settings = SourceOnlySettings.model_validate({"steps": 1, "lr": 1.0, "layer_decay": 0.5, "no_norm_decay": True})
    rates = {
        id(p): (group["lr"], group["weight_decay"])
        for group in segmenter_optimizer(network, settings).param_groups
        for p in group["params"]
    }
    found = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    decay = settings.weight_decay
    assert found["backbone.pos_embed"] == (0.5**4, 0) and found["backbone.patch_embed.proj.weight"] == (0.5**4, decay)
    assert found["backbone.blocks.0.mlp.fc1.weight"] == (0.5**3, decay) and found["backbone.norm.weight"] == (0.5, 0)
    assert found["backbone.blocks.2.ls1.gamma"] == (0.5, 0) and found["classifier.weight"] == (1, decay)


# --- tokens that are not shown ---


@torch.no_grad()
@EACH_KIND
def test_hidden_patches_are_not_seen(choice: dict[str, Any]) -> None:
    network = made(choice, enlarge=1)
    patch = network.backbone.kind.patch
    size = (2 * patch, 3 * patch)
    assert network.token_grid(size) == (2, 3) and build("deeplab_small", classes=2).token_grid(size) is None
    given = images(*size, batch=1)
    hidden = torch.zeros(1, 2, 3, dtype=torch.bool)
    assert torch.equal(network(given, hidden).logits, network(given).logits)
    hidden[:, 0, 1] = True
    other = given.clone()
    other[:, :, :patch, patch : 2 * patch] = 255 - other[:, :, :patch, patch : 2 * patch]
    assert torch.equal(network(given, hidden).logits, network(other, hidden).logits)
    assert not torch.allclose(network(given, hidden).logits, network(given).logits, atol=1e-3)


@EACH_KIND
def test_checkpointing_has_the_same_gradients(choice: dict[str, Any]) -> None:
    network = made(choice, freeze=1).train()
    other = copy.deepcopy(network)
    other.checkpointing = True
    for one in (network, other):
        precise(one(images()).logits).square().mean().backward()  # type: ignore[no-untyped-call]
    for (name, mine), its in zip(network.named_parameters(), other.parameters(), strict=True):
        assert (mine.grad is None) == (its.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, its.grad)


def test_a_file_of_another_variant_is_told(tmp_path: Path) -> None:
    path = tmp_path / "registers.pth"
    export_encoder(made(KINDS[1]), path, "dinov2")
    with pytest.raises(
        UsageError, match=r"it has 'backbone.register_tokens', which DINOv2 with 4 classes does not have"
    ):
        load_start(made(KINDS[0]), path)
    assert adapt(read_checkpoint(path), made(KINDS[1])).partial


# --- the hub ---


class _Refused(GatedRepoError):
    """As the hub's client raises it, without an answer to show."""

    def __init__(self) -> None:
        Exception.__init__(self, "403")


def test_a_gated_repository_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> str:
        raise _Refused

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refused)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(SegadaptError) as caught:
        load_start(made(KINDS[2]), "dinov3_b")
    told = str(caught.value)
    assert told.startswith(
        "dinov3_b: https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m gives its files only"
    )
    assert "hf auth login" in told and "\n" not in told
    assert "its licence must be accepted" in (starts.missing_download("dinov3_b") or "")


@pytest.mark.parametrize(
    ("start", "repository"),
    [
        ("dinov2_s", "facebook/dinov2-small"),
        ("dinov2_l_registers", "facebook/dinov2-with-registers-large"),
        ("dinov3_s", "facebook/dinov3-vits16-pretrain-lvd1689m"),
    ],
)
def test_starts_have_names(start: str, repository: str) -> None:
    assert starts.DOWNLOADS[start].repository == repository and start in starts.STARTS

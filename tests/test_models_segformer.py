"""SegFormer with DAFormer's decoders: the published forward passes, what it says about itself, and its files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recorded.uda import assert_as_recorded, uda_forward, uda_input, uda_parameters, uda_state
from segadapt.errors import UsageError
from segadapt.models.mit import SIZES, Block, MiT
from segadapt.models.networks import build
from segadapt.models.segformer import Segformer
from segadapt.models.segmenter import Segmenter
from segadapt.sample_randomness import Draws, draw_by_sample, drawing
from segadapt.weights.initial import identify, load_start
from segadapt.weights.mit import DAFORMER_HEAD, ENCODER, TRANSFORMERS_MIT
from segadapt.weights.published import export_published, published_state
from segadapt.weights.saved import load_any
from segadapt.weights.starts import DOWNLOADS, MIT_SIZES, STARTS

DECODERS = ("daformer", "daformer_conv1", "segformer")


def network(decoder: str = "daformer", **options: Any) -> Segformer:
    """MiT-B0 with all dropout off, in eval mode, with the recorded weights."""
    choice = {"name": "segformer", "size": "b0", "decoder": decoder, "dropout": 0.0, "drop_path": 0.0, **options}
    made = build(choice, classes=19)
    assert isinstance(made, Segformer)
    weights = uda_state(f"{decoder}_mit_b0")
    missing, unused = made.load_state_dict(weights, strict=False)
    assert not missing and set(unused) == (
        {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"} if decoder == "segformer" else set()
    )
    return made.eval()


# --- what it computes ---


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_it_computes_what_the_published_network_does(decoder: str, dtype: torch.dtype) -> None:
    ours = network(decoder).to(dtype)
    output = ours.segment(uda_input("input.image", (2, 3, 64, 128)).to(dtype))
    assert_as_recorded(output.logits, f"{decoder}.logits")
    if decoder != "daformer":
        return
    for i, scale in enumerate(output.scales, start=1):
        assert_as_recorded(scale, f"mit_b0.{i}")
    predicted = ours.upsample(output.logits, (64, 128)).argmax(1)[:, ::2, ::2]
    assert (predicted.numpy() == uda_forward()["daformer.prediction"]).mean() >= 0.999


@pytest.mark.numeric
@torch.no_grad()
def test_the_decoder_learns_the_published_statistics() -> None:
    ours = network()
    scales = ours.encode_scales(uda_input("input.image", (2, 3, 64, 128)))
    ours.set_mode(batch_norm=True)
    assert_as_recorded(ours.heads(ours.decode(scales))[0], "daformer.logits_train_mode")
    statistics = {name: name.partition("forward.")[2] for name in uda_forward() if "after_train_forward" in name}
    assert len(statistics) == 16
    for name, own in statistics.items():
        assert_as_recorded(ours.get_buffer(own)[::4], name)


@pytest.mark.numeric
@torch.no_grad()
def test_the_copy_for_inference_says_the_same() -> None:
    ours, images = network(), torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    folded = ours.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    expected = ours(images).logits
    torch.testing.assert_close(folded(images).logits, expected, rtol=1e-4, atol=1e-5 * float(expected.std()))


@pytest.mark.parametrize(
    ("size", "millions"), [("b0", 3.4), ("b1", 13.1), ("b2", 24.2), ("b3", 44.0), ("b4", 60.8), ("b5", 81.4)]
)
def test_the_encoders_are_as_large_as_the_paper_says(size: str, millions: float) -> None:
    """Table 1 of SegFormer, in millions of parameters."""
    with torch.device("meta"):
        encoder = MiT(SIZES[size])
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_blocks_are_left_out_more_often_towards_the_end() -> None:
    with torch.device("meta"):
        encoder = MiT(SIZES["b1"], drop_path=0.14)
    rates = [module.drop_path.p for module in encoder.modules() if isinstance(module, Block)]
    assert rates == pytest.approx([0.02 * i for i in range(8)])


@torch.no_grad()
def test_what_a_sample_loses_in_training_is_its_own() -> None:
    ours = network(dropout=0.5, drop_path=0.9)
    ours.set_mode(batch_norm=False)
    draw_by_sample(ours)
    pixels = uda_input("input.image", (2, 3, 64, 128))
    with drawing(Draws((3, 4), torch.device("cpu"))):
        both = ours.segment(pixels).logits
    with drawing(Draws((4,), torch.device("cpu"))):
        alone = ours.segment(pixels[1:]).logits
    torch.testing.assert_close(alone, both[1:], rtol=1e-4, atol=1e-4 * float(both.std()))
    assert not torch.allclose(ours.eval().segment(pixels[1:]).logits, alone, rtol=1e-2)


def test_a_step_trains_all_of_it() -> None:
    ours = network()
    ours.set_mode(batch_norm=True)
    ours.segment(uda_input("input.image", (2, 3, 64, 128))).logits.square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in ours.parameters())


# --- its files ---


def test_names_and_order_are_the_published_ones() -> None:
    for decoder in DECODERS:
        wanted = [name for name in uda_parameters(f"{decoder}_mit_b0") if name.startswith("backbone.")]
        state = published_state(network(decoder))
        assert list(state)[: len(wanted)] == wanted
        if decoder != "segformer":  # its own head inherits a classifier that it never uses
            assert list(state) == list(uda_parameters(f"{decoder}_mit_b0"))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_published_checkpoint_goes_in_and_comes_out(decoder: str, training: bool, tmp_path: Path) -> None:
    weights = uda_state(f"{decoder}_mit_b0")
    if training:
        student = {f"model.{name}": values for name, values in weights.items()}
        others = {f"{who}.{name}": -values for who in ("ema_model", "imnet_model") for name, values in weights.items()}
        torch.save({"meta": {"iter": 40000}, "state_dict": student | others}, tmp_path / "theirs.pth")
    else:
        torch.save(weights, tmp_path / "theirs.pth")
    assert identify(tmp_path / "theirs.pth").classes == 19
    model = load_any(tmp_path / "theirs.pth")
    options = model.network.options.model_dump(exclude_defaults=True)
    assert options == {"size": "b0"} | ({} if decoder == "daformer" else {"decoder": decoder})
    assert model.header.label_space["name"] == "cityscapes19" and model.header.size == (1024, 512)
    export_published(model.network, tmp_path / "ours.pth")
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert set(weights) - set(ours) == {name for name in weights if decoder == "segformer" and "conv_seg" in name}
    assert all(torch.equal(values, weights[name]) for name, values in ours.items())


def imagenet(size: str = "b0") -> dict[str, Tensor]:
    """A file in the layout of SegFormer's authors: each tensor one number of its own, small on disk."""
    with torch.device("meta"):
        encoder = MiT(SIZES[size])
    file = {name: torch.tensor(0.5 + i).expand(p.shape) for i, (name, p) in enumerate(encoder.named_parameters())}
    return {**file, "head.weight": torch.zeros(1000, 4), "head.bias": torch.zeros(1000)}


def transformers_layout(file: dict[str, Tensor], prefix: str = "segformer.") -> dict[str, Tensor]:
    """The same under the names of the Hugging Face hub."""
    found = {}
    for theirs, ours in TRANSFORMERS_MIT.items():
        for leaf in ("weight", "bias"):
            values = file.get(f"{ours.removeprefix('backbone.')}.{leaf}")
            if values is not None:
                half = {"key": 0, "value": 1}.get(theirs.rpartition(".")[2])
                found[f"{prefix}{theirs}.{leaf}"] = values if half is None else values.chunk(2)[half].contiguous()
    return found


@pytest.mark.parametrize("layout", ["authors", "hub", "hub's encoder"])
def test_imagenet_weights_go_in(layout: str, tmp_path: Path) -> None:
    file = imagenet()
    halves = {
        name: torch.cat((values[: len(values) // 2], -values[len(values) // 2 :])) for name, values in file.items()
    }
    file = {name: halves[name] if ".kv." in name else values for name, values in file.items()}
    classifier = {"classifier.weight": torch.zeros(1000, 4)}
    written = {
        "authors": file,
        "hub": transformers_layout(file) | classifier,
        "hub's encoder": transformers_layout(file, ""),
    }
    torch.save(written[layout], tmp_path / "mit.pth")
    ours = build({"name": "segformer", "size": "b0"}, classes=3)
    report = load_start(ours, tmp_path / "mit.pth")
    assert all(name.startswith("decode_head.") for name in report.fresh) and len(report.loaded) == len(file) - 2
    state = ours.state_dict()
    for name, values in file.items():
        assert name.startswith("head.") or torch.equal(state[f"backbone.{name}"], values), name


@pytest.mark.parametrize("lost", ["block1.1.attn.sr.bias", "block3.0.attn.kv.weight"])
def test_files_that_do_not_fit_are_told(lost: str, tmp_path: Path) -> None:
    file = imagenet()
    del file[lost]
    torch.save(file, tmp_path / "lacks.pth")
    small = build({"name": "segformer", "size": "b0"}, classes=3)
    with pytest.raises(UsageError, match=f"an ImageNet MiT file of SegFormer's authors, but it lacks '{lost}'"):
        load_start(small, tmp_path / "lacks.pth")
    torch.save(imagenet("b1"), tmp_path / "b1.pth")
    with pytest.raises(UsageError, match=r"'backbone\..*' is .*, expected "):
        load_start(small, tmp_path / "b1.pth")
    torch.save(
        transformers_layout(imagenet()) | {"decode_head.classifier.weight": torch.zeros(19, 4)}, tmp_path / "s.pth"
    )
    with pytest.raises(UsageError, match=r"it has 'decode_head\.classifier\.weight', which such a file does not have"):
        load_start(small, tmp_path / "s.pth")  # trained on labels that nobody has said


def test_the_largest_encoder_has_all_names() -> None:
    with torch.device("meta"):
        largest = {name.rpartition(".")[0] for size in SIZES.values() for name, _ in MiT(size).named_parameters()}
    assert set(ENCODER) == largest and len(ENCODER) == len(largest)
    joined = set(TRANSFORMERS_MIT.values())
    assert joined == {f"backbone.{module}" for module in ENCODER} and len(set(DAFORMER_HEAD)) == len(DAFORMER_HEAD)


def test_starts_by_name_are_the_hubs() -> None:
    assert set(MIT_SIZES) == set(SIZES)
    for size in SIZES:
        file = DOWNLOADS[f"mit_{size}"]
        assert (file.repository, file.file) == (f"nvidia/mit-{size}", "pytorch_model.bin") and f"mit_{size}" in STARTS


@pytest.mark.numeric
@torch.no_grad()
def test_the_encoder_is_the_one_of_transformers(tmp_path: Path) -> None:
    """Random weights, through a file of theirs. They run all norms with eps 1e-5, the authors most with 1e-6."""
    theirs = pytest.importorskip("transformers")
    torch.manual_seed(0)
    widths, depths = SIZES["b0"].widths, SIZES["b0"].depths
    model = theirs.SegformerModel(theirs.SegformerConfig(hidden_sizes=list(widths), depths=list(depths))).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    ours: Segmenter = build({"name": "segformer", "size": "b0"}, classes=3).eval()
    load_start(ours, tmp_path / "model.safetensors")
    for module in ours.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    pixels = torch.randn(2, 3, 72, 104)
    expected = model(pixels, output_hidden_states=True).hidden_states[-4:]
    for mine, wanted in zip(ours.encode_scales(pixels), expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))

"""What inference does faster, held to the plain way: folded networks, rows in blocks, mirror images beside images."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.inference import row_blocks
from segadapt.inference.networks import ready
from segadapt.inference.predictor import PUBLISHED_RULES, Predictor
from segadapt.inference.stylizer import Stylizer
from segadapt.models import bilinear, networks
from segadapt.models.folding import fold_sequences
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import ReflectedConv, StyleTransfer, TransposedConv

pytestmark = pytest.mark.numeric

SIZE = (96, 64)  # (W, H) of the networks' input
Picture = NDArray[np.uint8]


def image(seed: int = 0) -> Picture:
    """Smooth noise, 100×70: neighbouring pixels are alike, as in a picture."""
    coarse = torch.rand((1, 3, 9, 12), generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(coarse, (70, 100), mode="bilinear")[0].permute(1, 2, 0).to(torch.uint8).numpy()


def trained(name: str) -> Segmenter:
    """A network with logits of some size, whose batch norms have learned something."""
    torch.manual_seed(0)
    network = networks.build(name, classes=7, attention=True)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 3:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.uniform_(0.5, 0.8)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(1, 2)
    return network.eval()


@pytest.mark.parametrize("name", ["deeplab_resnet101", "deeplab_vgg16", "deeplab_small", "deeplab_small_bn"])
def test_a_network_made_for_inference_says_the_same(name: str) -> None:
    network = trained(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pixels = torch.from_numpy(image()).permute(2, 0, 1)[None]
    made = network.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert not made.training and not any(parameter.requires_grad for parameter in made.parameters())
    with torch.no_grad():
        theirs, ours = network(pixels), made(pixels)
    for mine, plain in ((ours.logits, theirs.logits), (ours.attention, theirs.attention)):
        assert (mine - plain).abs().max() <= 1e-4 * plain.abs().max()
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert any(parameter.requires_grad for parameter in network.parameters())


@torch.no_grad()
def test_only_norms_after_a_convolution_in_a_sequence_are_folded() -> None:
    class Backwards(nn.Sequential):
        def forward(self, maps: Tensor) -> Tensor:
            for module in reversed(self):
                maps = module(maps)
            return maps

    class Standardized(nn.Conv2d):
        def forward(self, maps: Tensor) -> Tensor:
            return F.conv2d(maps, self.weight / self.weight.std(), padding=1)

    def pair(conv: type[nn.Conv2d] = nn.Conv2d) -> tuple[nn.Module, ...]:
        norm = nn.BatchNorm2d(4)
        norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
        return conv(4, 4, 3, padding=1, bias=False), norm

    torch.manual_seed(0)
    others = (*reversed(pair()), Backwards(*pair()), *pair(Standardized))
    network = nn.Sequential(*pair(), nn.ReLU(), nn.Sequential(*pair()), *others).eval()
    maps = torch.randn(1, 4, 6, 5)
    expected = network(maps)
    fold_sequences(network)
    torch.testing.assert_close(network(maps), expected, rtol=1e-5, atol=1e-5)
    assert [isinstance(module, nn.BatchNorm2d) for module in network.modules()].count(True) == 3


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [((5, 9), (40, 71)), ((9, 5), (9, 5)), ((20, 30), (7, 11)), ((1, 4), (3, 1))])
def test_bilinear_matrices_interpolate(old: tuple[int, int], new: tuple[int, int], align_corners: bool) -> None:
    maps = torch.randn(2, 3, *old)
    expected = F.interpolate(maps, size=new, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(bilinear.upsample(maps, new, align_corners), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("views", [1, 3])
def test_blocks_of_rows_are_the_whole(
    views: int, rows: int, align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, classes = (33, 50), 5
    monkeypatch.setattr(row_blocks, "BLOCK", rows * classes * size[1] * 4)
    maps = [5 * torch.randn(1, classes, 4 + view, 9 - view) for view in range(views)]
    whole = [F.interpolate(view, size=size, mode="bilinear", align_corners=align_corners) for view in maps]
    expected = whole[0] if views == 1 else torch.stack([view.softmax(1) for view in whole]).sum(0)
    found = list(row_blocks.row_blocks(maps, size, align_corners))
    assert [here.start for here, _ in found] == list(range(0, 33, rows))
    torch.testing.assert_close(torch.cat([scores for _, scores in found], dim=2), expected, rtol=1e-5, atol=1e-5)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"scales": (1.0, 0.75, 1.5), "mirror": True},
    {"scales": (0.5,), "mirror": True, "window": (40, 30)},
    {"scales": (1.0, 1.5), "mirror": True, "rules": PUBLISHED_RULES},
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("deeplab_small", options) for options in OPTIONS),
        ("deeplab_resnet101", {"scales": (1.0, 0.5), "mirror": True}),
    ],
)
def test_the_fast_predictor_says_what_the_plain_one_does(name: str, options: dict[str, Any]) -> None:
    network, size = trained(name), SIZE if name == "deeplab_small" else (48, 32)
    fast, plain = Predictor(network, size, **options), Predictor(network, size, **options, plain=True)
    expected, (labels, confidence) = plain.probabilities(image()), plain.confident_labels(image())
    np.testing.assert_allclose(fast.probabilities(image()), expected, atol=1e-4)
    found = fast.confident_labels(image())
    np.testing.assert_allclose(found[1], confidence, atol=1e-4)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    clear = first - second > 1e-4
    assert clear.mean() > 0.99 and len(np.unique(labels)) > 1
    rated, some = fast.rated_label_maps([image()], [None], every=3)[0]
    np.testing.assert_allclose(some.numpy(), confidence[::3, ::3], atol=1e-4)
    for ours in (found[0], fast.labels(image()), fast.label_map(image()).numpy(), rated.numpy()):
        np.testing.assert_array_equal(ours[clear], labels[clear])


def test_the_large_logits_of_windows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    kept: list[int] = []
    slide = Predictor._slide

    def noted(self: Predictor, pixels: Tensor) -> Tensor:
        kept.append(sum(logits() is not None for logits in made))
        logits = slide(self, pixels)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(Predictor, "_slide", noted)
    Predictor(trained("deeplab_small"), SIZE, scales=(1.0, 0.75, 0.5, 1.25), window=(40, 30)).labels(image())
    assert kept == [0, 1, 1, 1]


def test_no_scale_makes_an_input_too_small_for_a_network() -> None:
    shapes: list[tuple[int, ...]] = []
    network = trained("deeplab_small")
    network.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape[-2:])))
    Predictor(network, SIZE, scales=(0.1, 0.5), plain=True).labels(image())
    assert shapes == [(8, 10), (32, 48)]


def test_a_mirror_image_shares_the_call_of_its_image() -> None:
    calls: list[int] = []
    network = trained("deeplab_small")
    network.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    Predictor(network, SIZE, scales=(1.0, 0.5), mirror=True).labels(image())
    Predictor(network, SIZE, scales=(1.0, 0.5), mirror=True, plain=True).labels(image())
    assert calls == [2, 2, 1, 1, 1, 1]


def test_rounded_weights_are_what_autocast_makes_of_them() -> None:
    network = trained("deeplab_vgg16")
    pixels = torch.from_numpy(image()[:32, :48]).permute(2, 0, 1)[None]
    rounded = ready(network.for_inference(), "bf16")
    plain = network.for_inference().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rounded(pixels).logits, plain(pixels).logits)


def test_a_reader_may_resize_first() -> None:
    predictor = Predictor(trained("deeplab_small"), SIZE, mirror=True)
    small = predictor.resized(image())
    assert small.shape == (64, 96, 3) and predictor.resized(small) is small
    np.testing.assert_array_equal(predictor.labels(small, (100, 70)), predictor.labels(image()))


@pytest.fixture
def generator() -> StyleTransfer:
    torch.manual_seed(0)
    return StyleTransfer()


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_fused_instance_norm_is_the_written_out_one(generator: StyleTransfer) -> None:
    maps = 30 + 20 * torch.randn(2, 32, 20, 24)
    written_out = generator.in1(maps)
    generator.fuse_norms()
    close(generator.in1(maps), written_out)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_instance_norm_of_bf16_maps_has_the_precision_of_bf16(
    generator: StyleTransfer, layout: torch.memory_format
) -> None:
    """Values and gradients, as near to float32's as if float32's were rounded."""
    norm = generator.in1
    given = (30 + 20 * torch.randn(2, 32, 20, 24)).bfloat16().to(memory_format=layout)
    wanted = torch.randn(2, 32, 20, 24).bfloat16()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        maps = given.to(dtype).requires_grad_()
        normed = norm(maps)
        gradients = torch.autograd.grad(normed, [maps, norm.scale, norm.shift], wanted.to(dtype))
        found.append([normed.detach(), *gradients])
        generator.fuse_norms()
    assert found[1][0].dtype == torch.bfloat16 and found[1][1].dtype == torch.bfloat16
    for exact, rounded in zip(*found, strict=True):
        assert float((rounded.float() - exact).norm()) < 2**-8 * float(exact.norm())


@torch.no_grad()
@pytest.mark.parametrize("size", [(2, 2), (5, 8), (16, 9)])
def test_a_transposed_convolution_is_the_upsampled_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv, maps = ReflectedConv(6, 4, 3, upsample=2), torch.randn(2, 6, *size)
    close(TransposedConv(conv)(maps), conv(maps))


@torch.no_grad()
@pytest.mark.parametrize("residual", [False, True])
def test_a_generator_made_for_inference_paints_the_same(residual: bool) -> None:
    torch.manual_seed(0)
    network, pixels = StyleTransfer(residual), 60 * torch.randn(2, 3, 37, 50)
    network.deconv3.conv2d.weight.normal_(0, 0.1)
    expected = network(pixels)
    close(network.for_inference()(pixels), expected)
    with torch.autocast("cpu", torch.bfloat16):
        usual_error = (network(pixels) - expected).abs().mean()
    assert 0 < (ready(network.for_inference(), "bf16")(pixels) - expected).abs().mean() <= 1.5 * usual_error


def test_the_fast_stylizer_gives_the_plain_ones_pixels(generator: StyleTransfer) -> None:
    with torch.no_grad():
        generator.deconv3.conv2d.weight.mul_(100)  # pictures with contrast
    images = [np.ascontiguousarray(image(seed)[:64, :96]) for seed in range(8)]
    plain = Stylizer(generator, SIZE, plain=True)(images)
    fast = Stylizer(generator, SIZE)(images)
    assert plain.std() > 20
    assert (fast == plain).mean() >= 0.9999 and np.abs(fast.astype(int) - plain).max() <= 1


def test_the_fast_stylizer_is_as_exact_as_the_plain_one_in_bf16(generator: StyleTransfer) -> None:
    with torch.no_grad():
        generator.deconv3.conv2d.weight.mul_(100)  # pictures with contrast
    size, images = (48, 32), [np.ascontiguousarray(image(seed)[:32, :48]) for seed in range(2)]  # slow where emulated
    exact = Stylizer(generator, size, plain=True)(images).astype(int)
    low, plain_low = (Stylizer(generator, size, precision="bf16", plain=p)(images).astype(int) for p in (False, True))
    assert exact.std() > 20
    assert 0 < np.abs(low - exact).mean() <= 1.5 * np.abs(plain_low - exact).mean()

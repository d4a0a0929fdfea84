"""HRDA: the published forward passes, where its crops are, what its loss is, and that it goes around any network."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from by_hand import CPU, batch
from recorded.uda import assert_as_recorded, uda_forward, uda_input, uda_state
from segadapt.batch import Batch
from segadapt.data.loader import Steps
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.methods.segmentation import segmentation_loss
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings
from segadapt.models import networks
from segadapt.models.hrda import Hrda
from segadapt.models.networks import build, plain
from segadapt.models.segmenter import CAFFE, Box, Segmenter
from segadapt.sample_randomness import Draws, draw_by_sample, drawing
from segadapt.weights.mit import PUBLISHED_HRDA
from segadapt.weights.published import published_state
from segadapt.weights.saved import load_any

DEVICE = torch.device("cpu")
B0 = {"name": "segformer", "size": "b0", "dropout": 0.0, "drop_path": 0.0}


def around(of: Any, classes: int = 5, attention: bool = False, **options: Any) -> Hrda:
    torch.manual_seed(0)
    made = build({"name": "hrda", "of": of, **options}, classes=classes, attention=attention)
    assert isinstance(made, Hrda)
    return made.eval()


@pytest.fixture(scope="module")
def published() -> Hrda:
    made = around(B0, classes=19, detail=(64, 64))
    weights = {own_name(name): values for name, values in uda_state("hrda_mit_b0").items()}
    made.load_state_dict(weights)
    return made


def own_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{PUBLISHED_HRDA[module]}.{leaf}"


def small(**options: Any) -> Hrda:
    return around("deeplab_small", **options)


def images(height: int = 64, width: int = 96, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


# --- what it computes ---


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_it_computes_what_the_published_network_does(
    published: Hrda, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    if dtype == torch.float64:
        request.getfixturevalue("float64")
    ours, pixels = published.to(dtype), uda_input("input.square", (2, 3, 128, 128)).to(dtype)
    top, bottom, left, right = (int(side) for side in uda_forward()["hrda.crop_box"])
    with ours.boxes([(top, bottom, left, right)]):
        output = ours.segment(pixels)
    (detail,) = output.details
    assert detail.boxes == 2 * ((top, bottom, left, right),) and (detail.weight, output.weight) == (0.1, 0.9)
    assert_as_recorded(detail.logits, "hrda.crop.detail_logits")
    assert_as_recorded(output.logits, "hrda.crop.fused_logits")
    context = ours.network.heads(ours.network.decode(output.scales))[-1]
    assert_as_recorded(context, "hrda.context_logits")
    assert_as_recorded(torch.sigmoid(ours.scale_attention(output.scales)), "hrda.attention")
    if dtype == torch.float64:
        return
    assert ours.windows((128, 128)) == tuple(map(tuple, uda_forward()["hrda.slide.boxes"].tolist()))
    sliding = ours.segment(pixels)
    assert_as_recorded(sliding.logits, "hrda.slide.fused_logits")
    assert sliding.details == () and sliding.weight == 1
    assert all(torch.equal(*scales) for scales in zip(ours.encode_scales(pixels), output.scales, strict=True))


@pytest.mark.numeric
@torch.no_grad()
def test_windows_over_a_wide_image_are_the_published_ones(published: Hrda) -> None:
    ours, pixels = published.float(), uda_input("input.wide", (1, 3, 128, 256))
    total, count = torch.zeros(1, 19, 128, 256), torch.zeros(256)
    for left in (0, 64, 128):
        total[..., left : left + 128] += ours.upsample(ours.segment(pixels[..., left : left + 128]).logits, (128, 128))
        count[left : left + 128] += 1
    assert_as_recorded((total / count)[:, :, ::4, ::4], "hrda.sliding.logits_every_4th")
    predicted = (total / count).argmax(1)[:, ::4, ::4].numpy()
    assert (predicted == uda_forward()["hrda.sliding.prediction"]).mean() >= 0.999


@torch.no_grad()
def test_trusted_everywhere_it_is_the_detail_and_nowhere_the_context() -> None:
    ours, seen = small(), images()
    plain_network = ours.network
    output = plain_network(seen)
    for bias, wanted in ((1e4, None), (-1e4, output)):
        ours.scale_attention.conv_seg.weight.zero_()
        ours.scale_attention.conv_seg.bias.fill_(bias)  # type: ignore[union-attr]
        found = ours(seen).logits
        if wanted is None:  # windows differ from the whole image at their borders alone
            detail = plain_network(seen[:, :, :32, :48]).logits
            torch.testing.assert_close(found[:, :, 0, 0], detail[:, :, 0, 0], rtol=1e-4, atol=1e-6)
        else:
            half = F.interpolate(plain_network.pixels(seen), size=(32, 48), mode="bilinear")
            context = plain_network.segment(half).logits
            torch.testing.assert_close(found, ours.upsample(context, (8, 12)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "deeplab_small_bn", "deeplab_vgg16"])
@torch.no_grad()
def test_it_goes_around_any_network(name: str) -> None:
    with torch.device("meta"):
        ours = build({"name": "hrda", "of": name}, classes=5, attention=True)
    assert isinstance(ours, Hrda)
    assert ours.pixels is ours.network.pixels and ours.stride == 8 and ours.smallest_input == 16
    ours.train()
    output = ours.segment(torch.empty(2, 3, 72, 104, device="meta"))  # at 80×112, multiples of 16
    assert output.logits.shape == (2, 5, 10, 14) and output.attention is not None
    assert output.attention.shape == (2, 1, 10, 14)
    assert output.details[0].size == (29, 59) and output.details[0].logits.shape == (2, 5, 4, 8)
    assert ours.eval().segment(torch.empty(2, 3, 72, 104, device="meta")).logits.shape == (2, 5, 10, 14)
    ours.checkpointing = True
    assert ours.network.checkpointing


class Ramp(Segmenter):
    """Its logits are where a pixel is, in rows and columns, by the rule of corners that it has."""

    pixels = CAFFE
    stride = 8

    def __init__(self, classes: int, attention: bool = False, options: Any = None) -> None:
        super().__init__(2, 2, attention, options)

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels[:, :2, ::8, ::8]

    def heads(self, features: Tensor) -> tuple[Tensor, ...]:
        return (features,)


@pytest.mark.parametrize("corners", [False, True])
def test_logits_of_corners_come_onto_cells(corners: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """65 values of a 512-pixel side with aligned corners, as DeepLab ResNet-101's: cells are the means of 8 pixels."""
    monkeypatch.setitem(networks.NETWORKS, "ramp", Ramp)
    ours = around("ramp", classes=2)
    ours.network.align_corners = corners
    side = 65 if corners else 64
    places = torch.linspace(0, 511, 65) if corners else 8 * torch.arange(64) + 3.5
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    found = ours._on_cells(torch.stack((rows, columns))[None], (512, 512))
    assert side == len(places) and found.shape == (1, 2, 64, 64)
    wanted = 8 * torch.arange(64) + 3.5
    torch.testing.assert_close(found[0, 0, :, 5], wanted, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found[0, 1, 5], wanted, rtol=1e-5, atol=1e-3)


# --- where its crops are ---


def drawn(ours: Hrda, seeds: tuple[int, ...], passes: int = 1, step_seed: int = 7) -> list[tuple[Box, ...]]:
    with drawing(Draws(seeds, DEVICE, step_seed=step_seed)):
        return [ours.draw_boxes(len(seeds), (1024, 1024)) for _ in range(passes)]


def test_crops_lie_on_cells_and_are_each_samples_own() -> None:
    ours = around(B0, detail=(512, 512))
    first, second = drawn(ours, (1, 2, 3), passes=2)
    assert len({*first, *second}) == 6  # another one for each image and each pass
    assert drawn(ours, (2,), passes=2) == [first[1:2], second[1:2]]  # whoever is beside it
    many = drawn(ours, tuple(range(2000)))[0]
    assert {box[i] % 8 for box in many for i in range(4)} == {0}
    assert {bottom - top for top, bottom, _, _ in many} == {right - left for *_, left, right in many} == {512}
    assert {box[0] for box in many} == {box[2] for box in many} == set(range(0, 513, 8))


def test_the_published_crops_are_one_for_a_step_and_never_reach_the_border() -> None:
    ours = around(B0, detail=(512, 512), boxes="batch", reach_border=False)
    passes = drawn(ours, (1, 2), passes=3000)
    assert all(one == two for one, two in passes)
    assert {one[0] for one, _ in passes} == set(range(0, 505, 8))
    on_another_rank = drawn(ours, (3,), passes=3)  # with the same seed of the step
    assert [boxes[0] for boxes in on_another_rank] == [boxes[0] for boxes in passes[:3]]
    assert drawn(ours, (1, 2), step_seed=8) != passes[:1]


def test_all_shares_of_a_step_have_its_seed() -> None:
    shares = [Steps(5, 4, None, None, rank, 2)[3] for rank in (0, 1)]
    assert all(isinstance(share, Batch) for share in shares)
    one, other = (share for share in shares if isinstance(share, Batch))
    assert one.step_seed == other.step_seed == one.seeds[0] and not {*one.seeds} & {*other.seeds}
    assert {part.step_seed for part in (*one.split(2), one.to(DEVICE))} == {one.step_seed}


@pytest.mark.parametrize(
    ("detail", "size", "wanted"),
    [
        (0.5, (1024, 2048), (512, 1024)),
        ((512, 256), (1024, 1024), (256, 512)),  # (width, height)
        ((512, 512), (256, 1024), (256, 512)),
        (0.5, (88, 120), (48, 64)),
        (0.01, (640, 640), (32, 32)),
        (1.0, (64, 64), (64, 64)),
    ],
)
def test_sizes_of_crops(detail: Any, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    ours = around(B0, detail=detail)
    assert ours.crop_size(size) == wanted
    covered = torch.zeros(size)
    for top, bottom, left, right in ours.windows(size):
        assert (bottom - top, right - left) == wanted and top % 8 == left % 8 == 0
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1


# --- its loss ---


def test_the_loss_is_the_published_one() -> None:
    """0.9 · CE(fused) + 0.1 · CE(detail), each the mean over its pixels."""
    ours = small().train()
    labels = torch.randint(0, 5, (2, 64, 96))
    output = ours(images())
    (detail,) = output.details
    assert len(set(detail.boxes)) == 2
    loss = segmentation_loss(ours, output, labels, auxiliary=0.0)
    cut = torch.stack([y[t:b, left:r] for y, (t, b, left, r) in zip(labels, detail.boxes, strict=True)])
    assert torch.equal(detail.cut(labels), cut) and cut.shape == (2, 32, 48)
    fused = F.cross_entropy(F.interpolate(output.logits, size=(64, 96), mode="bilinear"), labels)
    of_detail = F.cross_entropy(F.interpolate(detail.logits, size=(32, 48), mode="bilinear"), cut)
    expected = (0.9 * fused + 0.1 * of_detail).detach()
    assert float((loss.sum / loss.count).detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("boxes", ["image", "batch"])
def test_micro_batches_learn_what_the_whole_batch_does(boxes: str) -> None:
    found = []
    for accumulate in (1, 2, 4):
        ours = small(boxes=boxes).double()
        method = SourceOnly(ours, SourceOnlySettings(network="deeplab_small", steps=2, batch=4, lr=1e-3))
        updater = Updater(method.optimizers, CPU, accumulate)
        values = [float(updater.run(method, batch(step, 4))["total"]) for step in range(2)]
        found.append((values, [p.detach().clone() for p in ours.parameters()]))
    for values, weights in found[1:]:
        assert values == pytest.approx(found[0][0], rel=1e-9)
        for one, other in zip(weights, found[0][1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.numeric
def test_checkpointing_changes_nothing() -> None:
    found = []
    for checkpointing in (False, True):
        ours = small().train()
        ours.checkpointing = checkpointing
        with drawing(Draws((1, 2), DEVICE)):
            loss = ours(images()).logits.square().mean()
        loss.backward()
        found.append([p.grad for p in ours.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


@pytest.mark.numeric
def test_compiled_it_computes_the_same_whatever_the_crops() -> None:
    """And nothing is compiled anew once each place has been seen: some PyTorch versions look at it."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph

    torch.compiler.reset()
    ours = small().train()
    draw_by_sample(ours)
    made = copy.deepcopy(ours)
    made.compile(backend=backend)
    after = []
    for seed in range(6):
        found = []
        for one in (ours, made):
            with drawing(Draws((seed, seed + 9), DEVICE)):
                found.append(one(images()))
        assert found[0].details[0].boxes == found[1].details[0].boxes
        torch.testing.assert_close(found[0].logits, found[1].logits, rtol=1e-4, atol=1e-5)
        after.append(len(graphs))
    assert after[0] > 0 and after[-1] == after[-2] == after[-3]


@pytest.mark.numeric
@torch.no_grad()
def test_the_copy_for_inference_says_the_same(published: Hrda) -> None:
    ours, seen = published.float(), images(100, 132, count=1)
    expected, found = ours(seen).logits, ours.for_inference()(seen).logits
    assert expected.shape == (1, 19, 26, 34)  # of 104×136, the next multiples of 8
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.std()))


# --- what it is told ---


def test_one_plain_form_and_what_is_refused() -> None:
    assert plain({"name": "hrda", "of": {"name": "segformer", "size": "b5"}, "detail": 0.5}) == "hrda"
    assert plain({"name": "hrda", "of": {"name": "segformer", "size": "b0"}, "detail": [64, 32]}) == {
        "name": "hrda",
        "of": {"name": "segformer", "size": "b0"},
        "detail": [64, 32],
    }
    for options, words in (
        ({"of": "hrda"}, "it cannot be hrda itself"),
        ({"of": "segforme"}, "unknown network 'segforme'. Did you mean 'segformer'?"),
        ({"of": {"name": "segformer", "size": "b9"}}, "option `size` of segformer is 'b9'"),
        ({"context": 0.3}, "it must be 1/2, 1/3, 1/4"),
        ({"detail": 1.5}, "a share must be above 0, and at most 1"),
        ({"detail": [0, 64]}, "it must be positive"),
        ({"boxes": "all"}, "it must be 'image' or 'batch'"),
    ):
        with pytest.raises(UsageError, match="network: ") as caught:
            build({"name": "hrda", **options}, classes=2)
        assert words in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


@pytest.mark.parametrize("training", [False, True])
def test_a_published_checkpoint_goes_in_and_comes_out(training: bool, tmp_path: Any) -> None:
    weights = uda_state("hrda_mit_b0")
    at = "model." if training else ""
    torch.save({"state_dict": {f"{at}{name}": values for name, values in weights.items()}}, tmp_path / "hrda.pth")
    model = load_any(tmp_path / "hrda.pth")
    options = model.network.options.model_dump(exclude_defaults=True)
    assert options == {"of": {"name": "segformer", "size": "b0"}, "detail": (512, 512)}
    assert model.header.size == (2048, 1024) and model.network.in_words() == "HRDA with 19 classes"
    ours = published_state(model.network)
    assert list(ours) == list(weights) and all(torch.equal(values, weights[name]) for name, values in ours.items())

"""DACS, DAFormer and MIC: a default step by hand in float64, what the quirks change, and settings that cannot be."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

import matrix
from by_hand import CPU, EQUAL
from recorded import tensor
from segadapt.augment.block_mask import draw_blocks
from segadapt.augment.class_mix import draw_classes, pasted_pixels
from segadapt.augment.strong import draw_strong, strong
from segadapt.batch import Batch
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.data.transforms import Augmentation
from segadapt.engine.updater import Updater
from segadapt.errors import UsageError
from segadapt.losses import IGNORE
from segadapt.methods.dacs import DacsSettings
from segadapt.methods.daformer import Daformer, DaformerSettings
from segadapt.methods.feature_distance import feature_distance, thing_cells
from segadapt.methods.mic import Mic, MicSettings
from segadapt.methods.mixing import Confidence, MixingSettings, augmented, predicted, weighed
from segadapt.methods.supervised import SourceOnlySettings
from segadapt.models.small import DeepLabSmall
from segadapt.stages.target_style import in_target_style, need_both_domains
from uda_replays import crop

SEEDS = torch.tensor([3, 4, 5, 6])


def given(step: int) -> Batch:
    """Four samples of both domains, 32×32."""
    return matrix.given("dacs", step)


def updater(method: Mic) -> Updater:
    return Updater(method.optimizers, CPU)


@pytest.mark.numeric
@pytest.mark.usefixtures("float64")
def test_a_default_step_of_mic_on_daformer_is_the_formulas() -> None:
    """All four losses of the first step, and the teacher after it, written without anything of the methods."""
    torch.manual_seed(0)
    network, other, batch = DeepLabSmall(5), DeepLabSmall(5), given(0)
    before, frozen = copy.deepcopy(network).eval(), copy.deepcopy(other).eval()

    def upsampled(images: Tensor) -> Tensor:
        return F.interpolate(before(images).logits, size=(32, 32), mode="bilinear", align_corners=False)

    with torch.no_grad():
        confidence, pseudo = upsampled(batch.images("target")).softmax(1).max(1)
    threshold = float(confidence.quantile(0.4)) + 1e-9
    settings = MicSettings(
        steps=3, batch=4, size=(32, 32), network="deeplab_small", optimizer="sgd", lr=1e-3, weight_decay=0.0,
        threshold=threshold, thing_ratio=0.51, margins=(2, 3), masked=0.5, mask_block=8, feature_distance=0.01,
    )  # fmt: skip
    method = Mic(Daformer(network, settings, other, (0, 1)), settings)
    values = updater(method).run(method, batch)
    source, labels, target = batch.images("source"), batch.labels("source").long(), batch.images("target")
    seeds = torch.tensor(batch.seeds)

    def ce(images: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(upsampled(images), wanted, ignore_index=IGNORE, reduction="none")

    with torch.no_grad():
        seg = ce(source, labels)[labels != IGNORE].mean()
        weights = torch.zeros(4, 32, 32)
        weights[:, 2:29] = (confidence[:, 2:29] >= threshold).double().mean((1, 2)).view(-1, 1, 1)
        pasted = pasted_pixels(labels, draw_classes(labels, seeds, "class_mix"))
        images = torch.where(pasted[:, None], source, target)
        images = strong(images, draw_strong(seeds, "mixed", settings), settings)
        mixed = (torch.where(pasted, 1.0, weights) * ce(images, torch.where(pasted, labels, pseudo))).mean()
        images = strong(target, draw_strong(seeds, "masked", settings), settings)
        keep = draw_blocks(seeds, "masked/blocks", (32, 32), 8, 0.7)
        mean = before.pixels.inverse(torch.zeros(1, 3, 1, 1))
        masked = (weights * ce(torch.where(keep, images, mean), pseudo)).mean()
        ours, theirs = before(source).scales[-1], frozen(source).scales[-1]
        cells = thing_cells(labels, (0, 1), ours.shape, 0.51)
        feature = (ours - theirs).norm(dim=1)[cells].mean()
    expected = {"seg": seg, "feature": feature, "mixed": mixed, "masked": masked}
    expected["total"] = seg + 0.01 * feature + mixed + 0.5 * masked
    assert 0 < float(weights.max()) < 1 and cells.any()
    assert {key: float(v) for key, v in values.items()} == pytest.approx(
        {key: float(v) for key, v in expected.items()}, rel=EQUAL
    )
    for mine, its in zip(method.host.teacher.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, its)  # α of step 0 is 0


def test_pseudo_labels_have_a_weight_of_each_image_or_of_the_batch() -> None:
    inside = torch.ones(2, 4, 4, dtype=torch.bool)
    seen = [
        Confidence(torch.zeros(2, 4, 4).long(), inside, torch.tensor([4.0, 12.0]), torch.tensor([16.0, 16.0])),
        Confidence(torch.zeros(1, 4, 4).long(), inside[:1], torch.tensor([2.0]), torch.tensor([16.0])),
    ]
    own, batch = (DacsSettings(steps=1, quirks={"pseudo_weight_per_batch": on}) for on in (False, True))
    update = Updater({}, CPU)
    assert [float(w) for one in weighed(seen, own, update) for w in one.weights[:, 0, 0]] == [0.25, 0.75, 0.125]
    assert [float(w) for one in weighed(seen, batch, update) for w in one.weights[:, 0, 0]] == [0.375] * 3


def test_margins_have_no_weight_and_count_with_the_quirk_alone() -> None:
    network, target = DeepLabSmall(5).eval(), given(0).of("target")
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    valid[:, :, :8] = False
    for quirk, counted in ((False, 24 * 22), (True, 32 * 32)):
        settings = DacsSettings(
            steps=1, size=(32, 32), threshold=0, margins=(4, 6), quirks={"pseudo_weight_per_batch": quirk}
        )
        seen = predicted(network, replace(target, valid=valid), settings)
        assert seen.counted.tolist() == [counted] * 4 == seen.sure.tolist()
        weights = weighed([seen], settings, Updater({}, CPU))[0].weights
        assert int((weights > 0).sum()) == 4 * 24 * 22 and float(weights.max()) == 1


def test_margins_of_an_image_travel_with_its_crops() -> None:
    augment = Augmentation(crop=(8, 8), mirror=0.5, margins=(0.2, 0.3, 0.1, 0.0), crop_max_share=0.5)
    image = np.zeros((20, 20, 3), np.uint8)
    image[4:14, 2:] = 255
    for seed in range(20):
        cut, label = augment(image, None, seed)
        assert label is not None and np.array_equal(label == 0, cut[..., 0] > 127)
        _, label = augment(image, np.ones((20, 20), np.uint8), seed)
        assert label is not None and set(np.unique(label)) <= {1, 255}
    with pytest.raises(ValidationError, match="leave nothing"):
        Augmentation(margins=(0.5, 0.5, 0, 0))


def test_the_jitter_happens_with_its_probability_or_as_published() -> None:
    many = torch.arange(2000)
    settings = DacsSettings(steps=1, jitter_probability=0.2)
    assert float(draw_strong(many, "x", settings).jittered.float().mean()) == pytest.approx(0.2, abs=0.03)
    images = torch.full((1, 3, 16, 16), 90.0)
    images[:, 0] = 40.0

    def changed(**quirks: bool) -> float:
        own = settings.model_copy(update={"blur_probability": 0.0, "quirks": quirks})
        batches = (Batch(0, (seed,), step_seed=seed) for seed in range(200))
        return sum(not torch.equal(augmented(images, one, "x", own), images) for one in batches) / 200

    assert changed() == pytest.approx(0.2, abs=0.08) and changed(jitter_probability=True) == pytest.approx(
        0.8, abs=0.08
    )


def test_decisions_per_step_are_those_of_all_images() -> None:
    seeds, deciding = torch.arange(64), torch.full((64,), 9)
    own = draw_strong(seeds, "x", DacsSettings(steps=1))
    one = draw_strong(seeds, "x", DacsSettings(steps=1), deciding, alike=True)
    assert 0 < own.jittered.sum() < 64 and int(one.jittered.sum()) in (0, 64) and int(one.blurred.sum()) in (0, 64)
    assert bool((one.sigma == one.sigma[0]).all()) and bool((one.jitter.order == one.jitter.order[0]).all())
    assert torch.equal(one.jitter.hue, own.jitter.hue) and len(set(own.sigma.tolist())) > 32


def test_the_feature_distance_is_the_recorded_one() -> None:
    """Of 47 cells, and of all; a distance of 0 has the gradient 0."""
    labels = torch.from_numpy(np.stack([crop(place, 128)[1].copy() for place in ([100, 0, 0, 0], [101, 100, 200, 1])]))
    ours, frozen = (tensor(f"feature.{name}", (2, 32, 8, 8)) for name in ("student", "frozen"))
    ours, frozen = ours / ours.std(), frozen / frozen.std()
    cells = thing_cells(labels, (6, 7, *range(11, 19)), ours.shape, 0.75)
    loss = feature_distance(ours, frozen, cells)
    assert float(loss.count) == 47 and float(loss.sum / loss.count) == pytest.approx(7.882688045501709, rel=1e-6)
    everywhere = feature_distance(ours, frozen, torch.ones_like(cells))
    assert float(everywhere.sum / everywhere.count) == pytest.approx(7.91633415222168, rel=1e-6)
    equal = ours.clone().requires_grad_()
    feature_distance(equal, ours, cells).sum.backward()  # type: ignore[no-untyped-call]
    assert equal.grad is not None and float(equal.grad.norm()) == 0
    assert float(feature_distance(ours, frozen, torch.zeros_like(cells)).sum) == 0


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (DacsSettings, {"size": (64, 32), "target_size": (32, 32)}, "must have one size"),
        (DacsSettings, {"size": (32, 32), "margins": (20, 12)}, "leave nothing"),
        (MicSettings, {"host": "dacs", "thing_ratio": 0.8}, "applies only with host daformer"),
        (DaformerSettings, {"thing_ratio": 0.5}, "greater than 0.5"),
        (DacsSettings, {"quirks": {"masked_pair": True}}, "not a quirk of this method"),
    ],
)
def test_settings_that_cannot_be(kind: type[MixingSettings], wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        kind.model_validate({"steps": 1, **wrong})


def test_a_fresh_start_is_no_anchor() -> None:
    assert "there is none" in DaformerSettings(steps=1).cautions()[0]
    assert not DaformerSettings(steps=1, start="x.pth").cautions()
    assert not DaformerSettings(steps=1, feature_distance=0).cautions()


def test_the_result_is_the_student_or_the_teacher() -> None:
    for name in ("student", "teacher"):
        settings = MicSettings(steps=1, network="deeplab_small", size=(32, 32), host="dacs", result=name)
        method = Mic.build(matrix.Tiny(), settings)
        assert method.result is method.modules[name] and not method.helpers


@pytest.mark.parametrize("quirk", [False, True])
def test_masked_images_of_both_domains(quirk: bool) -> None:
    """Of each sample the one or the other; as published, both images of the first of two samples."""
    settings = MicSettings(
        steps=1, batch=4, size=(32, 32), masked_domains="both", masked_augment=False, host="dacs",
        quirks={"masked_pair": quirk},
    )  # fmt: skip
    method, batch = Mic.build(matrix.Tiny(), settings), given(0)
    seen = method.host.begin(batch, updater(method))[0]
    chosen = method.chosen(batch, seen)
    source, target = batch.images("source"), batch.images("target")
    if quirk:
        expected = [source[0], target[0], source[2], target[2]]
        assert all(torch.equal(one, other) for one, other in zip(chosen.images, expected, strict=True))
    for image, labels, weights in zip(*chosen, strict=True):
        if any(torch.equal(image, one) for one in source):
            assert torch.equal(weights > 0, labels != IGNORE)
        else:
            assert any(torch.equal(image, one) for one in target)


def test_label_spaces_say_their_things() -> None:
    cityscapes = load_label_space("cityscapes19")
    assert cityscapes.things == (6, 7, *range(11, 19)) and len(load_label_space("cityscapes16").things) == 8
    assert LabelSpace.from_dict(cityscapes.as_dict()).things == cityscapes.things
    without = {key: value for key, value in cityscapes.as_dict().items() if key != "things"}
    assert LabelSpace.from_dict(without) == cityscapes  # labels and scores are the same
    with pytest.raises(UsageError, match="things names 'boat', which is not a class"):
        LabelSpace.from_dict({"name": "a", "classes": ["water", "ship"], "things": ["boat"]})


def test_source_images_in_the_style_of_the_target() -> None:
    """Each has the mean colour of the target image beside it, whatever its size and whatever else is in the batch."""
    batch = given(0)
    larger = replace(batch.of("target"), images=batch.images("target").repeat_interleave(2, 2).repeat_interleave(2, 3))
    for target, close in ((batch.of("target"), 1e-3), (larger, 0.1)):  # the borders of a resized one weigh otherwise
        styled = in_target_style(replace(batch, target=target), 0.05)
        ours, theirs = (images.float().mean((2, 3)) for images in (styled.images("source"), target.images))
        before = batch.images("source").float().mean((2, 3))
        assert torch.allclose(ours, theirs, atol=close) and not torch.allclose(ours, before, atol=0.3)
        assert torch.equal(styled.labels("source"), batch.labels("source"))
    alone = in_target_style(batch.split(2)[1], 0.05).images("source")
    assert torch.allclose(alone, in_target_style(batch, 0.05).images("source")[2:], atol=1e-3)
    need_both_domains("a", DacsSettings(steps=1, fda=0.05))
    with pytest.raises(UsageError, match="does not see the images of both domains"):
        need_both_domains("a", SourceOnlySettings(steps=1, fda=0.05))

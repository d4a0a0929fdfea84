"""A step of VFM-UDA against its formula, written by hand in float64; with hidden tokens and with masked blocks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segadapt
from by_hand import CLASSES, CPU, EQUAL, Sgd, Toy, check_weights, cross_entropy
from command import assert_told, command
from matrix import given
from planning import without_report
from segadapt.augment.block_mask import draw_blocks
from segadapt.augment.class_mix import draw_classes
from segadapt.augment.colour import draw_jitter, jitter
from segadapt.augment.draw import uniform
from segadapt.augment.strong import draw_strong, strong
from segadapt.config.load import load_recipe
from segadapt.engine.updater import Updater
from segadapt.methods.vfm_uda import VfmUda, VfmUdaSettings
from segadapt.models import vit
from segadapt.models.networks import build
from segadapt.models.segmenter import Segmenter
from tiny_runs import tree, write_data, write_recipe

pytestmark = pytest.mark.numeric

THRESHOLD = 0.22
SETTINGS: dict[str, Any] = {
    "steps": 3,
    "batch": 4,
    "size": [32, 32],
    "optimizer": "sgd",
    "lr": 1e-2,
    "head_lr": 10,
    "weight_decay": 1e-2,
    "auxiliary": 0.3,
    "ema": 0.6,
    "threshold": THRESHOLD,
    "mask_block": 8,
    "masked": 0.7,
    "margins": [2, 5],
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vit.SIZES, "b", vit.Size(16, 2, 2))


def student(name: str, **options: Any) -> Segmenter:
    """A toy with two heads, or a tiny transformer whose blocks do something."""
    torch.manual_seed(0)
    if name == "toy":
        return Toy(2)
    network = build({"name": name, **options}, classes=CLASSES)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if "gamma" in key or "token" in key:
                parameter.normal_(std=0.3)
    return network


def vfm_uda(name: str, **changes: Any) -> VfmUda:
    return VfmUda(student(name), VfmUdaSettings.model_validate(SETTINGS | changes))


def weak(images: Tensor, seeds: Tensor, domain: str) -> Tensor:
    """Each image by itself: jittered with probability 0.9."""
    drawn = draw_jitter(seeds, f"weak/{domain}", 0.1255, 0.5, 0.5, 0.05)
    changed = jitter(images.double(), drawn)
    happens = uniform(seeds, f"weak/{domain}/happens")
    return torch.stack([changed[i] if happens[i] < 0.9 else images[i].double() for i in range(len(images))])


def labels_of(teacher: Segmenter, images: Tensor, mirror: bool) -> tuple[Tensor, Tensor]:
    """ŷ, and each pixel's highest probability."""

    def probabilities(shown: Tensor) -> Tensor:
        return teacher.upsample(teacher(shown).logits, (32, 32)).softmax(1)

    mean = probabilities(images)
    if mirror:
        mean = 0.5 * (mean + torch.flip(probabilities(torch.flip(images, [3])), [3]))
    return mean.argmax(1), mean.max(1).values


def weighted(network: Segmenter, output: Any, labels: Tensor, weights: Tensor) -> Tensor:
    """Σ w · (-log p_y) / pixels, of the main head and 0.3 of the other."""
    total = torch.zeros(())
    for head, share in zip(reversed(output.heads), (1.0, 0.3), strict=False):
        logs = network.upsample(head, (32, 32)).log_softmax(1)
        each = -logs.gather(1, torch.where(labels == 255, 0, labels.long())[:, None])[:, 0]
        total = total + share * (weights * each * (labels != 255)).sum() / labels.numel()
    return total


def loss_by_hand(network: Segmenter, teacher: Segmenter, batch: Any, settings: VfmUdaSettings) -> dict[str, Tensor]:
    """Lines 1 to 6 of the box."""
    seeds = torch.tensor(batch.seeds)
    truth, target = batch.source.labels, batch.target.images
    source_weak, target_weak = weak(batch.source.images, seeds, "source"), weak(target, seeds, "target")
    with torch.no_grad():
        pseudo, confidence = labels_of(teacher, target, settings.mirror)
    rows = torch.zeros(32)
    rows[2 : 32 - 5] = 1
    sure = (confidence >= THRESHOLD).double()
    if settings.quirk("pseudo_weight_per_batch"):
        shares = sure.mean().expand(len(seeds))
    else:
        shares = (sure * rows[:, None]).sum((1, 2)) / (25 * 32)
    weights = shares[:, None, None] * rows[None, :, None].expand(len(seeds), -1, 32)

    output = network(source_weak)
    logits = [network.upsample(head, (32, 32)) for head in output.heads]
    seg = cross_entropy(logits[-1], truth, torch.ones(CLASSES))
    if len(logits) == 2:
        seg = seg + 0.3 * cross_entropy(logits[0], truth, torch.ones(CLASSES))

    chosen = draw_classes(truth, seeds, "class_mix", settings.quirk("classes_of_batch"))
    pasted = torch.stack([chosen[i][truth[i].long()] for i in range(len(seeds))])
    images = torch.where(pasted[:, None], source_weak, target_weak)
    images = strong(images, draw_strong(seeds, "mixed", settings), settings)
    mixed = weighted(
        network, network(images), torch.where(pasted, truth.long(), pseudo), torch.where(pasted, 1.0, weights)
    )

    grid = network.token_grid((32, 32))
    if grid is not None:
        output = network(target_weak, uniform(seeds, "masked/tokens", grid) < 0.7)
    else:
        keep = draw_blocks(seeds, "masked/blocks", (32, 32), 8, 0.7)
        mean = torch.tensor([122.67891434, 116.66876762, 104.00698793]).view(1, 3, 1, 1)  # Caffe's, as RGB
        output = network(torch.where(keep, target_weak, mean))
    return {"seg": seg, "mixed": mixed, "masked": weighted(network, output, pseudo, weights)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["toy", "dinov2", "dinov3"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mirror": False, "ema_warmup": False},
        {"quirks": {"pseudo_weight_per_batch": True, "classes_of_batch": True}},
    ],
    ids=["default", "not_mirrored", "official"],
)
def test_three_steps_equal_the_hand_written_ones(name: str, changes: dict[str, Any]) -> None:
    method = vfm_uda(name, **changes)
    settings = method.settings
    network, teacher = copy.deepcopy(method.student), copy.deepcopy(method.teacher)
    learned = [p for p in network.parameters() if p.requires_grad]
    of_heads = {id(p) for p in network.head_parameters()}
    sgd = Sgd([(p.data, 1e-1 if id(p) in of_heads else 1e-2) for p in learned], 1e-2)
    update = Updater(method.optimizers, CPU)
    for step in range(3):
        batch = given("vfm_uda", step)
        terms = loss_by_hand(network, teacher, batch, settings)
        total = terms["seg"] + terms["mixed"] + 0.7 * terms["masked"]
        sgd.step(torch.autograd.grad(total, learned))
        decay = min(0.6, 1 - 1 / (step + 1)) if settings.ema_warmup else 0.6
        with torch.no_grad():
            for mine, its in zip(teacher.parameters(), network.parameters(), strict=True):
                mine.copy_(decay * mine + (1 - decay) * its)
        values = update.run(method, batch)
        assert {key: float(values[key]) for key in terms} == pytest.approx(
            {key: float(term.detach()) for key, term in terms.items()}, rel=EQUAL
        )
        assert float(values["total"]) == pytest.approx(float(total.detach()), rel=EQUAL)
        assert float(terms["masked"].detach()) > 0
    check_weights(method, {"student": dict(network.named_parameters()), "teacher": dict(teacher.named_parameters())})


@pytest.mark.usefixtures("float64")
def test_micro_batches_with_hidden_tokens_and_drop_path() -> None:
    losses = []
    for accumulate in (1, 2):
        network = student("dinov2", drop_path=0.5)
        method = VfmUda(network, VfmUdaSettings.model_validate(SETTINGS | {"accumulate": accumulate}))
        update = Updater(method.optimizers, CPU, accumulate)
        losses.append([{k: float(v) for k, v in update.run(method, given("vfm_uda", s)).items()} for s in range(2)])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=EQUAL)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=EQUAL)


def test_so_many_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share r on average, other ones in each image, and the same in every run."""
    seen: list[Tensor] = []
    method = vfm_uda("dinov3", mask_ratio=0.7, size=[320, 320], batch=2)
    monkeypatch.setattr(method.student, "forward", lambda images, hidden: seen.append(hidden))
    part = given("vfm_uda", 0).split(2)[0]
    for _ in range(2):
        method.seen_in_part(part, F.interpolate(part.images("target").float(), (320, 320)))
    assert seen[0].shape == (2, 20, 20) and torch.equal(*seen)
    assert not torch.equal(seen[0][0], seen[0][1])
    assert 0.62 < float(seen[0].float().mean()) < 0.78  # 800 draws: five standard deviations


@pytest.mark.parametrize(("recipe", "size"), [("vfm_uda_gta5_cityscapes", "b"), ("vfm_uda_l_gta5_cityscapes", "l")])
@pytest.mark.parametrize("official", [False, True])
def test_recipes(recipe: str, size: str, official: bool) -> None:
    roots = [f"data.{domain}.root=/data" for domain in ("source", "target")]
    stage = load_recipe(recipe + ("_official" if official else ""), [*roots]).stages["adapt"]
    assert isinstance(stage, VfmUdaSettings)
    assert stage.network in ("dinov2", {"name": "dinov2", "size": size}) and stage.start == f"dinov2_{size}"
    assert stage.quirk("pseudo_weight_per_batch") == official
    assert stage.lr * stage.head_lr == pytest.approx(5e-5 * stage.batch**0.5, rel=1e-2) and stage.head_lr == 10


def test_a_run_whose_encoder_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the recipe to a file as DINOv2's authors have it: LoRA is merged."""
    without_report(monkeypatch)
    options = {"name": "dinov2", "freeze": "encoder", "lora": 2}
    stage = {"method": "vfm_uda", "network": options, "steps": 2, "batch": 2, "head_lr": 10}
    recipe = write_recipe(tmp_path / "recipe.yaml", tree(write_data(tmp_path / "data"), adapt=stage))
    done = segadapt.run_recipe(recipe, tmp_path / "run")
    assert {one.state for one in done.stages.values()} == {"done"}
    model = segadapt.load(done.folder, device="cpu")
    assert model.header.options["lora"] == 2
    out = tmp_path / "encoder.pth"
    assert command(capsys, "export", done.folder / "adapt", "-o", out, "--encoder", "dinov2").code == 0
    state = torch.load(out, weights_only=True)
    assert "blocks.1.attn.qkv.weight" in state and not any("lora" in name for name in state)
    both = command(capsys, "export", done.folder, "-o", out, "--encoder", "dinov2", "--start-file")
    assert_told(both, 2, "--encoder", "is a different kind of file from --start-file", "Leave one of them out.")
    refused = command(capsys, "export", done.folder / "adapt", "-o", tmp_path / "mit.pth", "--encoder", "mit")
    assert_told(refused, 2, "--encoder", "has no such kind of file: 'mit'", "It has dinov2, dinov2_hub.")

"""From image files to scores, labels and pictures: whole stages beside their networks alone and the reference.

Images are of Cityscapes' size (stylize: of GTA5's). Weights are random; the times do not depend on them. The bare work
is the forward pass of every view, or of every batch of the generator, in the same precision and memory format.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from reference import pictures as published
from reference.defaults import pytorch_defaults
from reference.networks import published_segmenter, published_style_transfer
from torch import Tensor, nn

import segadapt
from segadapt.data.dataset import SegmentationDataset
from segadapt.engine.runtime import Runtime
from segadapt.evaluation.evaluate import evaluate_domain
from segadapt.inference.predictor import PUBLISHED_RULES, Predictor, ViewRules
from segadapt.models.networks import build
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.pipeline.show import Display
from segadapt.stages.image_files import Place
from segadapt.stages.pseudo_labels import PseudoLabelsSettings, make_pseudo_labels
from segadapt.stages.stylize import StylizeSettings, stylize_images
from segadapt.weights.saved import GeneratorHeader, ModelHeader, SavedModel, save_generator, save_model
from suite.bare import bare_views
from suite.frames import opened, space_of, write_domain
from suite.measure import in_turns, peak_memory
from suite.rows import BARE, OURS, REFERENCE, Row, row_of
from suite.sizes import Size, Sizes, shown
from suite.trainings import RESNET

Works = dict[str, Callable[[int], object]]
"""What takes turns; each is told the number of the round."""


@dataclass(frozen=True)
class Setting:
    """What all picture benchmarks need."""

    sizes: Sizes
    runtime: Runtime
    folder: Path  # for files, empty at first
    images: int
    rounds: int
    reference: bool
    network: str = RESNET
    published_rules: bool = False  # several views put together as the published program does

    def row(self, part: str, what: str, works: Works, frame: Size, images: int) -> Row:
        """Time the works and make a row of them."""
        if not self.reference:
            works.pop(REFERENCE)
        else:
            works[REFERENCE] = partial(_with_defaults, works[REFERENCE])
        device = self.runtime.device
        works[OURS](-1)
        memory = peak_memory(lambda: works[OURS](-2), device)
        times = in_turns(works, lambda number: number, self.rounds, device)
        return row_of(
            part,
            what,
            times,
            size=f"{shown(frame)} at {shown(self.sizes.target)}",
            unit="image",
            precision=self.runtime.precision,
            count=images,
            memory_mb=None if memory is None else memory.added_mb,
        )

    def segmenter(self) -> Segmenter:
        """The same fresh network each time."""
        torch.manual_seed(0)
        return build(self.network, classes=19).eval().to(self.runtime.device)

    def bare(self, network: nn.Module) -> nn.Module:
        """A copy in the memory format of the runtime, on its device."""
        alone = copy.deepcopy(network)
        alone.to(self.runtime.device, memory_format=self.runtime.memory_format)  # type: ignore[call-overload]
        return alone

    def inputs(self, scales: tuple[float, ...], copies: int) -> list[Tensor]:
        """Pixels for `copies` passes at each scale."""
        width, height = self.sizes.target
        device = self.runtime.device
        shapes = [(1, 3, round(height * scale), round(width * scale)) for scale in scales for _ in range(copies)]
        return [torch.full(shape, 127, dtype=torch.uint8, device=device) for shape in shapes]


def evaluation_rows(setting: Setting) -> Iterator[Row]:
    """One view, and all scales with their mirror images."""
    s, network = setting, setting.segmenter()
    frame = s.sizes.frames["cityscapes"]
    data = opened(write_domain(s.folder / "evaluated", "cityscapes", frame, s.images), s.sizes.target)
    for what, scales, mirror in (("one view", (1.0,), False), ("4 scales, mirrored", published.SCALES, True)):
        predictor = Predictor(
            copy.deepcopy(network),
            s.sizes.target,
            scales=scales,
            mirror=mirror,
            rules=PUBLISHED_RULES if s.published_rules else ViewRules(),
            device=s.runtime.device,
            precision=s.runtime.precision,
        )
        inputs = s.inputs(scales, 2 if mirror else 1) * s.images
        works: Works = {
            BARE: partial(_bare, s.bare(network), inputs, s.runtime),
            OURS: partial(_evaluate, predictor, data),
            REFERENCE: partial(_plain, published_segmenter(network), data, s.sizes.target, mirror),
        }
        yield s.row("evaluation", what, works, frame, s.images)


def _bare(network: nn.Module, inputs: list[Tensor], runtime: Runtime, number: int) -> None:
    bare_views(network, inputs, runtime.precision)


def _with_defaults(work: Callable[[int], object], number: int) -> None:
    with pytorch_defaults():
        work(number)


def _evaluate(predictor: Predictor, data: SegmentationDataset, number: int) -> None:
    space = space_of("cityscapes")
    evaluate_domain(predictor, data, space, space, layout="cityscapes", split="train")


def _plain(network: Segmenter, data: SegmentationDataset, size: Size, multi_scale: bool, number: int) -> None:
    published.evaluate(network, data.pairs, space_of("cityscapes"), "cityscapes", size, multi_scale)


def pseudo_label_row(setting: Setting) -> Row:
    """The whole stage: network, files, selection."""
    s, network = setting, setting.segmenter()
    frame, space = s.sizes.frames["cityscapes"], space_of("cityscapes")
    images = places(s, "labelled", "cityscapes")
    plain = published_segmenter(network)
    saved = SavedModel(network, header(s, network))
    settings = PseudoLabelsSettings(model="", official=s.published_rules)
    inputs = s.inputs(published.SCALES, 2) * s.images
    works: Works = {
        BARE: partial(_bare, s.bare(network), inputs, s.runtime),
        OURS: lambda number: make_pseudo_labels(
            s.runtime, saved, space, images, s.folder / f"labels{number}", settings, Display(main=False)
        ),
        REFERENCE: lambda number: published.pseudo_labels(
            plain, [image for image, _ in images], s.folder / f"plain labels{number}", s.sizes.target
        ),
    }
    return s.row("evaluation", "pseudo-labels", works, frame, s.images)


def stylize_row(setting: Setting) -> Row:
    """The whole stage, a batch of two at a time."""
    s, frame = setting, setting.sizes.frames["gta5"]
    count = 2 * s.images  # decoding, network and encoding overlap only where there are several
    images = places(s, "originals", "gta5", count)
    torch.manual_seed(0)
    generator, file = StyleTransfer().eval(), s.folder / "generator.safetensors"
    save_generator(file, generator, GeneratorHeader(size=s.sizes.target))
    plain = published_style_transfer(generator).to(s.runtime.device)
    settings = StylizeSettings(generator="")
    width, height = s.sizes.target
    batches = [torch.rand(settings.batch, 3, height, width, device=s.runtime.device)] * (count // settings.batch)
    works: Works = {
        BARE: partial(_bare, s.bare(generator), batches, s.runtime),
        OURS: lambda number: stylize_images(
            s.runtime, file, images, s.folder / f"stylized{number}", settings, Display(main=False)
        ),
        REFERENCE: lambda number: published.stylize(
            plain, [image for image, _ in images], s.folder / f"plain stylized{number}", s.sizes.target
        ),
    }
    return s.row("stylize", "stylize", works, frame, count)


def predict_row(setting: Setting) -> Row:
    """Latency of one image file: labels and probabilities at its own size."""
    s, network = setting, setting.segmenter()
    frame, file = s.sizes.frames["cityscapes"], s.folder / "model.safetensors"
    ((image, _),) = places(s, "predicted", "cityscapes", 1)
    save_model(file, network, header(s, network))
    model = segadapt.load(file, device=s.runtime.device, precision=s.runtime.precision)
    plain, inputs = published_segmenter(network), s.inputs((1.0,), 1)
    works: Works = {
        BARE: partial(_bare, s.bare(network), inputs, s.runtime),
        OURS: lambda _: model.predict(image),
        REFERENCE: lambda _: published.predict(plain, image, s.sizes.target),
    }
    return s.row("predict", "predict", works, frame, 1)


def places(setting: Setting, name: str, layout: str, count: int | None = None) -> list[Place]:
    """Files of a layout's size, and where what is made of them goes."""
    s = setting
    settings = write_domain(s.folder / name, layout, s.sizes.frames[layout], count or s.images)
    return [(pair.image, Path(pair.image.stem)) for pair in settings.pairs("train")]


def header(setting: Setting, network: Segmenter) -> ModelHeader:
    """Of a model file of the network."""
    return ModelHeader(
        network=setting.network,
        attention=False,
        pixels=network.pixels.name,
        label_space=space_of("cityscapes").as_dict(),
        size=setting.sizes.target,
    )

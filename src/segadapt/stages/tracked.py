"""What trackers are told about a training stage: its settings, pictures of what its network gives, its final scores."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from segadapt.data.dataset import SegmentationDataset, TrainingData
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.tools.sheet import row
from segadapt.evaluation.evaluate import spread
from segadapt.files import is_file
from segadapt.inference.formats import picture
from segadapt.inference.predictor import Predictor
from segadapt.inference.stylizer import Stylizer
from segadapt.methods.method import Method
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.plain_data import flat
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains
from segadapt.stages.stage import Work
from segadapt.tracking.tracker import Pictures, Subject, plain_name
from segadapt.tracking.trackers import Tracking, need_installed

SHOWN = 4
"""Images in a tracker."""


def names_of(run: Run, settings: TrainingSettings) -> tuple[str, ...]:
    """The trackers of a training: the run's, and TensorBoard where its settings ask for that."""
    own = ("tensorboard",) if settings.tensorboard else ()
    return tuple(dict.fromkeys((*run.recipe.runtime.trackers, *own)))


def need_trackers(work: Work) -> None:
    """Raise UsageError for a tracker whose package is not installed: before anything begins."""
    need_installed(work.run.recipe.runtime.trackers, "runtime.trackers")
    if work.settings.tensorboard:
        need_installed(["tensorboard"], f"stages.{work.name}.tensorboard")


def tracking_of(work: Work) -> Tracking:
    """The trackers of a stage; rank 0 alone has some."""
    run, recipe = work.run, work.run.folder / "recipe.yaml"
    settings = flat(work.settings.model_dump(mode="json"))
    name = f"{run.folder.absolute().name}/{work.name}"
    subject = Subject(
        name,
        work.folder,
        {"stage": work.name, "seed": run.recipe.seed, "label_space": run.space.name, **settings, **work.decided},
        recipe.read_text(encoding="utf-8") if is_file(recipe) else "",
    )
    return Tracking(names_of(run, work.settings) if run.runtime.is_main else (), subject, work.say)


def pictures_every(run: Run, settings: TrainingSettings) -> int:
    """Steps between pictures: as the run says, else with each evaluation."""
    every = run.recipe.runtime.track_images_every
    if every is None:
        every = settings.evaluate_every if isinstance(settings, SegmenterSettings) else 0
    return every if names_of(run, settings) else 0


def pictures_of(
    domains: Domains, settings: TrainingSettings, run: Run, method: Method
) -> Callable[[], Pictures] | None:
    """What shows the method's result on a few images, the same ones each time; None where there is none.

    A segmenter is shown on validation images of the target, else on its training images, else on the source's; a
    generator on images of the source.
    """
    sides = (domains.target_val, domains.target, domains.source_val, domains.source)
    if not isinstance(method.result, Segmenter):
        sides = (domains.source_val, domains.source, None, None)
    data = next((side for side in sides if side is not None), None)
    if data is None:
        return None

    def make() -> Pictures:
        show = shower(method, settings, run)
        return {plain_name(f"predictions/{leaf.pairs[i].name}"): show(leaf, i) for leaf, i in some(data)}

    return make


def some(data: TrainingData) -> list[tuple[SegmentationDataset, int]]:
    """`SHOWN` images, evenly spread over all domains, with the data set that each lies in."""
    places = [(leaf, index) for leaf in data.leaves for index in range(len(leaf))]
    return [places[number] for number in spread(len(places), SHOWN)]


def shower(method: Method, settings: TrainingSettings, run: Run) -> Callable[[SegmentationDataset, int], Image.Image]:
    """What makes the picture of one image: image, prediction and label, or image and stylized copy, side by side."""
    network, precision = method.result, run.runtime.precision
    if isinstance(network, StyleTransfer):
        stylizer = Stylizer(network, settings.size, precision=precision)

        def stylized(data: SegmentationDataset, index: int) -> Image.Image:
            image = Image.fromarray(data.image(index)).resize(stylizer.size, Image.Resampling.BICUBIC)
            return row([("image", image), ("stylized", Image.fromarray(stylizer([np.asarray(image)])[0]))])

        return stylized
    assert isinstance(network, Segmenter)
    predictor = Predictor(network, settings.target_size or settings.size, precision=precision, plain=settings.official)

    def predicted(data: SegmentationDataset, index: int) -> Image.Image:
        image = data.image(index)
        tiles = [("image", Image.fromarray(image)), ("prediction", coloured(predictor.labels(image), run.space))]
        if data.labels is not None:
            tiles.append(("label", coloured(data.label(index), run.space)))
        return row(tiles)

    return predicted


def coloured(labels: Any, space: LabelSpace) -> Image.Image:
    """A label map in the colours of its classes."""
    return picture(labels, space, "colour").convert("RGB")


def final_scores(record: Mapping[str, Any]) -> dict[str, float]:
    """The scores of an evaluation.json by names for trackers: `target_miou`, `target_iou/road`."""
    found: dict[str, float | None] = {}
    for domain, scores in record["domains"].items():
        found |= {f"{domain}_{name}": scores[name] for name in ("miou", "dice", "pixel_accuracy", "mean_accuracy")}
        found |= {f"{domain}_iou/{plain_name(name)}": score for name, score in scores["per_class"].items()}
    return {name: score for name, score in found.items() if score is not None}

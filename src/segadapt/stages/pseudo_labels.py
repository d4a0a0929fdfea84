"""The `pseudo_labels` stage: what a model says about the target's train images, as labels to train with.

First the network: for each image its arg-max and confidence, each as a file. Then the selection, which needs the
confidences of the whole set and is made from these files alone, in well under a second per hundred images. So a killed
stage resumes exactly, and memory holds a few images.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from rich.table import Table
from torch import Tensor

from segadapt import pseudo_labels
from segadapt.data.label_spaces import IGNORE, UNKNOWN, LabelSpace, remap
from segadapt.data.made import PUBLISHED_ENDING
from segadapt.data.orientation import Exif
from segadapt.data.reading import opened, read_rgb
from segadapt.data.sides import exif_of, open_side
from segadapt.data.tools import sheet
from segadapt.data.tools.contact_sheet import labels_over
from segadapt.engine.runtime import Runtime
from segadapt.errors import UsageError
from segadapt.files import need_file, sha256, user_path, write_json
from segadapt.inference.formats import Format, picture
from segadapt.inference.predictor import Predictor, ViewRules
from segadapt.inference.streams import Job, StreamResult, ahead, need_other_places, run_batches, save_png
from segadapt.inference.transfers import Fetched
from segadapt.quirks import QuirkySettings
from segadapt.references import PSEUDO_LABELS, SEGMENTER, Names
from segadapt.refinement import refined
from segadapt.settings import Size
from segadapt.stages.context import Display, Run
from segadapt.stages.domains import ANY, Domains
from segadapt.stages.estimate import LABEL_BYTES, Estimator, len_of
from segadapt.stages.image_files import Place, count_made, flow, images_done, need_shared, places, some, stopping
from segadapt.stages.stage import Column, Cost, Exhibit, StageKind, Work
from segadapt.weights.provenance import beside_earlier
from segadapt.weights.saved import SavedModel, load_any

Labels = NDArray[np.uint8]
LABELS, ARGMAX, CONFIDENCE = "labels", "argmax", "confidence"
"""Folders: labels to train with, the class of every pixel, and its confidence (grey, 255 · probability)."""


class PseudoLabelsSettings(QuirkySettings):
    """Settings of `pseudo_labels`: what a model says about the target's train images, as labels to train with."""

    known_quirks: ClassVar[tuple[str, ...]] = ("quadrants", "softmax_order")
    method: Literal["pseudo_labels"] = "pseudo_labels"
    model: Annotated[str, Names("the model", SEGMENTER)] = Field(
        description="`@stage`, a model.safetensors or a published checkpoint"
    )
    scales: list[Annotated[float, Field(gt=0, le=8)]] = Field(
        [1.0, 0.75, 1.25, 1.5], min_length=1, description="input scales, up to 8, whose softmax outputs are averaged"
    )
    mirror: bool = Field(True, description="add the mirror image of every scale")
    size: Size | None = Field(
        None, description="input size of the network and size of the labels; null: the model's own"
    )
    refine: int | None = Field(
        None,
        ge=1,
        le=100,
        description="iterations that refine the probabilities along the image's edges, as PAMR does (published: 10); "
        "null: none",
    )
    select: Literal["class_confidence", "all"] = Field(
        "class_confidence",
        description="which pixels get a label: the most confident ones of each class, or all; with `official` all",
    )
    keep: float = Field(0.5, gt=0, le=1, description="share of each class's pixels to keep, the most confident ones")
    certain: float = Field(0.9, gt=0, le=1, description="confidence from which a pixel is kept in any case")
    mask: Annotated[Path | None, Names("the mask", learned=False)] = Field(
        None,
        description="mask image whose black pixels get no label (the ego vehicle, say), stretched to fit each image",
    )
    border: int = Field(0, ge=0, description="width in pixels of the border of the label map that gets no label")
    flat: bool = Field(
        False,
        description="the labels as the published self-training reads them: all side by side, as grey "
        "NAME_PseudoLabel.png, without the images' sub-folders",
    )

    @model_validator(mode="before")
    @classmethod
    def _select_as_published(cls, values: Any) -> Any:
        """The published program keeps every pixel; written out, so that a resolved recipe says so."""
        if isinstance(values, dict) and values.get("official") is True and "select" not in values:
            return {**values, "select": "all"}
        return values


class PseudoLabels(StageKind):
    """`labels/NAME.png` and `confidence/NAME.png` for each target train image, then a sheet and `result.json`."""

    settings_type = PseudoLabelsSettings
    gives = PSEUDO_LABELS
    result, use, role = "result.json", LABELS, "helper"
    made, traces = (LABELS, ARGMAX, CONFIDENCE), ("contact_sheet.png",)

    def domains(self, settings: PseudoLabelsSettings) -> set[str]:
        return {"target"}

    def data(self, run: Run, settings: PseudoLabelsSettings) -> Domains:
        target = open_side(run.recipe.data.named("target"), run.space, "train", ANY, labels=False)
        exif_of(target)  # else now, and not when the stage begins
        return Domains(None, target, None, None)

    def cost(self, work: Work, estimator: Estimator) -> Cost:
        settings, target = work.settings, work.data.target
        images = len_of(target) - (count_made(work.folder / ARGMAX) if work.resumed else 0)
        images = -(-images // work.run.runtime.ranks)
        size = settings.size or estimator.size_of(settings.model)
        seconds = images * estimator.view_seconds(settings.model, size, settings.scales, settings.mirror)
        return Cost(0.0, seconds, images, int(LABEL_BYTES * size[0] * size[1] * len_of(target)))

    def progress(self, work: Work) -> str:
        return images_done(work, ARGMAX)

    def do(self, work: Work) -> None:
        run, settings, display = work.run, work.settings, work.run.watcher
        model, images, exif = run.file_of(settings.model), places(work.data.target), exif_of(work.data.target)
        saved = run.runtime.from_main(lambda: load_any(model, run.space))
        found = make_pseudo_labels(run.runtime, saved, run.space, images, work.folder, settings, display, exif=exif)
        if run.runtime.is_main:
            display.table(shares_table(found))
            write_summary(work.folder, model, saved, images, run.space, settings, found, exif)

    def outcome(self, result: dict[str, Any]) -> str:
        if "labelled" not in result:
            return ""
        share = f"{100 * result['labelled']:.1f} % of the pixels labelled"
        return f"{share}, {result.get('images', '?')} images"

    def exhibit(self, settings: dict[str, Any]) -> Exhibit:
        columns = (
            Column(LABELS, "pseudo-label", "labels"),
            Column(CONFIDENCE, "confidence: black 0, white 1", "grey"),
        )
        return Exhibit("target", "train", "image", columns)


def write_summary(
    folder: Path,
    model: Path,
    saved: SavedModel,
    images: Sequence[Place],
    space: LabelSpace,
    settings: PseudoLabelsSettings,
    found: dict[str, Any],
    exif: Exif = "turn",
) -> None:
    """`contact_sheet.png`, and last of all `result.json`."""
    save_png(folder / "contact_sheet.png", pseudo_labels_sheet(images, folder, space, found, settings.flat, exif))
    about = {
        "label_space": space.name,
        "model_sha256": sha256(model),
        "used_target_labels": beside_earlier(folder, saved.header.used_target_labels),
        "settings": settings.model_dump(mode="json"),
    }
    write_json(folder / "result.json", {**found, **about})


def make_pseudo_labels(
    runtime: Runtime,
    saved: SavedModel,
    space: LabelSpace,
    images: Sequence[Place],
    folder: Path,
    settings: PseudoLabelsSettings,
    display: Display,
    overwrite: bool = False,
    exif: Exif = "turn",
) -> dict[str, Any]:
    """Write `labels`, `argmax` and `confidence` of all images, as `folder`/KIND/PLACE.png, with train ids of `space`.

    With `settings.flat` the labels are `folder`/labels/NAME_PseudoLabel.png. Raises UsageError for two of one name.
    All ranks share the work; images that have an arg-max and a confidence do not go through the network again. Gives
    how many pixels have a label: `images`, `labelled` (share of all pixels), and per class `kept` (share of the pixels
    that the model says are of it; None: no such pixel), `share` (share of all pixels that are labelled so) and
    `thresholds` (confidence from which they are). Raises Stopped after a signal, SegadaptError that names an image
    which cannot be read, after all others are done.
    """
    need_shared(runtime, folder)
    size = settings.size or saved.header.size
    left_in = partial(_left_in, settings.mask, settings.border)
    files = label_files(folder, images, settings.flat)
    need_other_places((image for image, _ in images), files.values())
    if settings.mask is not None:
        need_file(user_path(settings.mask), "the mask")
    left_in(size)  # a mask that cannot be read is told now, not after hours
    done = _through_network(runtime, saved, space, images, folder, settings, display, overwrite, exif)
    display.say(f"{done.written} images through the network, {done.skipped} were already done")
    runtime.barrier()
    own = [place for _, place in images[runtime.rank :: runtime.ranks]]
    counts, pixels = np.zeros((len(space), pseudo_labels.LEVELS), np.int64), 0
    for labels, levels in ahead(partial(_read, folder), own):
        counts += pseudo_labels.count_levels(np.where(left_in(labels.shape[::-1]), labels, IGNORE), levels, len(space))
        pixels += labels.size
    numbers = runtime.sum(torch.tensor([*counts.ravel().tolist(), pixels], device=runtime.device)).cpu().numpy()
    counts, pixels = numbers[:-1].reshape(counts.shape), int(numbers[-1])
    if settings.select == "all":
        thresholds = np.zeros(len(space), np.int64)
    else:
        thresholds = pseudo_labels.class_thresholds(counts, settings.keep, settings.certain)

    def write(place: Path) -> None:
        labels, levels = _read(folder, place)
        chosen = np.where(left_in(labels.shape[::-1]), pseudo_labels.select(labels, levels, thresholds), IGNORE)
        form: Format = "train_id" if settings.flat else "colour"
        save_png(files[place], picture(chosen.astype(np.uint8), space, form))

    for number, _ in enumerate(ahead(write, own), start=1):
        display.images(number, len(own), "labels selected")
    runtime.barrier()
    return {"images": len(images), **_shares(space, counts, pixels, thresholds)}


def label_files(folder: Path, images: Sequence[Place], flat: bool) -> dict[Path, Path]:
    """Where the label of each place goes. Raises UsageError when two would be one file."""
    files, whose = {}, dict[Path, Path]()
    for image, place in images:
        file = folder / LABELS / (f"{place.name}{PUBLISHED_ENDING}.png" if flat else f"{place}.png")
        if whose.setdefault(file, image) != image:
            raise UsageError(
                f"has the same name as {whose[file]}, and `flat` puts all labels side by side",
                where=image,
                remedy="Leave flat out, or label one folder after the other.",
            )
        files[place] = file
    return files


def _through_network(
    runtime: Runtime,
    saved: SavedModel,
    space: LabelSpace,
    images: Sequence[Place],
    folder: Path,
    settings: PseudoLabelsSettings,
    display: Display,
    overwrite: bool,
    exif: Exif,
) -> StreamResult:
    """Arg-max and confidence of this rank's share of the images."""
    predictor = Predictor(
        saved.network,
        settings.size or saved.header.size,
        scales=settings.scales,
        mirror=settings.mirror,
        rules=ViewRules.of(settings),
        device=runtime.device,
        precision=runtime.precision,
        plain=settings.official,
        batch=runtime.inference_batch,
    )
    table = np.arange(256, dtype=np.uint8)
    if saved.header.space != space:
        table = remap(saved.header.space, space)
        table[table == UNKNOWN] = IGNORE

    def work(pixels: Sequence[Labels]) -> list[tuple[Fetched, Fetched]]:
        sizes = [predictor.size] * len(pixels)
        if settings.refine:
            seen = zip(pixels, predictor.batch_probabilities(pixels, sizes), strict=True)
            found = [_refined(*image, settings.refine, predictor.device) for image in seen]
        else:
            found = predictor.confident_label_maps(pixels, sizes)
        return [(Fetched(labels), Fetched(confidence)) for labels, confidence in found]

    def write(job: Job, made: tuple[Fetched, Fetched]) -> None:
        labels, confidence = (fetched.numpy() for fetched in made)
        save_png(job.outputs[0], picture(table[labels], space, "colour"))
        save_png(job.outputs[1], Image.fromarray(pseudo_labels.confidence_levels(confidence)))

    jobs = [
        Job(image, (folder / ARGMAX / f"{place}.png", folder / CONFIDENCE / f"{place}.png")) for image, place in images
    ]
    batch = runtime.from_main(lambda: predictor.batch)  # ranks that counted otherwise would leave images out
    with stopping(runtime, folder) as stopped:
        done = run_batches(
            jobs,
            lambda job: np.asarray(read_rgb(job.image, predictor.size, exif)),
            work,
            write,
            flow(runtime, display, stopped, batch=batch, overwrite=overwrite),
        )
        stopped.end(done)
    return done


def _refined(
    image: Labels, probabilities: NDArray[np.float32], iterations: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """RGB (H, W, 3) and probabilities (C, H, W) -> labels uint8 (H, W) and confidence (H, W) on the device."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    highest = refined(pixels, torch.from_numpy(probabilities)[None].to(device), iterations)[0].max(dim=0)
    return highest.indices.to(torch.uint8), highest.values


def _read(folder: Path, place: Path) -> tuple[Labels, Labels]:
    """Arg-max and confidence level of one image, each (H, W)."""
    return _pixels(folder / ARGMAX / f"{place}.png"), _pixels(folder / CONFIDENCE / f"{place}.png")


def _pixels(path: Path) -> Labels:
    with opened(path) as one_channel:
        return np.asarray(one_channel)


@lru_cache(maxsize=8)
def _left_in(mask: Path | None, border: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): where a label map of `size` (W, H) may have labels: not where the mask is black, nor on the border."""
    width, height = size
    allowed = np.zeros((height, width), np.bool_)
    allowed[border : max(border, height - border), border : max(border, width - border)] = True
    if mask is not None:
        pixels = np.asarray(read_rgb(user_path(mask)).resize(size, Image.Resampling.NEAREST))
        allowed &= pixels.max(axis=2) > 0
    return allowed


def _shares(
    space: LabelSpace, counts: pseudo_labels.Counts, pixels: int, thresholds: pseudo_labels.Counts
) -> dict[str, Any]:
    kept, found = pseudo_labels.kept_counts(counts, thresholds), counts.sum(axis=1)
    per_class = list(zip(space.classes, kept.tolist(), found.tolist(), thresholds.tolist(), strict=True))
    return {
        "labelled": int(kept.sum()) / max(pixels, 1),
        "kept": {name: k / n if n else None for name, k, n, _ in per_class},
        "share": {name: k / max(pixels, 1) for name, k, _, _ in per_class},
        "thresholds": {name: t / (pseudo_labels.LEVELS - 1) if n else None for name, _, n, t in per_class},
    }


def shares_table(found: dict[str, Any]) -> Table:
    """What `make_pseudo_labels` gives, for a terminal."""
    table = Table("pseudo-labels", highlight=False)
    for column in ("% of all pixels", "% of the class kept", "from confidence"):
        table.add_column(column, justify="right")
    for name, share in found["share"].items():
        kept, threshold = found["kept"][name], found["thresholds"][name]
        texts = ("–", "–") if kept is None else (f"{100 * kept:.1f}", f"{threshold:.2f}")
        table.add_row(name, f"{100 * share:.2f}", *texts)
    table.add_section()
    table.add_row("all", f"{100 * found['labelled']:.2f}", "", "", style="bold")
    return table


def pseudo_labels_sheet(
    images: Sequence[Place],
    folder: Path,
    space: LabelSpace,
    found: dict[str, Any],
    flat: bool = False,
    exif: Exif = "turn",
) -> Image.Image:
    """A few rows of image, pseudo-label (nearly black: none) and confidence, with the share kept of each class."""
    rows, files = [], label_files(folder, images, flat)
    for image, place in some(images):
        labels, confidence = _pixels(files[place]), _pixels(folder / CONFIDENCE / f"{place}.png")
        small = read_rgb(image, (labels.shape[1], labels.shape[0]), exif)
        share = 100 * float((labels != IGNORE).mean())
        rows.append(
            sheet.row(
                [
                    (place.name, small),
                    (f"pseudo-label: {share:.0f} % of the pixels", labels_over(small, labels, space.palette)),
                    ("confidence: black 0, white 1", Image.fromarray(confidence)),
                ]
            )
        )
    kept = {name: share for name, share in found["kept"].items() if share is not None}
    colors = dict(zip(space.classes, space.colors.tolist(), strict=True))
    entries = [(colors[name], f"{name} {100 * share:.0f} % kept") for name, share in kept.items()]
    return sheet.page(rows + sheet.legend(entries, rows[0].width))

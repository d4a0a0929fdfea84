"""The `stylize` stage: every source image in the target's style, as files of the same names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from PIL import Image
from pydantic import Field, PositiveInt

from segadapt.data.orientation import Exif
from segadapt.data.reading import read_rgb
from segadapt.data.sides import exif_of, open_side
from segadapt.data.tools import sheet
from segadapt.engine.runtime import Runtime
from segadapt.files import sha256, write_json
from segadapt.inference.streams import Job, StreamResult, save_png
from segadapt.inference.stylizer import USUAL_SIZE, Stylizer, stylize
from segadapt.quirks import QuirkySettings
from segadapt.references import GENERATOR, STYLIZED, Names
from segadapt.settings import NOT_A_RESULT, Size
from segadapt.stages.context import Display, Run
from segadapt.stages.domains import ANY, Domains
from segadapt.stages.estimate import PNG_BYTES, Estimator, first_size, len_of
from segadapt.stages.image_files import Place, count_made, flow, images_done, need_shared, places, some, stopping
from segadapt.stages.stage import Column, Cost, Exhibit, StageKind, Work
from segadapt.weights.provenance import beside_earlier, used_target_labels
from segadapt.weights.saved import load_generator

IMAGES = "images"
"""The folder of the stylized copies."""


class StylizeSettings(QuirkySettings):
    """Settings of `stylize`: every source image in the target's style, as files of the same names."""

    known_quirks: ClassVar[tuple[str, ...]] = ("truncated",)
    method: Literal["stylize"] = "stylize"
    generator: Annotated[str, Names("the generator", GENERATOR)] = Field(
        description="`@stage`, a generator's safetensors file or a published `transformer_net`"
    )
    split: str = Field("train", description="the source images to stylize: train, or val where the source has it")
    size: Size | None = Field(
        None, description="input size of the generator; null: the size it was trained with, else 1024×512"
    )
    output_size: Size | None = Field(None, description="size of the stylized images; null: that of each original")
    batch: PositiveInt = Field(2, description="batch size of the generator")
    png_level: int = Field(
        1,
        ge=0,
        le=9,
        description="compression of the files, 0 (none, fastest) to 9; the pixels are the same",
        json_schema_extra=NOT_A_RESULT,
    )


class Stylize(StageKind):
    """`images/NAME.png` for each source image, then `contact_sheet.png`, last of all `result.json`."""

    settings_type = StylizeSettings
    gives = STYLIZED
    result, use, role = "result.json", IMAGES, "helper"
    made, traces = (IMAGES,), ("contact_sheet.png",)

    def domains(self, settings: StylizeSettings) -> set[str]:
        return {"source"}

    def data(self, run: Run, settings: StylizeSettings) -> Domains:
        source = open_side(run.recipe.data.named("source"), run.space, settings.split, ANY, labels=False)
        exif_of(source)  # else now, and not when the stage begins
        return Domains(source, None, None, None)

    def cost(self, work: Work, estimator: Estimator) -> Cost:
        settings, source = work.settings, work.data.source
        size = settings.size or estimator.generator_size(settings.generator)
        images = len_of(source) - (count_made(work.folder / IMAGES) if work.resumed else 0)
        images = -(-images // work.run.runtime.ranks)
        seconds = images * estimator.forward("generator", size) / estimator.rate
        width, height = settings.output_size or first_size(source)
        return Cost(0.0, seconds, images, int(PNG_BYTES * width * height * len_of(source)))

    def progress(self, work: Work) -> str:
        return images_done(work, IMAGES)

    def do(self, work: Work) -> None:
        run, settings, folder = work.run, work.settings, work.folder
        originals, generator = places(work.data.source), run.file_of(settings.generator)
        data, exif = run.recipe.data, exif_of(work.data.source)
        done = stylize_images(run.runtime, generator, originals, folder / IMAGES, settings, run.watcher, exif=exif)
        work.say(f"{done.written} images stylized, {done.skipped} were already done")
        run.runtime.barrier()
        if run.runtime.is_main:
            target = data.domains("target")[0]
            targets = [pair.image for pair in target.pairs("train")] if target.given else []
            shown = stylized_sheet(originals, folder / IMAGES, targets, (exif, target.exif))
            save_png(folder / "contact_sheet.png", shown)
            write_result(folder, generator, len(originals), settings)

    def outcome(self, result: dict[str, Any]) -> str:
        return f"{result['images']} images stylized" if "images" in result else ""

    def exhibit(self, settings: dict[str, Any]) -> Exhibit:
        columns = (Column(IMAGES, "stylized", "photo"),)
        return Exhibit("source", str(settings.get("split", "train")), "original", columns, beside_target=True)


def stylize_images(
    runtime: Runtime,
    generator: Path,
    originals: Sequence[Place],
    folder: Path,
    settings: StylizeSettings,
    display: Display,
    overwrite: bool = False,
    exif: Exif = "turn",
) -> StreamResult:
    """This rank's share of the stylized copies, as `folder`/PLACE.png; those that are there are left alone.

    Raises UsageError when `generator` is none, Stopped after a signal, SegadaptError that names an image which cannot
    be read, after all others are done.
    """
    need_shared(runtime, folder)
    saved = runtime.from_main(lambda: load_generator(generator))
    stylizer = Stylizer(
        saved.network,
        settings.size or saved.header.size or USUAL_SIZE,
        device=runtime.device,
        precision=runtime.precision,
        truncated=settings.quirk("truncated"),
        plain=settings.official,
    )
    jobs = [Job(image, (folder / f"{place}.png",)) for image, place in originals]
    with stopping(runtime, folder) as stopped:
        done = stylize(
            jobs,
            stylizer,
            flow(runtime, display, stopped, batch=settings.batch, overwrite=overwrite),
            exif=exif,
            output_size=settings.output_size,
            png_level=settings.png_level,
        )
        stopped.end(done)
    return done


def stylized_sheet(
    originals: Sequence[Place], folder: Path, targets: Sequence[Path], exif: tuple[Exif, Exif] = ("turn", "turn")
) -> Image.Image:
    """A few rows of original, stylized copy and, where there are any, an image of the target; `exif` of both."""
    rows, chosen = [], some(originals)
    shown = some(targets, len(chosen))
    for number, (image, place) in enumerate(chosen):
        original = read_rgb(image, exif=exif[0])
        pictures = [(f"original {place.name}", original), ("stylized", read_rgb(folder / f"{place}.png"))]
        if shown:
            target = shown[number % len(shown)]
            pictures.append((f"target {target.stem}", read_rgb(target, exif=exif[1])))
        rows.append(sheet.row(pictures))
    return sheet.page(rows)


def write_result(folder: Path, generator: Path, images: int, settings: StylizeSettings) -> None:
    """`result.json` of stylized copies: what made them, and whether target labels had a part in that."""
    about = {
        "images": images,
        "generator_sha256": sha256(generator),
        "used_target_labels": beside_earlier(folder, used_target_labels(generator)),
        "settings": settings.model_dump(mode="json"),
    }
    write_json(folder / "result.json", about)

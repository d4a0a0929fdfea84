"""The `stylize` stage: every source image in the target's style, as files of the same names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from segadapt.data.orientation import Exif
from segadapt.data.reading import read_rgb
from segadapt.data.tools import sheet
from segadapt.engine.runtime import Runtime
from segadapt.files import sha256, write_json
from segadapt.inference.settings import StylizeSettings
from segadapt.inference.streams import Job, StreamResult, save_png
from segadapt.inference.stylizer import USUAL_SIZE, Stylizer, stylize
from segadapt.pipeline.context import Run
from segadapt.pipeline.pictures import Place, flow, need_shared, places, some, stopping
from segadapt.pipeline.show import Display
from segadapt.weights.provenance import used_target_labels
from segadapt.weights.saved import load_generator


def stylize_stage(run: Run, name: str, settings: StylizeSettings, display: Display) -> None:
    """Write `images/NAME.png` for each source image, then `contact_sheet.png`, last of all `result.json`."""
    folder, data = run.stage_folder(name), run.recipe.data
    originals, generator = places(data.source, settings.split), run.file_of(settings.generator)
    done = stylize_images(
        run.runtime, generator, originals, folder / "images", settings, display, exif=data.source.exif
    )
    display.say(f"{name}: {done.written} images stylized, {done.skipped} were there already")
    run.runtime.barrier()
    if run.runtime.is_main:
        targets = [pair.image for pair in data.target.pairs("train")] if data.target.given else []
        shown = stylized_sheet(originals, folder / "images", targets, (data.source.exif, data.target.exif))
        save_png(folder / "contact_sheet.png", shown)
        write_json(folder / "result.json", _result(generator, len(originals), settings))


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


def _result(generator: Path, images: int, settings: StylizeSettings) -> dict[str, Any]:
    return {
        "images": images,
        "generator_sha256": sha256(generator),
        "used_target_labels": used_target_labels(generator),
        "settings": settings.model_dump(mode="json"),
    }

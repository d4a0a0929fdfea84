"""The report stage by stage: an overview of all, then what each did, in pictures."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from segadapt.data.label_spaces import IGNORE, LabelSpace
from segadapt.data.orientation import Exif
from segadapt.data.reading import opened, read_rgb
from segadapt.errors import SegadaptError
from segadapt.evaluation.evaluate import spread
from segadapt.evaluation.pictures import as_svg
from segadapt.report import tables
from segadapt.report.curves import Panel, training_panels
from segadapt.report.images import Budget, Picture, Row, figures, label_map, photo, size_on_page
from segadapt.report.records import RunRecord, StageRecord
from segadapt.stages.stage import Exhibit

ROWS = 3  # images of a stage that makes files

Place = tuple[Path, Path]
"""An image, and the path of a stage's files for it below its folders, without suffix."""


def overview(run: RunRecord) -> str:
    """The stages in order: kind, state, result and cost of each."""
    rows = []
    for number, stage in enumerate(run.stages, start=1):
        cells = {
            "stage": f'{_numbered(number)}<span class="dot"></span>{escape(stage.name)}{_method(stage)}',
            "state": f'<span class="state {stage.state.replace(" ", "-")}">{stage.state}</span>',
            "steps": _steps(stage),
            "result": _result(stage),
            "time": tables.duration(stage.seconds or 0.0),
            "images/s": tables.NOTHING if stage.images_per_second is None else f"{stage.images_per_second:.3g}",
            "peak memory": _memory(stage),
        }
        rows.append(tables.Row(cells, stage.role))
    return tables.table(rows, wide=True)


def _numbered(number: int) -> str:
    return f'<span class="number">{number}</span>'


def _method(stage: StageRecord) -> str:
    """The method, if the stage is not named after it."""
    return "" if stage.method == stage.name else f"<small>{escape(stage.method)}</small>"


def _memory(stage: StageRecord) -> str:
    """Peaks of the process and, on a GPU, of its tensors."""
    sizes = [(stage.cost.get("memory"), ""), (stage.cost.get("device_memory"), " GPU")]
    return " + ".join(f"{size / 2**30:.1f} GB{where}" for size, where in sizes if size) or tables.NOTHING


def _steps(stage: StageRecord) -> str:
    """Number of updates, and of how many if unfinished."""
    done, planned = stage.steps
    if stage.settings.get("stand_in"):
        return "a stand-in"
    steps = f"{done} of {planned}" if planned and stage.state != "done" else str(done or tables.NOTHING)
    continued = [str(step) for step in stage.continued]
    return f"{steps}, continued with different settings from {' and '.join(continued)}" if continued else steps


def _result(stage: StageRecord) -> str:
    """The result of a stage, in a few words."""
    badge = tables.BADGE if (stage.evaluation or stage.result).get("used_target_labels") else ""
    for domain in ("target", "source"):
        miou = stage.miou(domain)
        if miou is not None:
            return f"<b>{miou:.2f}</b> {domain} mIoU {badge}"
    if stage.kind is not None and (outcome := stage.kind.outcome(stage.result)):
        return f"{escape(outcome)} {badge}"
    steps, values = stage.series("val/target_miou")
    if steps:
        return f"{values[-1]:.2f} target mIoU so far (step {steps[-1]})"
    helped = stage.kind is not None and stage.role == "helper" and stage.state == "done"
    return stage.kind.gives.words if stage.kind is not None and helped else tables.NOTHING


def stage_by_stage(run: RunRecord, space: LabelSpace | None, images: int, budget: Budget) -> str:
    """The curves of trainings, and rows of pictures for stages that make files; nothing for others."""
    parts, last = [], next((stage for stage in reversed(run.of("adapted")) if stage.metrics), None)
    for number, stage in enumerate(run.stages, start=1):
        count = min(images, ROWS)
        exhibit = None if stage.kind is None else stage.kind.exhibit(stage.settings)
        if exhibit is None:
            content = curves(f"stage{number}", training_panels(stage))
        else:
            content = exhibited(run, stage, exhibit, space, count, budget)
        if content:
            title = f"{_numbered(number)}{escape(stage.name)}{_method(stage)}"
            opened = " open" if stage is last else ""
            parts.append(f'<details class="stage"{opened}><summary>{title}</summary>{content}</details>')
    return "".join(parts)


def curves(name: str, panels: Sequence[Panel]) -> str:
    """Plots side by side; `name` keeps their ids apart from others' on a page."""
    shown = []
    for number, panel in enumerate(panels):
        legend = "".join(f'<i style="background: {colour}"></i>{escape(curve)}' for curve, colour in panel.legend)
        key = f'<span class="key">{legend}</span>' if legend else ""
        svg = as_svg(f"{name}-{number}", panel.draw)
        shown.append(f"<figure><figcaption><b>{escape(panel.title)}</b>{key}</figcaption>{svg}</figure>")
    return f'<div class="curves">{"".join(shown)}</div>' if shown else ""


def exhibited(
    run: RunRecord, stage: StageRecord, exhibit: Exhibit, space: LabelSpace | None, count: int, budget: Budget
) -> str:
    """Images beside the files that the stage made for them, else the contact sheet; then the shares of the classes."""
    outcome = "" if stage.kind is None else stage.kind.outcome(stage.result)
    text = f"<p>{escape(outcome)}.</p>" if outcome else ""
    table = tables.kept_table(stage.result, space)
    folders = [stage.folder / column.folder for column in exhibit.columns]
    chosen = _some(_places(run, exhibit.domain, exhibit.split), count, folders)
    targets = _some(_places(run, "target", "train"), len(chosen), []) if exhibit.beside_target else []
    rows: list[Row] = []
    try:
        for number, place in enumerate(chosen):
            rows.append(Row(str(place[1]), [*_side_by_side(run, stage, exhibit, place, space)]))
            if targets:
                target, name = targets[number % len(targets)]
                shown = read_rgb(target, exif=_exif(run, "target"))
                rows[-1].pictures.append(Picture(f"target, for comparison: {name}", photo(shown)))
    except SegadaptError:
        rows = []
    if not rows or not budget.takes([picture for row in rows for picture in row.pictures]):
        return text + _sheet(stage, count, budget) + table
    shown_rows = (f"<h4>{escape(row.name)}</h4>{figures(row.pictures, len(row.pictures))}" for row in rows)
    return text + "".join(shown_rows) + table


def _side_by_side(
    run: RunRecord, stage: StageRecord, exhibit: Exhibit, at: Place, space: LabelSpace | None
) -> Iterator[Picture]:
    """An image, and the stage's files about it. Raises SegadaptError when one cannot be shown."""
    image, place = at
    original = read_rgb(image, exif=_exif(run, exhibit.domain))
    yield Picture(exhibit.title, photo(original))
    size = size_on_page(*original.size)
    for column in exhibit.columns:
        file = _png(stage.folder / column.folder, place)
        if column.shows == "photo":
            yield Picture(column.title, photo(read_rgb(file)))
        elif column.shows == "grey":
            yield Picture(column.title, photo(_pixels(file), size))
        else:
            if space is None:
                raise SegadaptError("the classes are not known", where=file, remedy="Give the label space.")
            train_ids = np.asarray(_pixels(file))
            share = 100 * float((train_ids != IGNORE).mean())
            yield Picture(f"{column.title}: {share:.0f} % of the pixels", label_map(train_ids, space, size))


def _sheet(stage: StageRecord, count: int, budget: Budget) -> str:
    """The contact sheet that the stage has made, if there is one."""
    try:
        sheet = read_rgb(stage.folder / "contact_sheet.png") if count else None
    except SegadaptError:
        return ""
    if sheet is None:
        return ""
    width = min(sheet.width, 1100)
    shown = [Picture("contact sheet", photo(sheet, (width, max(1, round(sheet.height * width / sheet.width)))))]
    return figures(shown, 1) if budget.takes(shown) else ""


def _places(run: RunRecord, domain: str, split: str) -> list[Place]:
    """The images of a split; none if the data is not on this machine."""
    try:
        return [
            (pair.image, Path(name, pair.name).with_suffix(""))
            for name, settings in run.domains(domain).items()
            for pair in settings.pairs(split)
        ]
    except (SegadaptError, OSError):
        return []


def _exif(run: RunRecord, side: str) -> Exif:
    """Whether the images of a side are turned: all or none, if a stage made files from them."""
    return next(iter(run.domains(side).values())).exif


def _some(places: Sequence[Place], count: int, folders: Sequence[Path]) -> list[Place]:
    """Up to `count`, evenly spread, of those with a picture in each folder."""
    found = [one for one in places if all(_png(folder, one[1]).is_file() for folder in folders)]
    return [found[index] for index in spread(len(found), count)]


def _png(folder: Path, place: Path) -> Path:
    return folder / f"{place}.png"


def _pixels(path: Path) -> Image.Image:
    """A picture of one channel as it is: train ids or grey."""
    with opened(path) as picture:
        picture.load()
        return picture

"""The verb `evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segadapt.cli.completion import one_of, spaces_and_files
from segadapt.cli.output import AsJson, OutputFile, console_beside, need_folder_name
from segadapt.cli.views import (
    MODEL,
    Batch,
    Device,
    Formats,
    Mirror,
    Official,
    PrecisionName,
    Scales,
    Size,
    Views,
    Window,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.console import Console

    from segadapt.data.catalog import Pair
    from segadapt.data.settings import DomainSettings


Side = Annotated[
    str,
    typer.Option(
        help="Which data of the model's run: target, source or both.",
        autocompletion=one_of("target", "source", "both"),
    ),
]
ScoreSpace = Annotated[
    str | None,
    typer.Option(
        help="Classes to score in (also those of a published model that names none).",
        autocompletion=spaces_and_files,
    ),
]


def evaluate(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help=f"A {MODEL}.")],
    domain: Side = "both",
    layout: Annotated[str | None, typer.Option(help="Score on other data: its layout.")] = None,
    root: Annotated[Path | None, typer.Option(help="Score on other data: its folder.")] = None,
    images: Annotated[str | None, typer.Option(help="Its sub-folder of images (layout folder).")] = None,
    labels: Annotated[str | None, typer.Option(help="Its sub-folder of labels (layout folder).")] = None,
    encoding: Annotated[str | None, typer.Option(help="How its labels are encoded; default: the layout's.")] = None,
    exif: Annotated[
        str | None, typer.Option(help="Its images with an EXIF orientation: turn (default) or raw, as they are stored.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the target to score on, default val; other data without splits is scored on all its images. "
            "The source is scored on val."
        ),
    ] = None,
    image_list: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Score on the images that this file names.")
    ] = None,
    label_space: ScoreSpace = None,
    scales: Scales = None,
    mirror: Mirror = None,
    window: Window = None,
    size: Size = None,
    batch: Batch = None,
    official: Official = False,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="FILE.json or FILE.csv, with confusion plots beside it; - prints JSON."
        ),
    ] = None,
    as_json: AsJson = False,
    write_predictions: Annotated[Path | None, typer.Option(help="Write all predictions to this folder.")] = None,
    formats: Formats = "train_id",
) -> None:
    """Score models: IoU per class, mIoU and subsets, in percent, from one confusion matrix over all images.

    segadapt evaluate runs/gta5 --scales 1,0.75,1.25 --mirror --out scores.json
    segadapt evaluate runs/gta5/sean --layout folder --root /data/own --images images --labels labels
    """
    from segadapt.inference.formats import parse_formats
    from segadapt.inference.model import find_models

    views = Views.parse(scales, mirror, window, size, official, device, precision, batch)
    others = {"images": images, "labels": labels, "encoding": encoding, "exif": exif}
    data, forms = Data(domain, layout, root, others, split, image_list, label_space), parse_formats(formats)
    files = [file for model in models for file in find_models(model)]
    output = None if out is None else OutputFile.parse(out, "--out", (".json", ".csv"))
    if write_predictions is not None:
        need_folder_name(write_predictions, "--write-predictions")
    printed = OutputFile(None, ".json") if as_json else output
    records = _score_all(files, views, data, write_predictions, forms, console_beside(printed))
    for one in dict.fromkeys(one for one in (output, printed) if one is not None):
        _write_scores(one, records, beside_json=as_json)


@dataclass(frozen=True)
class Data:
    """What to score on, as the options say."""

    domain: str
    layout: str | None
    root: Path | None
    others: dict[str, str | None]  # what else is to be said about other data
    split: str | None
    image_list: Path | None
    label_space: str | None

    def split_of(self, domain: str, settings: "DomainSettings") -> str:
        """The split to score a domain on."""
        if self.split is not None and domain.partition(".")[0] == "target":
            return self.split
        return "train" if self.root is not None and not settings.has_split("val") else "val"

    def listed(self, domain: str, settings: "DomainSettings") -> "DomainSettings":
        """The domain with `--list` as the images of its split."""
        from segadapt.errors import UsageError
        from segadapt.files import need_file

        if self.image_list is None:
            return settings
        split = self.split_of(domain, settings)
        if split not in ("train", "val"):
            raise UsageError(
                "applies to the splits train and val only", where="--list", remedy=f"Leave out --split {split}."
            )
        holdout = 0 if split == "val" else settings.holdout
        lists = {f"{split}_list": need_file(self.image_list.expanduser(), "the image list"), "holdout": holdout}
        return settings.model_copy(update=lists)

    def of(self, model: Path) -> "tuple[str | None, dict[str, DomainSettings]]":
        """Label space (None: the model's own) and domains: of the options, or else of the model's run."""
        from segadapt.errors import UsageError

        if self.root is not None or self.layout is not None:
            given = self._given()
            return self.label_space, {"target": self.listed("target", given)}
        for name, value in self.others.items():
            if value is not None:
                raise UsageError(
                    "applies only to data other than the run's",
                    where=f"--{name}",
                    remedy="Give --layout and --root with it.",
                )
        if self.domain not in ("target", "source", "both"):
            raise UsageError(f"'{self.domain}' is not a domain", where="--domain", remedy="Use target, source or both.")
        if self.image_list is not None and self.domain == "both":
            raise UsageError(
                "lists images of a single domain", where="--list", remedy="Add --domain target or --domain source."
            )
        model = model.absolute()
        for folder in (model.parent, model.parent.parent):
            if (folder / "recipe.yaml").is_file():
                return self._of_run(folder)
        raise UsageError(
            "belongs to no run, so its data set is unknown", where=model, remedy="Give --layout and --root."
        )

    def _given(self) -> "DomainSettings":
        """The data that the options name."""
        from pydantic import ValidationError

        from segadapt.data.settings import DomainSettings
        from segadapt.errors import UsageError

        if self.root is None or self.layout is None:
            raise UsageError("belong together", where="--layout and --root", remedy="Give both.")
        if self.domain != "both":
            raise UsageError(
                "applies only to the data of the model's run", where="--domain", remedy="Leave it out beside --root."
            )
        others = {name: value for name, value in self.others.items() if value is not None}
        try:
            return DomainSettings.model_validate({"layout": self.layout, "root": self.root, **others})
        except ValidationError as error:
            detail = error.errors()[0]
            option = f"--{detail['loc'][0]}" if detail["loc"] else "--layout"
            message = detail["msg"].removeprefix("Value error, ")
            raise UsageError(message, where=option, remedy="See docs/data-sets.md.") from error

    def _of_run(self, folder: Path) -> "tuple[str | None, dict[str, DomainSettings]]":
        """The same from a run's recipe, of the domains that it gives; the classes are in the model's header."""
        from segadapt.config.load import open_keys
        from segadapt.data.sides import score_name
        from segadapt.errors import UsageError
        from segadapt.report.records import read_run

        run = read_run(folder)
        wanted = ("target", "source") if self.domain == "both" else (self.domain,)
        own = {score_name(side, name): domain for side in wanted for name, domain in run.domains(side).items()}
        given = {name: domain for name, domain in own.items() if domain.given}
        left_open = [key for name in own for key in open_keys(own[name].model_dump(mode="json"), f"data.{name}.")]
        if not given:
            raise UsageError(
                f"{left_open[0]} is not given",
                where=folder / "recipe.yaml",
                remedy="Set it in the file, choose another --domain, or give --layout and --root.",
            )
        if left_open:
            typer.echo(f"{folder}: {', '.join(left_open)} not given, scored on the {' '.join(given)} alone", err=True)
        domains = {name: self.listed(name, domain) for name, domain in given.items()}
        found = {name: domain for name, domain in domains.items() if domain.has_split(self.split_of(name, domain))}
        for name, domain in domains.items():
            split = self.split_of(name, domain)
            # Of both, one without a split val is left out; a split that was asked for is not.
            if not found or (name not in found and split != "val"):
                raise UsageError(
                    f"its {name} has no split '{split}'",
                    where=folder,
                    remedy="Choose another --split or --domain, or name labelled images with --layout and --root.",
                )
        return self.label_space, found


def _score_all(
    files: list[Path], views: Views, data: Data, predictions: Path | None, forms: Any, console: "Console"
) -> list[dict[str, Any]]:
    """Score the models one after the other, and print a table of each; predictions of several go to a folder each."""
    records = []
    for file in files:
        folder = predictions / file.parent.name if predictions is not None and len(files) > 1 else predictions
        records.append(_score(file, views, data, folder, forms))
        _print_scores(console, file, records[-1])
    return records


def _score(file: Path, views: Views, data: Data, predictions: Path | None, forms: Any) -> dict[str, Any]:
    """Score one model on its domains; gives the content of an evaluation.json."""
    from segadapt.data.label_spaces import load_label_space
    from segadapt.data.settings import open_domain
    from segadapt.evaluation.evaluate import evaluate_domain, evaluation_record, prediction_writer, with_pooled
    from segadapt.evaluation.label_free import label_free_agreement
    from segadapt.weights.saved import load_any

    saved = load_any(file, None if data.label_space is None else load_label_space(data.label_space, "--label-space"))
    predictor, model_space = views.predictor(saved), saved.header.space
    chosen, domains = data.of(file)
    space = model_space if chosen is None else load_label_space(chosen, "--label-space")
    scores = {}
    for name, settings in domains.items():
        split = data.split_of(name, settings)
        dataset = open_domain(settings, space, split, predictor.size)
        keep = None
        if predictions is not None:
            folder = predictions / name if len(domains) > 1 else predictions
            _need_other_places(dataset.pairs, folder, forms)
            keep = prediction_writer(folder, forms, model_space)
        with progress_bar(f"{file.parent.name}: {name} {split}") as progress:
            scores[name] = evaluate_domain(
                predictor,
                dataset,
                model_space,
                space,
                layout=settings.layout,
                split=split,
                image_list=settings.list_of(split),
                keep=keep,
                progress=progress,
            )
    scores = with_pooled(scores, space)
    return evaluation_record(file, saved.header, space, scores, label_free_agreement(file.parent))


def _need_other_places(pairs: "list[Pair]", folder: Path, forms: Any) -> None:
    """Raise UsageError when a prediction would be written over an image or a label that it is scored with."""
    from segadapt.inference.formats import output_paths
    from segadapt.inference.streams import need_other_places

    read = [path for pair in pairs for path in (pair.image, pair.label) if path is not None]
    need_other_places(read, (p for pair in pairs for p in output_paths(folder, Path(pair.name).with_suffix(""), forms)))


def _print_scores(console: "Console", file: Path, record: dict[str, Any]) -> None:
    """A table of IoU per class and the means, one column per domain."""
    from rich.table import Table

    from segadapt.evaluation.evaluate import doubt_about

    domains = record["domains"]
    chosen = [f"step {record['step']}"] * (record["step"] is not None)
    chosen += [f"selection {record['selection']}"] * (record["selection"] is not None)
    said = {True: ["used target labels"], False: [], None: ["not known whether target labels were used"]}
    chosen += said[record["used_target_labels"]]
    table = Table(highlight=False)
    table.add_column(f"IoU in percent ({record['label_space']})")
    for name, scores in domains.items():
        listed = f" of {Path(scores['list']).name}" if scores["list"] else ""
        table.add_column(f"{name} {scores['split']}\n{scores['images']} images{listed}", justify="right")
    for label in record["classes"]:
        table.add_row(label, *(_percent(scores["per_class"][label]) for scores in domains.values()))
    table.add_section()
    table.add_row("mIoU", *(_percent(scores["miou"]) for scores in domains.values()), style="bold")
    for subset in next(iter(domains.values()))["subsets"]:
        table.add_row(f"mIoU {subset}", *(_percent(scores["subsets"][subset]) for scores in domains.values()))
    console.print(" · ".join([str(file), *chosen]), style="bold", soft_wrap=True, markup=False)
    console.print(table)
    for name, scores in domains.items():
        if (doubt := doubt_about(scores, record["classes"])) is not None:
            typer.echo(f"warning: {name} {scores['split']}: {doubt}", err=True)


def _write_scores(output: OutputFile, records: list[dict[str, Any]], beside_json: bool) -> None:
    """One record as it is, several as a list (JSON), or a row per model and domain (CSV); plots beside the file."""
    from segadapt.evaluation.evaluate import scores_as_csv
    from segadapt.files import write_json, write_text

    with output.file() as path:
        if output.suffix == ".csv":
            write_text(path, scores_as_csv(records))
        else:
            write_json(path, records[0] if len(records) == 1 else records)
    if output.path is not None:
        for record in records:
            _plot_confusions(output.path, record)
    output.written(err=beside_json)


def _plot_confusions(out: Path, record: dict[str, Any]) -> None:
    """`OUT_STAGE_DOMAIN.png` for each domain of a record."""
    from segadapt.evaluation.pictures import as_png, draw_confusion

    for name, scores in record["domains"].items():
        stage = record["stage"] or Path(record["model"]).stem
        title = f"{stage}, {name} {scores['split']}: mIoU {_percent(scores['miou'])} %"
        draw = draw_confusion(scores["confusion"], record["classes"], scores["columns"], title)
        as_png(out.with_name(f"{out.stem}_{stage}_{name}.png"), draw)


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"

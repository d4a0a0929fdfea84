"""The verbs `data check`, `data prepare`, `data sample` and `data spaces`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segadapt.cli.completion import layouts, one_of, spaces_and_files
from segadapt.cli.data_domains import domains_of
from segadapt.cli.data_findings import plain_check, print_findings, print_verdict
from segadapt.cli.output import AsJson, need_folder_name, progress_bar, say

if TYPE_CHECKING:
    from segadapt.data.settings import DomainSettings
    from segadapt.data.tools.check import Findings
    from segadapt.data.tools.prepare import Preparation

app = typer.Typer(help="Look at data sets, prepare them, or make the sample domains.", no_args_is_help=True)

LayoutName = Annotated[
    str,
    typer.Argument(
        metavar="LAYOUT|RECIPE",
        help="gta5, cityscapes, acdc, folder … (all: docs/data-sets.md). Without ROOT, a recipe: all of its data.",
        autocompletion=layouts,
    ),
]
Root = Annotated[Path | None, typer.Argument(metavar="[ROOT]", help="Folder of the data set.")]
Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        help="train, val or test; may be repeated. Default: all that exist.",
        autocompletion=one_of("train", "val", "test"),
    ),
]
Space = Annotated[
    str,
    typer.Option(
        "--label-space",
        help="A shipped label space (see `segadapt data spaces`) or a YAML file.",
        autocompletion=spaces_and_files,
    ),
]
Encoding = Annotated[str | None, typer.Option(help="How label files hold classes; default: the layout's own.")]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Images only: ignore labels.")]
TrainList = Annotated[Path | None, typer.Option(help="Image list of split train.")]
ValList = Annotated[Path | None, typer.Option(help="Image list of split val.")]
Holdout = Annotated[
    int, typer.Option(help="How many images, counted from the end, form split val (layouts without splits).")
]
CheckSize = Annotated[str | None, typer.Option(help="Training size WIDTHxHEIGHT: warn when it changes the aspect.")]
Images = Annotated[str | None, typer.Option(help="Layout folder: sub-folder of the images.")]
Labels = Annotated[str | None, typer.Option(help="Layout folder: sub-folder of the labels.")]
UnknownIds = Annotated[
    str, typer.Option(help="error or ignore: what to do with label ids that the encoding does not know.")
]
SizeMismatch = Annotated[str, typer.Option(help="error or stretch: what to do when image and label differ in size.")]
Exif = Annotated[
    str, typer.Option(help="turn or raw: images with an EXIF orientation, as viewers show them or as they are stored.")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes; default: one per core where there are many images.", min=1)
]


@app.command()
def check(
    layout: LayoutName,
    root: Root = None,
    split: Splits = None,
    label_space: Space = "cityscapes19",
    encoding: Encoding = None,
    size: CheckSize = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for one image per split that shows samples with their labels."),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many samples that image shows.", min=1)] = 6,
    unlabelled: Unlabelled = False,
    train_list: TrainList = None,
    val_list: ValList = None,
    holdout: Holdout = 0,
    images: Images = None,
    labels: Labels = None,
    unknown_ids: UnknownIds = "error",
    size_mismatch: SizeMismatch = "error",
    exif: Exif = "turn",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Open every image and label of a data set and report problems. Exit code 1 if one of them would stop training.

    segadapt data check cityscapes /data/Cityscapes --split val --out look
    """
    from segadapt.data.tools.check import check_split, default_splits

    if out is not None:
        need_folder_name(out)
    wanted, wrong, found = None if size is None else parse_size(size), 0, []
    for domain in domains_of(
        layout, root, label_space, encoding=encoding, train_list=train_list, val_list=val_list, holdout=holdout,
        images=images, labels=labels, unknown_ids=unknown_ids, size_mismatch=size_mismatch, exif=exif,
    ):  # fmt: skip
        settings, checked = domain.settings, []
        if not as_json:
            domain.announce()
        for name in split or default_splits(settings, domain.labels(unlabelled)):
            with progress_bar(f"check {name}") as progress:
                labelled = domain.labels(unlabelled, name)
                findings = check_split(settings, domain.space, name, labelled, workers, progress)
            if not as_json:
                print_findings(findings, wanted)
            if findings.reader is not None and findings.sound:
                _keep_counts(findings, settings)
            checked.append(findings)
            if out is not None:
                _write_samples(findings, samples, out / f"{domain.file_name(name)}.png", as_json)
            wrong += findings.problems
        if not as_json:
            print_verdict(checked)
        found.append((domain, checked))
    if as_json:
        typer.echo(json.dumps(plain_check(found, wanted), indent=1, allow_nan=False))
    _need_none(wrong, root or layout)


def _need_none(problems: int, where: Path | str) -> None:
    """Raise SegadaptError when a check has found something that training cannot use."""
    from segadapt.errors import SegadaptError

    if problems:
        raise SegadaptError(
            f"{problems} problems found" if problems > 1 else "one problem found",
            where=where,
            remedy="They are listed above. Fix them, or leave the files out with an image list.",
        )


@app.command()
def prepare(
    layout: LayoutName,
    root: Root = None,
    *,
    size: Annotated[str, typer.Option(help="Training size WIDTHxHEIGHT, for instance 1280x720.")],
    split: Splits = None,
    label_space: Space = "cityscapes19",
    encoding: Encoding = None,
    raw: Annotated[bool, typer.Option("--raw", help="Uncompressed: fastest to read, much larger.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare existing copies with their sources and rewrite wrong ones.")
    ] = False,
    keep_aspect: Annotated[
        bool, typer.Option("--keep-aspect", help="Fit images into the size, as augment.keep_aspect does.")
    ] = False,
    unlabelled: Unlabelled = False,
    train_list: TrainList = None,
    val_list: ValList = None,
    holdout: Holdout = 0,
    images: Images = None,
    labels: Labels = None,
    unknown_ids: UnknownIds = "error",
    size_mismatch: SizeMismatch = "error",
    exif: Exif = "turn",
    prepared_root: Annotated[
        Path | None, typer.Option(help="Output folder; default: prepared/ in $SEGADAPT_CACHE or ~/.cache/segadapt.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Write resized, lossless copies of a data set, for training with the same size and label space to read.

    The same command resumes where it stopped: segadapt data prepare gta5 /data/GTA5 --size 1280x720
    """
    from segadapt.data.settings import open_domain
    from segadapt.data.tools.check import default_splits
    from segadapt.data.tools.prepare import plan
    from segadapt.data.transforms import Augmentation
    from segadapt.errors import SegadaptError

    failures, wanted = [], parse_size(size)
    for domain in domains_of(
        layout, root, label_space, encoding=encoding, train_list=train_list, val_list=val_list, holdout=holdout,
        images=images, labels=labels, unknown_ids=unknown_ids, size_mismatch=size_mismatch, exif=exif,
        prepared_root=prepared_root,
    ):  # fmt: skip
        settings = domain.settings.model_copy(update={"prepared": False})
        domain.announce()
        for name in split or default_splits(settings, domain.labels(unlabelled)):
            augment, labelled = Augmentation(keep_aspect=keep_aspect, crop=wanted), domain.labels(unlabelled, name)
            dataset = open_domain(settings, domain.space, name, wanted, augment, labelled)
            todo = plan(dataset, settings.layout, settings.prepared_root, raw, verify)
            failures += _run_preparation(name, todo, workers)
    for reason in failures:
        typer.echo(f"left out: {reason}")
    if failures:
        raise SegadaptError(
            "one pair could not be prepared" if len(failures) == 1 else f"{len(failures)} pairs could not be prepared",
            where=root or layout,
            remedy="They are listed above. Training uses the copies once every pair of its split has one.",
        )


@app.command()
def sample(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to create; the domains go to OUT/gta5 and OUT/cityscapes.")
    ],
    seed: Annotated[int, typer.Option(help="Random seed; another seed draws other streets.", min=0)] = 0,
    train: Annotated[int, typer.Option(help="Training pairs per domain.", min=1)] = 400,
    val: Annotated[int, typer.Option(help="Validation pairs per domain.", min=1)] = 100,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures.")] = "480x240",
    workers: Workers = None,
) -> None:
    """Generate two domains of one street world: a clean rendered look and a camera look, with exact labels.

    segadapt data sample samples --train 400 --val 100
    """
    from segadapt.sample import write_sample

    with progress_bar("draw samples") as progress:
        made = write_sample(out, seed, train, val, parse_size(size), workers, progress)
    say(f"{made.written} pairs drawn, {made.kept} were there (sample version {made.version}, seed {made.seed})")
    say(f"source: layout gta5, {out / 'gta5'} (lists train.txt, val.txt)")
    say(f"target: layout cityscapes, {out / 'cityscapes'}")


@app.command()
def spaces() -> None:
    """List the label spaces that ship with the package, with their classes and encodings."""
    from segadapt.data.label_spaces import load_label_space, shipped_label_spaces

    for name in shipped_label_spaces():
        space = load_label_space(name)
        typer.echo(f"{name}: {space.description}")
        typer.echo(f"  classes: {', '.join(space.classes)}")
        typer.echo(f"  encodings: {', '.join(space.encodings)}")
        if space.subsets:
            typer.echo(f"  also scored on: {', '.join(space.subsets)}")


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """`"1280x720"` -> (1280, 720). Raises UsageError that names the option."""
    from segadapt.errors import UsageError
    from segadapt.settings import LARGEST, SMALLEST

    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and SMALLEST <= int(part) <= LARGEST for part in parts):
        raise UsageError(
            f"'{text}' is not a size",
            where=option,
            remedy=f"Give WIDTHxHEIGHT in pixels, {SMALLEST} to {LARGEST} each: 1280x720.",
        )
    return int(parts[0]), int(parts[1])


def _run_preparation(split: str, preparation: "Preparation", workers: int | None) -> list[str]:
    """Prepare one split, telling about it on stdout; gives the reasons of pairs that were left out."""
    say(f"split {split}: {len(preparation.dataset)} pairs, {len(preparation.todo)} to do")
    if preparation.bytes_needed is not None:
        say(f"  {_in_words(preparation.bytes_needed)} will be written")
    with progress_bar(f"prepare {split}") as progress:
        done = preparation.run(workers, progress)
    compared = f", {done.verified} compared and right" if preparation.verify else ""
    say(f"  {done.written} pairs written{compared}; {_in_words(done.bytes)} in all")
    for store in preparation.stores:
        say(f"  {store.kind}: {store.folder}")
    return done.failures


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _keep_counts(findings: "Findings", settings: "DomainSettings") -> None:
    """Leave the counted pixels for sampler `rare_classes`; a cache that cannot be written is no matter here."""
    from contextlib import suppress

    from segadapt.data.settings import open_domain
    from segadapt.data.statistics import keep
    from segadapt.errors import SegadaptError

    dataset = open_domain(settings, findings.space, findings.split, (8, 8))
    with suppress(SegadaptError):
        keep(dataset, settings.prepared_root, [findings.by_image[pair.name] for pair in dataset.pairs])


def _write_samples(findings: "Findings", samples: int, path: Path, err: bool) -> None:
    """A picture of some samples of one split with their labels."""
    from segadapt.data.tools.contact_sheet import contact_sheet
    from segadapt.files import new_file

    with new_file(path) as temporary:
        contact_sheet(findings, samples).save(temporary, "PNG")
    say(f"samples with their labels: {path}", err=err)

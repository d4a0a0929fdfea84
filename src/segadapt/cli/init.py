"""The verb `init`: a recipe for one's own data, from a look at two folders."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from segadapt.setup.label_values import LabelValues, Value
    from segadapt.setup.proposal import Place, Proposal

_MOST_ROWS = 40  # values of a side that are listed
_MOST_QUESTIONS = 32  # values whose class is asked for one by one


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe to write.")]
Source = Annotated[
    Path | None, typer.Option(help="Folder of the source: images with labels, rendered ones for instance.")
]
Target = Annotated[Path | None, typer.Option(help="Folder of the target: images, with or without labels.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Names of the classes in the order of their ids (road,car), or with their ids or colours "
        "(0=ground,255=crack,#ff0000=ship; - for ignored), a text file of such lines, a label-space file, "
        "or a shipped label space. Default: proposed from what the labels hold.",
    ),
]
TargetClasses = Annotated[
    str | None, typer.Option(help="The same for the target's labels, where they hold other ids than the source's.")
]
Ignore = Annotated[str | None, typer.Option(metavar="IDS", help="Ids of the labels that are no class: 0,255.")]
Images = Annotated[str | None, typer.Option(help="Sub-folder of its images; default: found.")]
Labels = Annotated[str | None, typer.Option(help="Sub-folder of its labels; default: found.")]
LayoutName = Annotated[str | None, typer.Option(help="Its layout; default: recognized.")]
MethodName = Annotated[
    str | None, typer.Option(help="The method to adapt with; default: sean on a CPU, dacs on a GPU.")
]
Size = Annotated[str | None, typer.Option(help="Training size WIDTHxHEIGHT; default: from the images.")]
Steps = Annotated[int | None, typer.Option(help="Updates of each training; default: by the machine.", min=1)]
AllLabels = Annotated[bool, typer.Option("--all-labels", help="Look into all label files, not into 200.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; replace files that are there.")]


def init(
    recipe: RecipeFile = Path("mine.yaml"),
    source: Source = None,
    target: Target = None,
    classes: Classes = None,
    target_classes: TargetClasses = None,
    ignore: Ignore = None,
    source_images: Images = None,
    source_labels: Labels = None,
    target_images: Images = None,
    target_labels: Labels = None,
    source_layout: LayoutName = None,
    target_layout: LayoutName = None,
    method: MethodName = None,
    size: Size = None,
    steps: Steps = None,
    all_labels: AllLabels = False,
    yes: Yes = False,
) -> None:
    """Write a recipe for your own data: looks at the folders, proposes the classes, and names the commands to run.

    In a terminal it asks for what is not given. segadapt init mine.yaml --source rendered --target camera
    --classes road,car,sky
    """
    from segadapt.cli.data import parse_size
    from segadapt.cli.views import progress_bar
    from segadapt.devices import choose_device
    from segadapt.setup.proposal import Place, propose
    from segadapt.setup.recipe_text import Training

    asking = not yes and sys.stdin.isatty()
    recipe = _need_recipe(recipe)
    source, target = _folder("source", source, asking), _folder("target", target, asking)
    ignored = _ids(ignore)
    places = (
        Place(source, source_layout, source_images, source_labels, classes, ignored, "--classes"),
        Place(target, target_layout, target_images, target_labels, target_classes, ignored, "--target-classes"),
    )
    wanted = (0, 0) if size is None else parse_size(size)
    training = Training(choose_device("auto").type == "cuda", wanted, steps, method)
    with progress_bar("label files") as progress:
        proposal = propose(*places, recipe, training, all_labels, progress)
    _show(proposal)
    if asking and classes is None and proposal.chosen.content is not None:
        before = proposal
        proposal = propose(*_asked(places, before), recipe, training, all_labels)
        _show_notes(note for note in proposal.notes if note not in before.notes)
    _need_new(proposal, yes, asking)
    written = proposal.write()
    typer.echo(f"written: {', '.join(map(str, map(_short, written)))}")
    _show_commands(_short(recipe), proposal)


def _need_recipe(recipe: Path) -> Path:
    from segadapt.errors import UsageError
    from segadapt.files import need_regular, need_writable, user_path

    path = user_path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"'{path}' is not a recipe's name", where="RECIPE", remedy="Let it end in .yaml: mine.yaml.")
    need_regular(path)
    need_writable(path)
    return path


def _folder(side: str, given: Path | None, asking: bool) -> Path:
    """The folder of a side, given or asked for."""
    from segadapt.errors import UsageError

    if given is not None:
        return given
    if not asking:
        raise UsageError("must be given", where=f"--{side}", remedy=f"Name the folder: --{side} FOLDER.")
    words = {"source": "images with labels", "target": "images to adapt to"}[side]
    return Path(typer.prompt(f"Folder of the {side} ({words})", err=True))


def _ids(text: str | None) -> "tuple[Value, ...]":
    from segadapt.setup.class_names import parse

    if text is None:
        return ()
    values = parse(",".join(f"{one.strip()}=-" for one in text.split(",")), "--ignore").values
    return tuple(values or ())


def _show(proposal: "Proposal") -> None:
    """What was found, side by side with what it is taken for."""
    for name, side in proposal.sides.items():
        settings = side.settings
        found = side.found
        typer.echo(f"{name}: layout {settings.layout}, {settings.root}")
        folders = [
            f"{key} {value}" for key in ("images", "labels") if (value := getattr(found.domain, key)) is not None
        ]
        counts = [
            f"{split} {len(pairs)} images"
            + (f", {count} with labels" if (count := _labelled(pairs)) else ", no labels")
            for split, pairs in found.pairs.items()
        ]
        typer.echo(f"  {'; '.join([*folders, *counts])}; most are {side.size[0]}×{side.size[1]}")
        if side.values is not None:
            _show_values(side.values, proposal.chosen.names.get(name), proposal.chosen.encodings.get(name))
    space = proposal.chosen
    typer.echo(f"classes: {len(space.space)}" + ("" if space.content is not None else f" of label space {space.name}"))
    _show_notes(proposal.notes)


def _show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}.")


def _labelled(pairs: Any) -> int:
    return sum(pair.label is not None for pair in pairs)


def _show_values(values: "LabelValues", names: Any, encoding: str | None) -> None:
    """A table of the values: how much of the pixels, in how many files, and the class."""
    looked = "all" if values.all_files else f"{values.looked_at} of {values.of}"
    typer.echo(f"  labels: {values.kind} in {looked} label files" + (f", encoding {encoding}" if encoding else ""))
    typer.echo(f"  {values.kind[:-1]:>14}{'% of pixels':>13}{'% of files':>12}  class")
    for value, seen in list(values.values.items())[:_MOST_ROWS]:
        name = "not read" if names is None else names.get(value, "unknown") or "ignored"
        files = 100 * seen.images / values.looked_at
        typer.echo(f"  {_shown(value):>14}{100 * seen.share:>13.3f}{files:>12.1f}  {name}")
    if len(values.values) > _MOST_ROWS:
        typer.echo(f"  and {len(values.values) - _MOST_ROWS} more")


def _shown(value: "Value") -> str:
    from segadapt.setup.class_names import shown

    return shown([value])


def _asked(places: "tuple[Place, Place]", proposal: "Proposal") -> "tuple[Place, Place]":
    """The places with what the person says about each value; Enter keeps what is proposed."""
    from dataclasses import replace

    source, target = places
    names = _ask_names(proposal.sides["source"].values, dict(proposal.chosen.names["source"]), "source")
    source = replace(source, classes=names)
    of_target = proposal.sides["target"].values
    if of_target is not None and "target" not in proposal.chosen.encodings and target.classes is None:
        typer.echo(
            "The target's labels hold other values: which of these classes is each? - where it is none.", err=True
        )
        known = {name for name in names.values() if name is not None}
        target = replace(target, classes=_ask_names(of_target, dict.fromkeys(of_target.values), "target", known))
    return source, target


def _ask_names(
    values: Any, proposed: dict[Any, str | None], side: str, known: set[str] | None = None
) -> dict[Any, str | None]:
    """The class of each value, as a person says; one of the `known` where there are some."""
    if values is None or len(values.values) > _MOST_QUESTIONS:
        typer.echo(f"{len(proposed)} classes: rename them in the file that is written.", err=True)
        return proposed
    typer.echo(f"Names of the {side}'s classes: Enter keeps the one in brackets, - ignores the value.", err=True)
    named: dict[Any, str | None] = {}
    for value in values.values:
        answer, asked = "", f"  {_shown(value)}"
        while not answer or (known is not None and answer not in {"-", *known}):
            if answer:
                typer.echo(f"  '{answer}' is none of {', '.join(sorted(known or ()))}", err=True)
            answer = str(typer.prompt(asked, default=proposed.get(value) or "-", err=True)).strip()
        named[value] = None if answer == "-" else answer
    return named


def _need_new(proposal: "Proposal", yes: bool, asking: bool) -> None:
    """Raise UsageError where a file is there that nobody wants replaced."""
    from segadapt.errors import UsageError

    there = [path for path in proposal.files if path.exists()]
    if not there or yes:
        return
    names = ", ".join(str(_short(path)) for path in there)
    if asking and typer.confirm(f"Replace {names}?", err=True):
        return
    raise UsageError("already exists", where=names, remedy="Choose another name, or pass --yes to replace it.")


def _short(path: Path) -> Path:
    """A path as it is written from here."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _show_commands(recipe: Path, proposal: "Proposal") -> None:
    import shlex

    name = shlex.quote(str(recipe))
    told: list[tuple[str, str]] = [
        (f"segadapt data check {name} --out look", "opens every file; look at the pictures in look/"),
        (f"segadapt run {name} --dry-run", "what it does and about how long it takes"),
        (f"segadapt run {name}", f"trains; then open runs/{recipe.stem}/report.html"),
    ]
    width = max(len(command) for command, _ in told)
    typer.echo("next:")
    for command, words in told:
        typer.echo(f"  {command:<{width}}   # {words}")

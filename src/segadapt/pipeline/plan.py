"""What a run is going to do: its stages with all that their results depend on, and which of them are to be done."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segadapt.config.load import open_keys, open_value
from segadapt.errors import UsageError, UsageErrors, nearest
from segadapt.files import digest, is_folder, need_file, sha256, user_path
from segadapt.pipeline.continuation import FLAG, Continuation, continuation
from segadapt.pipeline.stage_folder import StageFolder, State
from segadapt.plain_data import flat
from segadapt.plugin_loading import plugins_of
from segadapt.quirks import QuirkySettings
from segadapt.references import Names, Product, named_by, paths_in, references
from segadapt.settings import MISSING
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains, label_settings
from segadapt.stages.shipped import kind_of
from segadapt.stages.stage import NOTHING, Content, StageKind, Work
from segadapt.weights.starts import need_start

WORDS: dict[State, str] = {
    "new": "to do",
    "unfinished": "resumes where it stopped",
    "done": "done already, skipped",
    "changed": "made with different settings",
}

Action = Literal["skip", "leave", "begin", "resume", "continue", "redo"]


@dataclass(frozen=True)
class Planned:
    """A stage, how it stands, and what the command does about it."""

    kind: StageKind
    stage: StageFolder
    settings: QuirkySettings
    data: Domains  # but what other stages are still to make
    state: State
    chosen: bool  # by --only or --from; all are when neither is given
    fresh: bool
    continuation: Continuation | None = None  # by --continue

    @property
    def action(self) -> Action:
        """What is to be done."""
        if not self.chosen:
            return "leave"
        if self.continuation is not None and self.state in ("new", "changed"):
            return "continue"
        if self.state == "changed" or (self.fresh and self.state != "new"):
            return "redo"
        actions: dict[State, Action] = {"new": "begin", "unfinished": "resume", "done": "skip"}
        return actions[self.state]

    @property
    def to_do(self) -> bool:
        """Whether there is something to be done."""
        return self.action not in ("leave", "skip")

    def work(self, run: Run) -> Work:
        """What is to be done, for the stage's kind."""
        continued = self.continuation if self.action == "continue" else None
        resumed = self.action == "resume"
        return Work(run, self.stage.name, self.settings, self.data, self.stage.decided, resumed, continued)

    def said(self) -> str:
        """State and action in words, and whether what is kept was made with another version of a plug-in."""
        if not self.chosen:
            return "left alone"
        if self.action == "redo" and self.state != "changed":
            return "redone from scratch"
        if self.action == "continue" and self.continuation is not None:
            said = self.continuation.said()
        else:
            said = WORDS[self.state] + (", redone" if self.state == "changed" else "")
        changed = self.stage.changed_plugins() if self.action in ("skip", "resume", "continue") else []
        return said + "".join(f"; {name} has changed since it began (--fresh redoes it)" for name in changed)

    def now(self) -> "Planned":
        """The same as the folder stands now."""
        return replace(self, state=self.stage.state())


@dataclass(frozen=True)
class Choice:
    """Which stages a command is about: --only, --from, --fresh; and which continue from a checkpoint: --continue.

    A single name needs no tuple around it.
    """

    only: Sequence[str] = ()
    first: str | None = None
    fresh: bool = False
    continued: Sequence[str] = ()  # STAGE or STAGE=CHECKPOINT

    def __post_init__(self) -> None:
        for name in ("only", "continued"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))

    @property
    def some(self) -> bool:
        """Whether some stages alone are meant: what the others need may then be left open."""
        return bool(self.only) or self.first is not None

    def of(self, names: Sequence[str]) -> set[str]:
        """The chosen ones among the stages of a recipe. Raises UsageError for a name that is none."""
        if self.only and self.first is not None:
            raise UsageError("--only and --from cannot be combined", where="--from", remedy="Use one of them.")
        continued = self.checkpoints()
        flags = [("--only", name) for name in self.only] + [(FLAG, name) for name in continued]
        if self.first is not None:
            flags.append(("--from", self.first))
        for flag, name in flags:
            if name not in names:
                raise UsageError(f"no stage '{name}'", where=flag, remedy=nearest(name, list(names)))
        first = 0 if self.first is None else names.index(self.first)
        chosen = set(self.only) if self.only else set(names[first:])
        for name in continued:
            if name not in chosen or self.fresh:
                what = (
                    "--fresh redoes the stage from scratch" if self.fresh else "the stage is not among the chosen ones"
                )
                raise UsageError(what, where=f"{FLAG} {name}", remedy="Leave one of the two flags out.")
        return chosen

    def checkpoints(self) -> dict[str, str | None]:
        """Stage -> the checkpoint that it continues from, as given; None: its newest."""
        pairs = (text.partition("=") for text in self.continued)
        return {name: checkpoint or None for name, _, checkpoint in pairs}


ALL = Choice()


def plan(run: Run, choice: Choice = ALL) -> list[Planned]:
    """The run's stages in order. Raises UsageError for missing data or files, and for stages that cannot be chosen.

    Nothing is written. Files of stages before need not be there: a reference counts by the fingerprint of its stage.
    Nor need what stages that are not chosen read: it counts as they were made with.
    """
    chosen = choice.of(list(run.recipe.stages))
    need_given(run, chosen)
    continued = choice.checkpoints()
    digests: dict[Path, str] = {}  # of files and folders, each read once
    planned: dict[str, Planned] = {}
    for name, settings in run.recipe.stages.items():
        _need_kinds(run, name, settings)
        fingerprints = {before: other.stage.fingerprint for before, other in planned.items()}
        stage, data = _stage(run, name, fingerprints, digests, chosen=name in chosen)
        kind = kind_of(settings)
        if name in chosen:
            kind.check(Work(run, name, settings, data, stage.decided))
        resumed = continuation(stage, settings, continued[name]) if name in continued else None
        stage = stage.recorded() if resumed is None else resumed.stage
        planned[name] = Planned(kind, stage, settings, data, stage.state(), name in chosen, choice.fresh, resumed)
    _need_done(planned, "--only" if choice.only else "--from")
    for one in planned.values():
        if one.action in ("begin", "redo"):
            one.kind.check_start(one.work(run))
    return list(planned.values())


def need_given(run: Run, chosen: set[str]) -> None:
    """Raise UsageErrors for what is still open (`???`) and a chosen stage needs, in its settings or its data."""
    data = run.recipe.data.model_dump(mode="json")
    stages = {name: run.recipe.stages[name] for name in run.recipe.stages if name in chosen}
    tree: dict[str, Any] = {
        "data": {
            domain: data[domain]
            for domain in {domain for settings in stages.values() for domain in kind_of(settings).domains(settings)}
        },
        "stages": {name: settings.model_dump(mode="json") for name, settings in stages.items()},
    }
    errors = [open_value(key, "recipe") for key in open_keys(tree)]
    if errors:
        raise UsageErrors(errors) if len(errors) > 1 else errors[0]


def need_consent(planned: list[Planned]) -> None:
    """Raise UsageError when something would be deleted: results of other settings, or all with --fresh."""
    for one in planned:
        stage = one.stage
        if one.action == "redo" and one.state != "changed":
            raise UsageError(
                "--fresh deletes what is there and redoes the stage from scratch",
                where=stage.folder,
                remedy="Pass --yes to allow it.",
            )
        if one.action == "continue" and one.continuation is not None:
            if not one.continuation.own and one.state == "changed":
                raise UsageError(
                    "a checkpoint from elsewhere would replace what is there",
                    where=stage.folder,
                    remedy="Pass --yes to allow it, or use another --out to keep it.",
                )
        elif one.action == "redo":
            changes = stage.changes()
            more = f" and {len(changes) - 4} more" if len(changes) > 4 else ""
            raise UsageError(
                f"made with different settings ({'; '.join(changes[:4])}{more})",
                where=stage.folder,
                remedy="Use --yes to redo this stage and those after it that use it, "
                + (f"{FLAG} {stage.name} to continue from its last checkpoint, " if stage.checkpoints() else "")
                + "or another --out to keep it.",
            )


def _need_kinds(run: Run, name: str, settings: QuirkySettings) -> None:
    """Raise UsageError for a reference to a stage that gives something else than what is wanted."""
    gives = {other: kind_of(stage).gives for other, stage in run.recipe.stages.items()}
    marks = named_by(type(settings))
    for key, other in references(settings).items():
        wanted = _wanted(marks.get(key), gives[name])
        if wanted is None:
            raise UsageError(f"'@{other}' is a stage", where=f"stages.{name}.{key}", remedy="Give the path of a file.")
        if gives[other] != wanted:
            fitting = [f"@{n}" for n in gives if gives[n] == wanted and n != name]
            raise UsageError(
                f"'@{other}' gives {gives[other].words}, but {marks[key].what} is expected here",
                where=f"stages.{name}.{key}",
                remedy=f"Name {' or '.join(fitting) or 'a stage'} that gives {wanted.words}, or give a path.",
            )


def _wanted(mark: Names | None, own: Product) -> Product | None:
    """What a setting may name with `@stage`, in a stage that gives `own`."""
    return None if mark is None else own if mark.initial else mark.gives


def _need_done(planned: dict[str, Planned], flag: str) -> None:
    """Raise UsageError when a chosen stage needs one that is neither done nor chosen."""
    for name, one in planned.items():
        for other in references(one.settings).values() if one.to_do else ():
            before = planned[other]
            if not before.chosen and before.state != "done":
                state = {"new": "not begun", "unfinished": "not done yet"}.get(before.state, WORDS[before.state])
                raise UsageError(
                    f"stage '{name}' uses '{other}', which is {state}",
                    where=f"{flag} {name}",
                    remedy=f"Run it first: --only {other}, or --from {other} to run all stages from there on.",
                )


def _stage(
    run: Run, name: str, fingerprints: dict[str, str], digests: dict[Path, str], chosen: bool
) -> tuple[StageFolder, Domains]:
    """A stage as the recipe has it now, and its data.

    Files and data that are missing are errors for a chosen stage; of another one, what its folder was made with counts.
    """
    settings, lacking = run.recipe.stages[name], list[str]()
    kind, data = kind_of(settings), NOTHING
    try:
        data = kind.data(run, settings)
    except UsageError:
        if chosen:
            raise
        lacking.append("data")
    if not chosen and not (run.recipe.data.given("source") and run.recipe.data.given("target")):
        lacking.append("data")  # a split val may be missing from it
    files = {}
    for key, mark in named_by(type(settings)).items():
        try:
            files[key] = [_digest(path, digests) for path in _files(settings, key, mark)]
        except UsageError:
            if chosen:
                raise
            lacking.append(f"files.{key}")
    decided = {} if "data" in lacking else kind.decide(settings, data)
    content = _content(run, settings, data, fingerprints, {key: found for key, found in files.items() if found})
    plugins = plugins_of(kind.classes(settings))
    stage = StageFolder(name, run.stage_folder(name), content, kind.result, decided, plugins=plugins)
    return (stage.made_with(lacking) if lacking else stage), data


def _content(
    run: Run,
    settings: QuirkySettings,
    data: Domains,
    fingerprints: dict[str, str],
    files: dict[str, list[str]],
) -> Content:
    """All that the stage's result depends on; `files` are the digests of the files that its settings name."""
    kind, fields = kind_of(settings), type(settings).model_fields
    without_result = {
        name
        for name, field in fields.items()
        if (extra := field.json_schema_extra) and isinstance(extra, dict) and not extra.get("result", True)
    }
    without_path = {key for key in named_by(type(settings)) if key in files or getattr(settings, key) == MISSING}
    content: dict[str, Any] = {
        # What a file holds counts, not where it is.
        "settings": settings.model_dump(mode="json", exclude=without_result | without_path),
        "files": files,
        "stages": {key: fingerprints[name] for key, name in references(settings).items()},
        "data": {name: dataset.digest for name, dataset in data.all().items()} | label_settings(run, data),
        "label_space": run.space.digest,
        "code": kind.code_version,
        "precision": run.runtime.precision,
    }
    if kind.seeded:
        content["seed"] = run.recipe.seed
    if kind.tells_things:
        content["things"] = list(run.space.things)
    return flat(content)


def _files(settings: QuirkySettings, key: str, mark: Names) -> list[Path]:
    """The files or folders that a key of the settings names. Raises UsageError for one that is not there."""
    names = paths_in(settings, key)
    if not names or names[0].startswith("@"):
        return []
    paths = [need_start(name) if mark.initial else user_path(name) for name in names]
    there = [path for path in paths if path is not None]  # else a download, whose hash is checked when it is there
    for path in there:
        if not (mark.gives is not None and mark.gives.folder and is_folder(path)):
            need_file(path, mark.what)
    return there


def _digest(path: Path, digests: dict[Path, str]) -> str:
    """Of a file its SHA-256, of a folder that of its files' names and sizes."""
    if path not in digests:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
            digests[path] = digest([[str(file.relative_to(path)), file.stat().st_size] for file in files])
        else:
            digests[path] = sha256(path)
    return digests[path]

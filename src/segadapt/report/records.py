"""The content of a run folder, read leniently: a report must work when stages, files or data are missing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.data.settings import DomainSettings
from segadapt.data.sides import DataSettings
from segadapt.errors import UsageError
from segadapt.evaluation.label_free import is_number, read_metrics
from segadapt.files import digest, is_file, is_folder, need_folder, sha256
from segadapt.inference.model import MODEL, RECIPE
from segadapt.plain_data import Json, read_json, read_yaml
from segadapt.report.schemas import FILES, fault
from segadapt.stages.shipped import stage_kinds
from segadapt.stages.stage import Role, StageKind

State = Literal["done", "unfinished", "not started"]
_ANY = {"layout": "folder", "root": "."}
ENDS = (MODEL, "evaluation.json", "result.json")
"""Files that stages of an unknown kind may write last."""


@dataclass(frozen=True)
class StageRecord:
    """A stage from its folder and the recipe; every part may be missing."""

    name: str
    folder: Path
    settings: Json  # from the recipe
    metrics: list[Json]  # the lines of metrics.jsonl
    evaluation: Json | None  # evaluation.json
    result: Json  # result.json of a stage that makes files
    about: Json  # stage.json
    cost: Json = field(default_factory=dict)  # cost.json

    @property
    def method(self) -> str:
        """The stage's method, "?" if unknown."""
        content = mapping(self.about.get("content"))
        found = self.settings.get("method") or (self.evaluation or {}).get("method") or content.get("settings.method")
        return str(found or "?")

    @property
    def kind(self) -> StageKind | None:
        """The kind of stage; None if unknown, such as that of a plug-in that is not loaded."""
        return stage_kinds().get(self.method)

    @property
    def role(self) -> Role:
        """Its part in the comparison."""
        if self.kind is None:
            return "helper" if self.result else "adapted"
        return self.kind.role

    @property
    def state(self) -> State:
        """Its state."""
        if not _is_stage(self.folder):
            return "not started"
        ends = ENDS if self.kind is None else (self.kind.result,)
        ended = any(is_file(self.folder / name) for name in ends)
        return "done" if ended and self.about.get("state") in (None, "done") else "unfinished"

    @property
    def steps(self) -> tuple[int, int | None]:
        """(steps done, total steps or None if unknown)."""
        planned = mapping(self.about.get("decided")).get("steps") or self.settings.get("steps")
        return max((line["step"] for line in self.metrics), default=0), planned if type(planned) is int else None

    @property
    def continued(self) -> list[int]:
        """The steps from which it was continued with different settings (`--continue`)."""
        parts = self.about.get("continued")
        found = [mapping(part).get("until") for part in parts] if isinstance(parts, list) else []
        return [step for step in found if isinstance(step, int)]

    @property
    def model(self) -> Path | None:
        """The selected model's file, if it exists."""
        file = self.folder / MODEL
        return file if is_file(file) else None

    @property
    def seconds(self) -> float | None:
        """Seconds that all commands spent on it; for trainings of earlier versions only the steps; None: unknown."""
        steps = sum(self.series("time/step")[1])
        return self.cost.get("seconds") or steps or None

    @property
    def images_per_second(self) -> float | None:
        """Images of a domain per second: those that updates learned from, after the first; else those of a pass."""
        times, batch = self.series("time/step")[1][1:], self.settings.get("batch")
        if self.metrics:
            return batch * len(times) / sum(times) if isinstance(batch, int) and sum(times) > 0 else None
        seen = self.result.get("images") or sum(
            mapping(scores).get("images") or 0
            for name, scores in mapping((self.evaluation or {}).get("domains")).items()
            if "." not in name
        )
        return seen / self.cost["seconds"] if seen and self.cost.get("seconds") else None

    def domain(self, name: str) -> Json | None:
        """The scores on "target" or "source", if there are any."""
        return mapping(mapping((self.evaluation or {}).get("domains")).get(name)) or None

    @property
    def parts(self) -> list[str]:
        """The names of scores on one of several domains: `target.acdc`."""
        return [name for name in mapping((self.evaluation or {}).get("domains")) if "." in name]

    def miou(self, domain: str = "target") -> float | None:
        """mIoU on a domain in percent."""
        scores = self.domain(domain)
        return None if scores is None else scores.get("miou")

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one key of metrics.jsonl, where it has a finite value."""
        points = [(line["step"], line[key]) for line in self.metrics if is_number(line.get(key))]
        return [step for step, _ in points], [value for _, value in points]


@dataclass(frozen=True)
class RunRecord:
    """A run folder: its recipe, its environment and its stages in the order of the recipe."""

    folder: Path
    recipe: Json
    environment: Json
    stages: tuple[StageRecord, ...]
    missing: tuple[str, ...]  # what is missing or cannot be read, in words
    to_do: tuple[str, ...]  # which stages are not done, in words

    def label_space(self) -> LabelSpace:
        """The recipe's label space. Raises UsageError when it cannot be found."""
        return load_label_space(str(self.recipe.get("label_space", "cityscapes19")))

    def domains(self, side: str) -> dict[str, DomainSettings]:
        """The domains of the recipe's "source" or "target", see `DataSettings.named`.

        Raises UsageError when it is missing or invalid.
        """
        try:
            own = self.recipe["data"][side]
            return DataSettings.model_validate({"source": _ANY, "target": _ANY, side: own}).named(side)
        except (KeyError, TypeError, ValidationError) as error:
            raise UsageError(
                f"has no usable settings for the data of the {side}",
                where=self.folder / RECIPE,
                remedy="Give --layout and --root.",
            ) from error

    def of(self, role: Role) -> list[StageRecord]:
        """The stages of a role, in order."""
        return [stage for stage in self.stages if stage.role == role]

    def first(self, role: Role) -> StageRecord | None:
        """The scored stage of a role; of several, the one that was trained longest."""
        found = [stage for stage in self.of(role) if stage.miou() is not None]
        return max(found, key=self._trained, default=None)

    def _trained(self, stage: StageRecord) -> int:
        """Steps of a stage up to its scores, and of the earlier stages of its role from which it continues."""
        own = (stage.evaluation or {}).get("step") or stage.steps[0]
        earlier = self.stages[: self.stages.index(stage)]
        starts = [one for one in earlier if one.role == stage.role and stage.settings.get("start") == f"@{one.name}"]
        return own + sum(self._trained(one) for one in starts)

    def compared(self) -> list[StageRecord]:
        """The stages that are compared: source-only, the adapted stages in order, target-trained.

        Of several stages of the first and the last kind `first`, or, if none is scored, the one that was trained
        longest so far.
        """
        roles: tuple[Role, Role] = ("baseline", "upper_bound")
        ends = [self.first(role) or max(self.of(role), key=self._trained, default=None) for role in roles]
        return [stage for stage in (ends[0], *self.of("adapted"), ends[1]) if stage is not None]


def read_run(folder: Path) -> RunRecord:
    """Read a run folder. Raises UsageError when it is no folder, or holds neither recipe nor stages."""
    need_folder(folder, "the run folder")
    missing: list[str] = []
    to_do: list[str] = []
    recipe = _read(folder / RECIPE, missing)
    environment = _read(folder / "environment.json", missing)
    stages_there = {str(name): mapping(stage) for name, stage in mapping(recipe.get("stages")).items()}
    settings = {name: stage for name, stage in stages_there.items() if Path(name).name == name}
    found = sorted(path.name for path in folder.iterdir() if is_folder(path) and _is_stage(path))
    if not recipe and not found:
        raise UsageError(
            "is not a run folder: no recipe.yaml and no stage in it", where=folder, remedy="Check the path."
        )
    names = [*settings, *(name for name in found if name not in settings)]
    stages = [_read_stage(folder / name, settings.get(name, {}), missing, to_do) for name in names]
    return RunRecord(folder, recipe, environment, tuple(stages), tuple(missing), tuple(to_do))


def _read_stage(folder: Path, settings: Json, missing: list[str], to_do: list[str]) -> StageRecord:
    """Read a stage's folder; adds what should exist but does not to `missing`, and an unfinished stage to `to_do`."""
    if not _is_stage(folder):
        to_do.append(f"{folder.name}: not started")
        return StageRecord(folder.name, folder, settings, [], None, {}, {})
    read = {name: _read(folder / name, missing) if is_file(folder / name) else {} for name in FILES}
    evaluation = read["evaluation.json"] or None
    own = (read["result.json"], read["stage.json"], read["cost.json"])
    stage = StageRecord(folder.name, folder, settings, read_metrics(folder), evaluation, *own)
    if stage.state != "done":
        to_do.append(f"{stage.name}: not finished")
    elif stage.role != "helper" and not is_file(folder / "evaluation.json"):
        missing.append(f"{stage.name}/evaluation.json: not there (no scores: nothing with labels to score on?)")
    return stage


def digest_of_results(run: Path) -> str:
    """SHA-256 of the stages' records: states, scores, numbers, every update's line."""
    names = ("stage.json", "evaluation.json", "result.json", "metrics.jsonl")
    files = sorted(path for name in names for path in run.glob(f"*/{name}") if path.is_file())
    return digest([[str(path.relative_to(run)), sha256(path)] for path in files])


def _read(path: Path, missing: list[str]) -> Json:
    """The mapping in a YAML or JSON file; empty, and noted in `missing`, when it does not exist or cannot be read."""
    name = f"{path.parent.name}/{path.name}"
    if not is_file(path):
        missing.append(f"{name}: not there")
        return {}
    try:
        content = (read_yaml if path.suffix == ".yaml" else read_json)(path, path.name)
    except UsageError as error:
        missing.append(f"{name}: cannot be read ({error.what})")
        return {}
    if not isinstance(content, dict):
        missing.append(f"{name}: holds something else")
        return {}
    if path.name in FILES and (wrong := fault(path.name, content)):
        missing.append(f"{name}: does not have the expected form ({wrong})")
        return {}
    return content


def mapping(content: object) -> Json:
    """The content if it is a mapping, else an empty one."""
    return content if isinstance(content, dict) else {}


def _is_stage(folder: Path) -> bool:
    names = ("metrics.jsonl", "evaluation.json", "result.json", MODEL, "stage.json")
    return any(is_file(folder / name) for name in names)

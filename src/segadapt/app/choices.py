"""The choices in the app: runs to browse, segmenters and style transfer networks to try."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segadapt.data.label_spaces import LabelSpace
from segadapt.errors import UsageError
from segadapt.files import is_file, is_folder, need_file, user_path
from segadapt.inference.model import MODEL, RECIPE, find_model
from segadapt.report.records import read_run
from segadapt.weights.hub import hub_model, is_hub
from segadapt.weights.provenance import facts, is_generator
from segadapt.weights.saved import load_any, load_generator

RUNS = Path("runs")
"""Where `segadapt run` puts run folders, and where the app looks for them by default."""


@dataclass
class Choices:
    """Display names -> locations. Names are unique, in the order in which things were given."""

    runs: dict[str, Path] = field(default_factory=dict)
    segmenters: dict[str, Path] = field(default_factory=dict)
    generators: dict[str, Path] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)  # the segmenters that are chosen at first
    space: LabelSpace | None = None  # for published models that do not name their own

    def of_run(self, run: str) -> dict[str, str]:
        """Stage -> name of its segmenter."""
        folder = self.runs[run]
        return {file.parent.name: name for name, file in self.segmenters.items() if file.parent.parent == folder}


def find_choices(given: Sequence[Path], warn: Callable[[str], None], space: LabelSpace | None = None) -> Choices:
    """Runs, stage folders, model files and `hf://USER/NAME`; without any, the runs in `runs/`.

    A damaged model of a run is left out with a call of `warn`. `space` is for published models that do not name their
    own. Raises UsageError for anything else, and if there is nothing at all; SegadaptError for a damaged model that was
    given by itself.
    """
    places = [place if is_hub(place) else user_path(place) for place in given] or _runs_here()
    several = len(places) > 1
    found = Choices(space=space)
    for place in places:
        if not is_hub(place) and is_folder(place) and not is_file(place / MODEL):
            _add_run(found, place, several, warn)
        else:
            _add_model(found, place)
    return found


def _runs_here() -> list[Path]:
    folders = sorted(RUNS.iterdir()) if is_folder(RUNS) else []
    found = [folder for folder in folders if is_file(folder / RECIPE)]
    if not found:
        remedy = "Give a run folder, a model.safetensors or hf://USER/NAME: segadapt app RUN."
        raise UsageError("there is no run folder here to open", where=RUNS, remedy=remedy)
    return found


def _add_run(found: Choices, folder: Path, several: bool, warn: Callable[[str], None]) -> None:
    record = read_run(folder)
    run = _free(_name_of(folder), found.runs, _name_of(folder.resolve().parent))
    found.runs[run] = folder
    names: dict[Path, str] = {}
    for stage in record.stages:
        if stage.model is None:
            continue
        if not facts(stage.model):
            warn(f"{stage.model}: damaged, and left out")
            continue
        kind = found.generators if is_generator(stage.model) else found.segmenters
        name = f"{run}/{stage.name}" if several else stage.name
        names[stage.model] = _free(name, kind)
        kind[names[stage.model]] = stage.model
    segmenters = [file for file in names if names[file] in found.segmenters]
    if segmenters:
        answer = find_model(folder)
        found.answers.append(names[answer if answer in segmenters else segmenters[-1]])


def _add_model(found: Choices, place: Path) -> None:
    if is_hub(place):
        file, name = hub_model(place), str(place).partition(":")[2].strip("/")
    else:
        file = place / MODEL if is_folder(place) else need_file(place, "the run or model")
        name = _name_of(file.parent) if file.name == MODEL else file.stem
    if is_generator(file):
        load_generator(file)  # so that errors are reported now, not at the first picture
        found.generators[_free(name, found.generators)] = file
        return
    load_any(file, found.space)
    name = _free(name, found.segmenters)
    found.segmenters[name] = file
    found.answers.append(name)


def _name_of(folder: Path) -> str:
    return folder.resolve().name or "/"


def _free(name: str, taken: Iterable[str], above: str = "") -> str:
    """The name, or if taken a longer one: with the parent folder's name, or a number."""
    names = set(taken)
    longer = f"{above}/{name}" if above else name
    numbered = (f"{longer} ({number})" for number in range(2, len(names) + 3))
    return next(one for one in (name, longer, *numbered) if one not in names)

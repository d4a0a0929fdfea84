"""The contract between a kind of stage and whatever runs it.

A kind is one object in one file: its settings, what it gives to other stages and in which files, the data that it
reads, what may be wrong with it before it begins, about what it costs, and how it is done. The plan, the estimate, the
run, and the report ask the object; none of them knows a kind by name. To add one: subclass `StageKind`, and register an
instance in `segadapt.stages.shipped`, or with `register_stage`.

Settings that name files, folders or other stages are marked so where they are declared (`references.Names`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from segadapt.data.sides import DataSettings
from segadapt.methods.method import Method
from segadapt.models.networks import Choice
from segadapt.quirks import QuirkySettings
from segadapt.references import Product
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains

if TYPE_CHECKING:
    from segadapt.stages.estimate import Estimator

Content = dict[str, Any]
"""Plain values by dotted key."""
Size = tuple[int, int]
Role = Literal["baseline", "adapted", "upper_bound", "evaluation", "helper"]
"""A stage's part in a comparison: a helper makes what other stages need."""
NOTHING = Domains(None, None, None, None)


@dataclass(frozen=True)
class Cost:
    """What is still to be spent on a stage."""

    updating: float = 0.0  # seconds of updates, with the evaluations between them
    seeing: float = 0.0  # seconds of putting images through a network: scores, stylized copies, pseudo-labels
    images: int = 0  # how many these are, for this rank
    bytes: int = 0  # of the whole stage, what already exists included

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.updating + self.seeing


class Continuation(Protocol):
    """The checkpoint that `--continue` names, for a stage that can be continued."""

    @property
    def step(self) -> int:
        """Updates done."""

    def read(self) -> dict[str, Any]:
        """The checkpoint's content."""

    def restore(self, content: dict[str, Any], method: Method, facts: dict[str, Any]) -> None:
        """Put the content into `method`. Raises UsageError when it does not fit."""

    def take_over(self) -> None:
        """Make the stage's folder one that has come to this checkpoint, and no further."""


@dataclass(frozen=True)
class Work:
    """A stage that is to be done, as the plan has it."""

    run: Run
    name: str
    settings: Any  # of the kind's type
    data: Domains  # but what other stages make
    decided: Content
    resumed: bool = False  # whether some of it is done already
    continuation: Continuation | None = None

    @property
    def folder(self) -> Path:
        """Where the stage keeps its files."""
        return self.run.stage_folder(self.name)

    def say(self, text: str) -> None:
        """A line worth reading, with the stage's name."""
        self.run.watcher.say(f"{self.name}: {text}")


@dataclass(frozen=True)
class Column:
    """Files that a report shows beside their images."""

    folder: str  # below the stage's; the files are PNGs under the images' names
    title: str
    shows: Literal["photo", "labels", "grey"]


@dataclass(frozen=True)
class Exhibit:
    """What a report shows of a stage that makes files: for a few images of a split, its files beside them."""

    domain: Literal["source", "target"]
    split: str
    title: str  # of the image itself
    columns: tuple[Column, ...]
    beside_target: bool = False  # whether an image of the target stands beside, for comparison


class StageKind(ABC):
    """Base of all kinds of stages."""

    settings_type: type[QuirkySettings]  # their `method` is the kind's name in recipes
    gives: Product
    result: str  # the file that is written last: a stage without it is not done
    use: str  # what `@stage` means in the settings of another stage, below the stage's folder
    role: Role
    made: tuple[str, ...] = ()  # files and folders beside `result` that take time to make
    traces: tuple[str, ...] = ()  # all else that it writes
    code_version: int = 1  # raised when its result changes for the same settings
    uses_target_labels: bool = False  # whether it is there to learn from true labels of the target
    seeded: bool = False  # whether its result depends on the recipe's seed
    tells_things: bool = False  # whether it depends on which classes are things

    @property
    def name(self) -> str:
        """What `method:` says in a recipe."""
        return str(self.settings_type.model_fields["method"].default)

    def classes(self, settings: Any) -> Iterable[type]:
        """The classes whose code its result depends on, where they may be a plug-in's."""
        return (type(self), self.settings_type)

    # --- before anything begins ---

    @abstractmethod
    def domains(self, settings: Any) -> set[str]:
        """Whose images it cannot do without."""

    def sees_target_labels(self, settings: Any, data: DataSettings) -> bool:
        """Whether it learns from true labels of the target, with these settings and this data."""
        return self.uses_target_labels

    @abstractmethod
    def data(self, run: Run, settings: Any) -> Domains:
        """The data that is there before the run begins: not what other stages make. Raises UsageError."""

    def decide(self, settings: Any, data: Domains) -> Content:
        """What a person would have to work out from the recipe: the number of updates, of images."""
        return {f"images.{name}": len(dataset) for name, dataset in data.all().items()}

    def check(self, work: Work) -> None:  # noqa: B027 - most have nothing to say
        """Raise UsageError for what would fail later. `work.decided` is empty where the data is not known."""

    def check_start(self, work: Work) -> None:  # noqa: B027 - most have nothing to say
        """Raise UsageError when a file that it starts from will not do. Asked of a stage that begins anew only."""

    def cautions(self, settings: Any) -> Sequence[str]:
        """What is allowed but known to go wrong, in sentences."""
        return ()

    @abstractmethod
    def cost(self, work: Work, estimator: "Estimator") -> Cost:
        """About what is still to be spent on it."""

    def progress(self, work: Work) -> str:
        """How much there is to do, or how far it has come, in a few words."""
        return ""

    # --- the work ---

    @abstractmethod
    def do(self, work: Work) -> None:
        """Bring it to its end, from wherever its folder stands; `result` last. Called on all ranks."""

    # --- what others build on it ---

    def network(self, settings: Any) -> Choice | None:
        """The name of the network that it gives; None where it gives none."""
        return None

    def network_size(self, settings: Any) -> Size:
        """The input size of that network."""
        raise AssertionError(f"{self.name} gives no network")

    # --- trainings, which can be continued from a checkpoint ---

    def continuable(self, settings: Any) -> bool:
        """Whether it has checkpoints to continue from."""
        return False

    def depends_on_length(self, settings: Any) -> bool:
        """Whether an update depends on how many there will be."""
        return False

    def later_than(self, folder: Path, step: int) -> Iterable[Path]:
        """Files in its folder of more than so many updates, beside the checkpoints."""
        return ()

    # --- the report ---

    def outcome(self, result: dict[str, Any]) -> str:
        """What came of it, by its result.json (any key may be missing), in a few words."""
        return ""

    def exhibit(self, settings: dict[str, Any]) -> Exhibit | None:
        """What a report shows of its files; `settings` as a recipe says them, any key may be missing."""
        return None

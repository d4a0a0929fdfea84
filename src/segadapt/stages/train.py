"""Stages that train: one kind for each registered method. How one is trained is in `training`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from segadapt.data.sides import DataSettings
from segadapt.engine.checkpoints import Checkpoints, step_of
from segadapt.engine.selection import SELECTED
from segadapt.errors import UsageError
from segadapt.evaluation.label_free import label_free_agreement
from segadapt.files import write_text
from segadapt.inference.model import MODEL
from segadapt.methods.method import Method
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.networks import Choice, classes_of
from segadapt.plain_data import read_json_lines
from segadapt.references import GENERATOR, SEGMENTER, STYLIZED, named_by, references
from segadapt.stages import training
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains, learns_few, training_domains, with_made
from segadapt.stages.estimate import GENERATOR_NETWORK, Estimator, len_of
from segadapt.stages.evaluate import EVALUATION, after_training, write_scores
from segadapt.stages.image_files import need_shared
from segadapt.stages.registry import kind_of
from segadapt.stages.stage import Content, Cost, Role, Size, StageKind, Work
from segadapt.stages.stand_in import stand_in, stand_in_domains
from segadapt.stages.start_fits import need_fitting_files, need_same_attention
from segadapt.stages.target_style import need_both_domains
from segadapt.stages.tracked import final_scores, need_trackers, tracking_of
from segadapt.tracking.trackers import FILE as TRACKERS
from segadapt.tracking.trackers import Tracking
from segadapt.weights.provenance import model_step
from segadapt.weights.saved import load_any

LAST = "model_last.safetensors"
LABELLED = "labelled.txt"
"""The image list of the few target images whose labels a training learns from."""


def trainings() -> Mapping[str, StageKind]:
    """A kind of stage for each method that is registered now."""
    return {name: Train(method) for name, method in METHODS.items()}


class Train(StageKind):
    """The training of a method's network, or a checkpoint that stands in for it, and the scores of what comes out."""

    result, use = MODEL, MODEL
    made = ("*.safetensors", EVALUATION, "checkpoints")
    traces = ("metrics.jsonl", "tensorboard", "wandb", TRACKERS, LABELLED)
    seeded = True

    def __init__(self, method: type[Method]) -> None:
        self.method, self.settings_type = method, method.settings_type
        self.code_version, self.uses_target_labels = method.code_version, method.uses_target_labels
        self.tells_things = method.tells_things
        self.gives = SEGMENTER if issubclass(method.settings_type, SegmenterSettings) else GENERATOR

    @property
    def role(self) -> Role:  # type: ignore[override]
        """A generator helps others; a method that sees labels of the target is a bound, one that sees no image of it
        has not adapted."""
        if self.gives == GENERATOR:
            return "helper"
        if self.method.uses_target_labels:
            return "upper_bound"
        return "adapted" if "target" in self.method.domains else "baseline"

    def classes(self, settings: TrainingSettings) -> Iterable[type]:
        network = classes_of(settings.chosen_network) if isinstance(settings, SegmenterSettings) else ()
        return (self.method, self.settings_type, *network)

    # --- before anything begins ---

    def domains(self, settings: TrainingSettings) -> set[str]:
        """A training is also scored on split val of both domains, where there is one."""
        return set() if settings.stand_in is not None else set(self.method.domains)

    def sees_target_labels(self, settings: TrainingSettings, data: DataSettings) -> bool:
        return self.uses_target_labels or learns_few(settings, data)

    def data(self, run: Run, settings: TrainingSettings) -> Domains:
        return (training_domains if settings.stand_in is None else stand_in_domains)(run, settings)

    def decide(self, settings: TrainingSettings, data: Domains) -> Content:
        decided = super().decide(settings, data)
        if settings.stand_in is not None:
            return decided
        images, named = training.labelled_images(settings, data), named_by(type(settings))
        if any(named[key].gives == STYLIZED for key in references(settings)):
            images *= 2  # as many stylized copies, which are not there yet
        return {"steps": settings.number_of_steps(images), **decided}

    def check(self, work: Work) -> None:
        training.need_equal_shares(work.run, work.name, work.settings)
        need_both_domains(work.name, work.settings)
        need_same_attention(work.run, work.name, work.settings)
        need_trackers(work)
        training.need_selectable(work.name, work.settings, work.data)
        if "steps" in work.decided:
            training.need_long_schedule(work.name, work.settings, work.decided["steps"])

    def check_start(self, work: Work) -> None:
        need_fitting_files(work.run, work.settings)

    def cautions(self, settings: TrainingSettings) -> Sequence[str]:
        return settings.cautions()

    def cost(self, work: Work, estimator: Estimator) -> Cost:
        updating, disk = self._updating(work, estimator)
        images = len_of(work.data.source_val) + len_of(work.data.target_val) if self.gives == SEGMENTER else 0
        return Cost(updating, images * self._seeing(work.settings, estimator) if images else 0.0, images, int(disk))

    def _seeing(self, settings: TrainingSettings, estimator: Estimator) -> float:
        """Seconds of one image in an evaluation."""
        return estimator.forward(self.network(settings), self.network_size(settings)) / estimator.rate

    def _updating(self, work: Work, estimator: Estimator) -> tuple[float, float]:
        """(seconds, bytes) of a training without its final scores."""
        settings: TrainingSettings = work.settings
        weights = estimator.weights(self.network(settings))
        if settings.stand_in is not None:
            return 0.0, weights
        steps, done = int(work.decided["steps"]), checkpoint_step(work.folder) if work.resumed else 0
        done = done if work.continuation is None else work.continuation.step
        operations, checkpoint = estimator.step(settings)
        usual = settings.batch / work.run.runtime.ranks * operations / estimator.rate
        seconds = (steps - done) * ((step_seconds(work.folder) if work.resumed else None) or usual)
        models = 2
        if isinstance(settings, SegmenterSettings) and settings.evaluate_every:
            times = steps // settings.evaluate_every - done // settings.evaluate_every
            limit = settings.evaluate_images or math.inf
            validation = (work.data.source_val, work.data.target_val)
            each = self._seeing(settings, estimator)
            seen = sum(min(limit, len_of(data)) for data in validation)
            seconds += times * each * math.ceil(seen / work.run.runtime.ranks)
            models = 4  # the best by each criterion, too
        kept = min(settings.keep + 1, -(-steps // settings.checkpoint_every))
        return seconds, models * weights + kept * checkpoint

    def progress(self, work: Work) -> str:
        if work.settings.stand_in is not None:
            return f"{work.settings.stand_in} stands in"
        steps = work.decided["steps"]
        return f"step {checkpoint_step(work.folder)} of {steps}" if work.resumed else f"{steps} steps"

    # --- the work ---

    def do(self, work: Work) -> None:
        """Train, or load what stands in for it, and score the result."""
        tracking, finished = tracking_of(work), False
        try:
            self._do(work, tracking)
            finished = True
        finally:
            tracking.close(finished)

    def _do(self, work: Work, tracking: Tracking) -> None:
        run, settings, saved = work.run, work.settings, None
        for before in references(settings).values():
            if kind_of(run.recipe.stages[before]).gives.folder:
                need_shared(run.runtime, run.stage_folder(before))
        if settings.stand_in is not None:
            stand_in(run, work.name, settings)
        else:
            domains = with_made(run, settings, work.data, by_stages=True)
            for domain, dataset in domains.all().items():
                work.say(f"{domain}: {dataset.origin}")
            if run.runtime.is_main and learns_few(settings, run.recipe.data):
                few = domains.target if self.uses_target_labels else domains.labelled
                assert few is not None
                names = [pair.name for leaf in few.leaves for pair in leaf.pairs]
                write_text(work.folder / LABELLED, "".join(f"{name}\n" for name in names))
            saved = training.train(work, domains, tracking)
        after = after_training(work.name, settings, work.data) if self.gives == SEGMENTER else None
        if run.runtime.is_main and after is not None:
            saved = saved or load_any(run.file_of(after.model), run.space)
            record = write_scores(work, after, work.data, saved, label_free_agreement(work.folder))
            tracking.final(int(work.decided.get("steps", 0)), final_scores(record))

    # --- what others build on it ---

    def network(self, settings: TrainingSettings) -> Choice:
        return settings.chosen_network if isinstance(settings, SegmenterSettings) else GENERATOR_NETWORK

    def network_size(self, settings: TrainingSettings) -> Size:
        return settings.target_size or settings.size

    def continuable(self, settings: TrainingSettings) -> bool:
        return settings.stand_in is None

    def depends_on_length(self, settings: TrainingSettings) -> bool:
        scheduled = settings.schedule != "constant" or self.method.scheduled
        return scheduled and settings.schedule_steps is None

    def later_than(self, folder: Path, step: int) -> Iterable[Path]:
        chosen = [folder / f"model_{selection}.safetensors" for selection in SELECTED]
        stale = [path for path in chosen if path.is_file() and (model_step(path) or 0) > step]
        return [folder / MODEL, folder / LAST, folder / EVALUATION, folder / TRACKERS, *stale]


def checkpoint_step(stage: Path) -> int:
    """From where a training would resume."""
    latest = Checkpoints(stage / "checkpoints", 1).latest()
    return 0 if latest is None else step_of(latest)


def step_seconds(stage: Path) -> float | None:
    """The usual time of an update so far; None before there are some."""
    try:
        found = [line.get("time/step") for _, line in read_json_lines(stage / "metrics.jsonl")]
    except UsageError:
        return None
    times = [value for value in found if isinstance(value, float)]
    return median(times[-500:]) if len(times) >= 3 else None

"""The `evaluate` stage, and the evaluation that ends every training stage: evaluation.json."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from segadapt.data.dataset import SegmentationDataset
from segadapt.data.label_spaces import LabelSpace
from segadapt.data.sides import by_domain, open_side, score_name
from segadapt.evaluation.evaluate import doubt_about, evaluate_domain, evaluation_record, with_pooled
from segadapt.files import write_json
from segadapt.inference.predictor import Predictor, ViewRules
from segadapt.methods.settings import TrainingSettings
from segadapt.plain_data import Json
from segadapt.quirks import QuirkySettings
from segadapt.references import SCORES, SEGMENTER, Names
from segadapt.settings import Size
from segadapt.stages.context import Run
from segadapt.stages.domains import ANY, Domains
from segadapt.stages.estimate import Estimator, len_of
from segadapt.stages.image_files import threads
from segadapt.stages.stage import Cost, StageKind, Work
from segadapt.weights.saved import SavedModel, load_any

EVALUATION = "evaluation.json"


class EvaluateSettings(QuirkySettings):
    """Settings of `evaluate`."""

    known_quirks: ClassVar[tuple[str, ...]] = ("quadrants", "softmax_order", "sum_at_input", "half_windows")
    method: Literal["evaluate"] = "evaluate"
    model: Annotated[str, Names("the model", SEGMENTER)] = Field(
        description="`@stage`, a model.safetensors or a published checkpoint"
    )
    split: str = Field(
        "val", description="the labelled target images to score on: val, or test where the layout has it"
    )
    target: bool = Field(True, description="score on the target's images of `split`")
    source: bool = Field(False, description="score on the source's val images")
    scales: list[Annotated[float, Field(gt=0, le=8)]] = Field(
        [1.0], min_length=1, description="input scales, up to 8, whose softmax outputs are averaged"
    )
    mirror: bool = Field(False, description="add the mirror image of every scale")
    window: Size | None = Field(None, description="sliding window, [width, height]; null: whole images")
    size: Size | None = Field(None, description="input size of the network; null: the size the model was trained with")

    @model_validator(mode="after")
    def _something(self) -> "EvaluateSettings":
        if not (self.target or self.source):
            raise ValueError("target and source are both false: there is nothing to score on. Set one of them.")
        return self


class Evaluate(StageKind):
    """The scores of a model, as evaluation.json; rank 0 makes them."""

    settings_type = EvaluateSettings
    gives = SCORES
    result, use, role = EVALUATION, EVALUATION, "evaluation"

    def domains(self, settings: EvaluateSettings) -> set[str]:
        return {name for name in ("source", "target") if getattr(settings, name)}

    def data(self, run: Run, settings: EvaluateSettings) -> Domains:
        data, space = run.recipe.data, run.space
        target = open_side(data.named("target"), space, settings.split, ANY) if settings.target else None
        source = open_side(data.named("source"), space, "val", ANY) if settings.source else None
        return Domains(None, None, source, target)

    def cost(self, work: Work, estimator: Estimator) -> Cost:
        settings, images = work.settings, len_of(work.data.target_val) + len_of(work.data.source_val)
        size = settings.size or estimator.size_of(settings.model)
        each = estimator.view_seconds(settings.model, size, settings.scales, settings.mirror)
        return Cost(0.0, images * each, images)

    def progress(self, work: Work) -> str:
        return "" if work.resumed else f"{len_of(work.data.target_val) + len_of(work.data.source_val)} images"

    def do(self, work: Work) -> None:
        if work.run.runtime.is_main:
            saved = load_any(work.run.file_of(work.settings.model), work.run.space)
            write_scores(work, work.settings, work.data, saved)


def after_training(name: str, settings: TrainingSettings, domains: Domains) -> EvaluateSettings | None:
    """How a training stage is scored at its end, an official one step by step as published.

    On target val and source val, as far as they have labels; None when neither has.
    """
    target, source = (val is not None and val.labels is not None for val in (domains.target_val, domains.source_val))
    if not (target or source):
        return None
    return EvaluateSettings(model=f"@{name}", target=target, source=source, official=settings.official)


def write_scores(
    work: Work, settings: EvaluateSettings, domains: Domains, saved: SavedModel, label_free: Json | None = None
) -> Json:
    """Score a model on the val images that have labels; write the stage's evaluation.json, and give its content.

    `label_free`: how well InfoMax ordered the evaluations of the model's training.
    """
    run, display = work.run, work.run.watcher
    space: LabelSpace = saved.header.space
    predictor = Predictor(
        saved.network,
        settings.size or saved.header.size,
        scales=settings.scales,
        mirror=settings.mirror,
        window=settings.window,
        rules=ViewRules.of(settings),
        device=run.runtime.device,
        precision=run.runtime.precision,
        plain=settings.official,
        batch=run.runtime.inference_batch,
    )
    scores: dict[str, dict[str, Any]] = {}
    for side, parts in _labelled(settings, domains).items():
        split, named = settings.split if side == "target" else "val", run.recipe.data.named(side)
        for name, dataset in parts.items():
            domain = score_name(side, name)

            def progress(done: int, count: int, note: str = f"{domain} {split}") -> None:
                display.images(done, count, note)

            scores[domain] = evaluate_domain(
                predictor,
                dataset,
                space,
                run.space,
                layout=named[name].layout,
                split=split,
                image_list=named[name].list_of(split),
                threads=threads(run.runtime),
                progress=progress,
            )
    scores = with_pooled(scores, run.space)
    for domain, found in scores.items():
        score = "no labelled pixels to score" if found["miou"] is None else f"{found['miou']:.2f} mIoU"
        work.say(f"{score} on {domain} {found['split']} ({found['images']} images)")
        if (doubt := doubt_about(found, run.space.classes)) is not None:
            display.say(f"warning: {domain} {found['split']}: {doubt}")
    record = evaluation_record(run.file_of(settings.model), saved.header, run.space, scores, label_free)
    write_json(work.folder / EVALUATION, record)
    return record


def _labelled(settings: EvaluateSettings, domains: Domains) -> dict[str, dict[str, SegmentationDataset]]:
    """The data to score on, by side and domain; of a side that is trained on, those of several domains with labels."""
    found = {"target": by_domain(domains.target_val), "source": by_domain(domains.source_val)}
    return {
        side: {name: data for name, data in parts.items() if data.labels is not None}
        for side, parts in found.items()
        if parts and getattr(settings, side)
    }

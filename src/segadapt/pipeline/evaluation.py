"""The `evaluate` stage, and the evaluation that ends every training stage: evaluation.json."""

from typing import Any

from segadapt.data.label_spaces import LabelSpace
from segadapt.evaluation.evaluate import doubt_about, evaluate_domain, evaluation_record
from segadapt.evaluation.records import label_free_agreement
from segadapt.evaluation.settings import EvaluateSettings
from segadapt.files import write_json
from segadapt.inference.predictor import Predictor, ViewRules
from segadapt.methods.settings import TrainingSettings
from segadapt.pipeline.context import Run
from segadapt.pipeline.domains import Domains, evaluation_domains
from segadapt.pipeline.pictures import threads
from segadapt.pipeline.show import Display
from segadapt.weights.saved import load_any


def after_training(name: str, settings: TrainingSettings, domains: Domains) -> EvaluateSettings | None:
    """How a training stage is scored at its end, an official one step by step as published.

    On target val and source val, as far as they have labels; None when neither has.
    """
    target, source = (val is not None and val.labels is not None for val in (domains.target_val, domains.source_val))
    if not (target or source):
        return None
    return EvaluateSettings(model=f"@{name}", target=target, source=source, official=settings.official)


def evaluate_stage(run: Run, name: str, settings: EvaluateSettings, display: Display) -> None:
    """Score a model and write the stage's evaluation.json."""
    path = run.file_of(settings.model)
    saved = load_any(path, run.space)
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
    )
    data = {"target": run.recipe.data.target, "source": run.recipe.data.source}
    scores: dict[str, dict[str, Any]] = {}
    for domain, dataset in evaluation_domains(run, settings).items():
        split = settings.split if domain == "target" else "val"

        def progress(done: int, count: int, note: str = f"{domain} {split}") -> None:
            display.images(done, count, note)

        scores[domain] = evaluate_domain(
            predictor,
            dataset,
            space,
            run.space,
            layout=data[domain].layout,
            split=split,
            image_list=data[domain].list_of(split),
            threads=threads(run.runtime),
            progress=progress,
        )
        miou = scores[domain]["miou"]
        score = "no labelled pixels to score" if miou is None else f"{miou:.2f} mIoU"
        display.say(f"{name}: {score} on {domain} {split} ({len(dataset)} images)")
        if (doubt := doubt_about(scores[domain], run.space.classes)) is not None:
            display.say(f"warning: {domain} {split}: {doubt}")
    trained_here = isinstance(run.recipe.stages[name], TrainingSettings)
    agreement = label_free_agreement(run.stage_folder(name)) if trained_here else None
    write_json(
        run.stage_folder(name) / "evaluation.json",
        evaluation_record(path, saved.header, run.space, scores, agreement),
    )

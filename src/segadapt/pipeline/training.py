"""A training stage: data, network, method and loop put together, and the models that come out."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from segadapt.batch import Batch
from segadapt.data import loader
from segadapt.data.pairing import Pairing
from segadapt.engine.selection import Selection, Selector
from segadapt.engine.trainer import Trainer, Training
from segadapt.errors import UsageError
from segadapt.evaluation.evaluate import quick_scores
from segadapt.files import write_with
from segadapt.inference.predictor import Predictor
from segadapt.methods.methods import METHODS, make_method
from segadapt.methods.settings import TrainingSettings
from segadapt.models import networks
from segadapt.models.pretrained import load_start
from segadapt.models.saved import ModelHeader, save_model
from segadapt.models.segmenter import Segmenter
from segadapt.pipeline.context import Run
from segadapt.pipeline.domains import Domains

MINIMUM_MIOU = 20.0
"""Quirk `selection`: a network at or below this mIoU on target val was never kept."""


def train(run: Run, name: str, settings: TrainingSettings, domains: Domains) -> None:
    """Train the stage from wherever its folder stands, and leave `model.safetensors` there."""
    folder, runtime = run.stage_folder(name), run.runtime
    network = fresh_network(run, name, settings)
    method = make_method(network, settings)
    labelled = domains.source if domains.source is not None else domains.target
    assert labelled is not None
    steps = settings.number_of_steps(len(labelled))
    size = settings.target_size or settings.size

    def save(path: Path, step: int, selection: Selection) -> None:
        header = ModelHeader(
            network=settings.network,
            attention=network.attention is not None,
            published_aspp=settings.quirk("aspp"),
            pixels=network.pixels.name,
            label_space=run.space.as_dict(),
            size=size,
            stage=name,
            method=settings.method,
            step=step,
            selection=selection,
            used_target_labels=selection == "best_target" or settings.method == "target_trained",
        )
        save_model(path, method.result, header)

    selector = Selector(folder, save, MINIMUM_MIOU if settings.quirk("selection") else -1.0)
    evaluate = evaluation_during_training(domains, size, settings, run) if settings.evaluate_every else None
    training = Training(
        method, settings, steps, folder, batches_of(run, settings, domains, steps), evaluate, selector, run.watcher
    )
    Trainer(training, runtime).run()
    if runtime.is_main:
        keep_result(run, settings, selector, save, steps)
    runtime.barrier()


def need_equal_shares(run: Run, name: str, settings: TrainingSettings) -> None:
    """Raise UsageError when the stage's batch cannot be split over ranks and accumulation steps."""
    share = run.runtime.ranks * settings.accumulate
    if settings.batch % share:
        raise UsageError(
            f"batch {settings.batch} cannot be split over {run.runtime.ranks} ranks with accumulate "
            f"{settings.accumulate}",
            where=f"stages.{name}.batch",
            remedy=f"`batch` counts all ranks: use a multiple of {share}.",
        )


def fresh_network(run: Run, name: str, settings: TrainingSettings) -> Segmenter:
    """The stage's network with its starting weights, on the run's device."""
    torch.manual_seed(run.recipe.seed)
    network = networks.build(
        settings.network,
        classes=len(run.space.classes),
        attention=METHODS[settings.method].attention,
        published_aspp=settings.quirk("aspp"),
    )
    if settings.start is not None:
        start = str(run.file_of(settings.start)) if settings.start.startswith("@") else settings.start
        report = load_start(
            network, start, positional=settings.quirk("positional_load"), fresh_head=settings.fresh_head
        )
        run.watcher.say(f"{name}: {report}")
    return network.to(run.runtime.device, memory_format=run.runtime.memory_format)  # type: ignore[call-overload,no-any-return]


def batches_of(run: Run, settings: TrainingSettings, domains: Domains, steps: int) -> Callable[[int], Iterator[Batch]]:
    """first step -> this rank's batches from there to the end."""
    runtime = run.runtime
    pairing = Pairing(
        run.recipe.seed,
        settings.batch,
        sources=len(domains.source) if domains.source is not None else 0,
        targets=len(domains.target) if domains.target is not None else 0,
        shuffle=settings.shuffle,
        restart_target=settings.quirks.get("target_restart", False),
    )
    items = loader.Steps(pairing, domains.source, domains.target, runtime.rank, runtime.ranks)
    return lambda first: loader.batches(items, first, steps, runtime.workers, runtime.device.type == "cuda")


def evaluation_during_training(
    domains: Domains, size: tuple[int, int], settings: TrainingSettings, run: Run
) -> Callable[[Segmenter], dict[str, float]] | None:
    """Scores of a network on the validation images; None when there are none."""
    if domains.source_val is None and domains.target_val is None:
        return None

    def evaluate(network: Segmenter) -> dict[str, float]:
        predictor = Predictor(network, size, precision=run.runtime.precision)
        return quick_scores(
            predictor,
            run.space,
            target_val=domains.target_val,
            source_val=domains.source_val,
            limit=settings.evaluate_images,
        )

    return evaluate


def keep_result(
    run: Run, settings: TrainingSettings, selector: Selector, save: Callable[[Path, int, Selection], None], steps: int
) -> None:
    """Write the last model, and put the selected one in place as `model.safetensors`."""
    selection: Selection = "best_target" if settings.quirk("selection") else settings.select
    if not settings.quirks.get("last_not_saved"):
        save(selector.path("last"), steps, "last")
    chosen = selector.path(selection)
    if not chosen.is_file():
        run.watcher.say(
            f"no network was selected by '{selection}' (no evaluation was good enough): the last one is kept"
        )
        chosen = selector.path("last")
        if not chosen.is_file():
            save(chosen, steps, "last")
    write_with(selector.folder / "model.safetensors", lambda temporary: _copy(chosen, temporary))


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)
